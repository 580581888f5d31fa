-- Takes the messages of what is cancelled away, the moments that Python can hold, and the index of failures.

DROP INDEX pgjobs.failures_alike;
DROP FUNCTION pgjobs.shown(timestamptz);
DROP FUNCTION pgjobs.rest_s(jsonb, integer);
COMMENT ON VIEW pgjobs.failed_by_fingerprint IS
    'Failed attempts by where they failed and with what. It reads all failures that are kept.';

-- Cancels jobs: at once where they wait; a running one is asked to stop, and is cancelled when it has. Ended ones stay.
-- Returns those that it has changed, with their status. Locks: jobs, by id; it waits for whoever holds one. One that had ended
-- and is queued again meanwhile would be locked out of turn, so nobody is waited for then.
CREATE OR REPLACE FUNCTION pgjobs.cancel(ids uuid[], reason text DEFAULT 'cancelled')
RETURNS TABLE (id uuid, status text)
LANGUAGE sql VOLATILE SET plan_cache_mode = force_custom_plan AS $$
    SELECT FROM pgjobs.jobs AS job
     WHERE job.id = ANY (cancel.ids) AND job.status IN ('scheduled', 'blocked', 'queued', 'running')
     ORDER BY job.id
       FOR UPDATE;
    WITH target AS MATERIALIZED (
        SELECT job.id
          FROM pgjobs.jobs AS job
         WHERE job.id = ANY (cancel.ids) AND job.status IN ('scheduled', 'blocked', 'queued', 'running')
         ORDER BY job.id
           FOR UPDATE SKIP LOCKED
    ), changed AS (
        UPDATE pgjobs.jobs AS job
           SET status = CASE WHEN job.status = 'running' THEN 'running' ELSE 'cancelled' END,
               position = NULL,
               due_at = NULL,
               cancel_at = coalesce(job.cancel_at, now()),
               finished_at = CASE WHEN job.status = 'running' THEN NULL ELSE now() END,
               unique_key = CASE WHEN job.status = 'running' OR job.options ? 'unique_for' THEN job.unique_key END,
               reason = cancel.reason
          FROM target
         WHERE job.id = target.id AND job.status IN ('scheduled', 'blocked', 'queued', 'running')
        RETURNING job.id, job.queue, job.task, job.status
    ), rolled AS (
        INSERT INTO pgjobs.rollups (minute, queue, task, status, bucket, jobs, seconds)
        SELECT date_trunc('minute', now()), changed.queue, changed.task, 'cancelled', 0, count(*), 0
          FROM changed
         WHERE changed.status = 'cancelled'
         GROUP BY changed.queue, changed.task
    ), forgotten AS (
        DELETE FROM pgjobs.holds AS held
         USING changed
         WHERE held.job_id = changed.id
    ), told AS MATERIALIZED (
        SELECT pg_notify('pgjobs.jobs', 'cancelled')
          FROM (SELECT FROM changed WHERE changed.status = 'running' LIMIT 1) AS running
    )
    SELECT changed.id, changed.status
      FROM changed
      CROSS JOIN (SELECT count(*) FROM told) AS told
$$;

DROP FUNCTION pgjobs.announce(uuid[]);
