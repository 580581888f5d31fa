-- Deletes jobs in any status, with their failures; the run of a running one is stopped, and its end recorded nowhere.
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
    ), told AS MATERIALIZED (
        SELECT pg_notify('pgjobs.jobs', 'cancelled')
          FROM (SELECT FROM gone WHERE gone.status = 'running' LIMIT 1) AS running
    )
    SELECT gone.id
      FROM gone
      CROSS JOIN (SELECT count(*) FROM told) AS told
$$;

DROP TABLE pgjobs.logs, pgjobs.files;

COMMENT ON TABLE pgjobs.alembic_version IS 'works with releases of revision 0003 and later';
