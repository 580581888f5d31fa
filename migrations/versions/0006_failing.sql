-- Jobs that must be over by some time, failures by what they have in common, and who did what to many jobs.

-- An option that is a number of seconds. SQL may have written anything there: what is no number counts as absent, and a
-- hundred years are the most.
CREATE FUNCTION pgjobs.option_s(options jsonb, name text) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN jsonb_typeof(options->name) = 'number'
                THEN least(greatest((options->name)::numeric, 0), 3153600000)::float8 END
$$;

-- Queues ended jobs again: same rows, new positions, attempts counted anew, failures kept. Neither a ttl nor a
-- deadline counts any more, and the time for which it may be tried begins anew. Returns those that had ended.
-- Locks: jobs, by id; it waits for whoever holds one.
CREATE OR REPLACE FUNCTION pgjobs.retry(ids uuid[])
RETURNS TABLE (id uuid)
LANGUAGE sql VOLATILE SET plan_cache_mode = force_custom_plan AS $$
    WITH target AS MATERIALIZED (
        SELECT job.id
          FROM pgjobs.jobs AS job
         WHERE job.id = ANY (retry.ids) AND job.status IN ('succeeded', 'failed', 'cancelled', 'expired')
         ORDER BY job.id
           FOR UPDATE
    ), changed AS (
        UPDATE pgjobs.jobs AS job
           SET status = 'queued', position = nextval('pgjobs.positions'), attempt = 0, crashes = 0, reason = NULL,
               result = NULL, expires_at = NULL, cancel_at = NULL, started_at = NULL, finished_at = NULL,
               claim_id = NULL,
               run_at = CASE WHEN job.options ? 'retry_for' THEN now() END,
               options = CASE WHEN jsonb_typeof(job.options) = 'object'
                              THEN job.options - '{suspect,deadline,late,on_expiry}'::text[] ELSE job.options END
          FROM target
         WHERE job.id = target.id AND job.status IN ('succeeded', 'failed', 'cancelled', 'expired')
        RETURNING job.id, job.queue, job.priority
    ), told AS MATERIALIZED (
        SELECT pg_notify('pgjobs.jobs', 'queued ' || fresh.priority || ' ' || fresh.queue)
          FROM (SELECT DISTINCT changed.queue, changed.priority FROM changed) AS fresh
         WHERE EXISTS (SELECT FROM pgjobs.idlers AS idler
                        WHERE idler.queue IN (fresh.queue, '*') AND idler.seen_at > now() - interval '15 seconds')
    )
    SELECT changed.id
      FROM changed
      CROSS JOIN (SELECT count(*) FROM told) AS told
$$;

-- Gives an ended job other arguments, and queues it again. Returns its id, if it had ended.
-- Locks: the job; it waits for whoever holds it.
CREATE FUNCTION pgjobs.retry_with(job_id uuid, args jsonb)
RETURNS TABLE (id uuid)
LANGUAGE sql VOLATILE SET plan_cache_mode = force_custom_plan AS $$
    UPDATE pgjobs.jobs AS job
       SET args = retry_with.args
     WHERE job.id = retry_with.job_id AND job.status IN ('succeeded', 'failed', 'cancelled', 'expired');
    SELECT retried.id FROM pgjobs.retry(ARRAY[retry_with.job_id]) AS retried;
$$;

-- What was done to many jobs at once: by whom, when, what, to which, and to how many so far.
CREATE TABLE pgjobs.audit (
    id bigint GENERATED ALWAYS AS IDENTITY,
    at timestamptz NOT NULL DEFAULT now(),
    actor text NOT NULL,
    action text NOT NULL,
    selection jsonb NOT NULL,
    jobs bigint NOT NULL DEFAULT 0,
    CONSTRAINT audit_pkey PRIMARY KEY (id)
);

-- Failed attempts by where they failed and with what; those without an exception, by their reason. failed is how many of the
-- jobs have failed for good.
CREATE VIEW pgjobs.failed_by_fingerprint AS
    WITH alike AS (
        SELECT coalesce(failure.fingerprint, failure.reason) AS fingerprint, job.task,
               count(*) AS attempts,
               count(DISTINCT job.id) AS jobs,
               count(DISTINCT job.id) FILTER (WHERE job.status = 'failed') AS failed,
               min(failure.failed_at) AS first_at, max(failure.failed_at) AS last_at,
               max(failure.id) AS last_id
          FROM pgjobs.failures AS failure
          JOIN pgjobs.jobs AS job ON job.id = failure.job_id
         GROUP BY 1, 2
    )
    SELECT alike.fingerprint, alike.task, last.exception, last.message, alike.attempts, alike.jobs, alike.failed,
           alike.first_at, alike.last_at
      FROM alike
      JOIN pgjobs.failures AS last ON last.id = alike.last_id;

COMMENT ON TABLE pgjobs.alembic_version IS 'works with releases of revision 0003 and later';
