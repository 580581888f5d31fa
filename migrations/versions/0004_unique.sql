-- Unique jobs: one that keeps its key for a period keeps it when it is cancelled.

-- Cancels jobs: at once where they wait; a running one is asked to stop, and is cancelled when it has. Ended ones stay.
-- Returns those that it has changed, with their status. Locks: jobs, by id; it waits for whoever holds one.
CREATE OR REPLACE FUNCTION pgjobs.cancel(ids uuid[], reason text DEFAULT 'cancelled')
RETURNS TABLE (id uuid, status text)
LANGUAGE sql VOLATILE AS $$
    WITH target AS MATERIALIZED (
        SELECT job.id
          FROM pgjobs.jobs AS job
         WHERE job.id = ANY (cancel.ids) AND job.status IN ('scheduled', 'blocked', 'queued', 'running')
         ORDER BY job.id
           FOR UPDATE
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
    ), told AS MATERIALIZED (
        SELECT pg_notify('pgjobs.jobs', 'cancelled')
          FROM (SELECT FROM changed WHERE changed.status = 'running' LIMIT 1) AS running
    )
    SELECT changed.id, changed.status
      FROM changed
      CROSS JOIN (SELECT count(*) FROM told) AS told
$$;

COMMENT ON TABLE pgjobs.alembic_version IS 'works with releases of revision 0003 and later';
