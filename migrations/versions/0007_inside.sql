-- What a job says while it runs.

-- Lines that jobs have logged, in the order of id. Written in batches, never changed, deleted with their job.
CREATE TABLE pgjobs.logs (
    id bigint GENERATED ALWAYS AS IDENTITY,
    job_id uuid NOT NULL,
    attempt smallint NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    level text NOT NULL,
    line text NOT NULL,
    CONSTRAINT logs_pkey PRIMARY KEY (id)
) WITH (autovacuum_vacuum_insert_scale_factor = 0.2);
CREATE INDEX logs_job ON pgjobs.logs (job_id);

-- Files that jobs have attached. Most are compressed already, so PostgreSQL need not try.
CREATE TABLE pgjobs.files (
    job_id uuid NOT NULL,
    name text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    content_type text,
    size bigint NOT NULL,
    data bytea NOT NULL,
    CONSTRAINT files_pkey PRIMARY KEY (job_id, name)
);
ALTER TABLE pgjobs.files ALTER COLUMN data SET STORAGE EXTERNAL;

-- Deletes jobs in any status, with their failures, log lines and files; the run of a running one is stopped, and its end recorded nowhere.
-- Returns those that were there. Locks: jobs, by id; it waits for whoever holds one.
CREATE OR REPLACE FUNCTION pgjobs.delete(ids uuid[])
RETURNS TABLE (id uuid)
LANGUAGE sql VOLATILE SET plan_cache_mode = force_custom_plan AS $$
    WITH target AS MATERIALIZED (
        SELECT job.id, job.status
          FROM pgjobs.jobs AS job
         WHERE job.id = ANY (delete.ids)
         ORDER BY job.id
           FOR UPDATE
    ), gone AS (
        DELETE FROM pgjobs.jobs AS job
         USING target
         WHERE job.id = target.id
        RETURNING job.id, target.status
    ), forgotten AS (
        DELETE FROM pgjobs.failures AS failure
         USING gone
         WHERE failure.job_id = gone.id
    ), unlogged AS (
        DELETE FROM pgjobs.logs AS line
         USING gone
         WHERE line.job_id = gone.id
    ), emptied AS (
        DELETE FROM pgjobs.files AS file
         USING gone
         WHERE file.job_id = gone.id
    ), told AS MATERIALIZED (
        SELECT pg_notify('pgjobs.jobs', 'cancelled')
          FROM (SELECT FROM gone WHERE gone.status = 'running' LIMIT 1) AS running
    )
    SELECT gone.id
      FROM gone
      CROSS JOIN (SELECT count(*) FROM told) AS told
$$;

COMMENT ON TABLE pgjobs.alembic_version IS 'works with releases of revision 0003 and later';
