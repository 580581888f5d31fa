-- Every way a run can end: a duty for overdue runs, and functions to cancel, retry and delete jobs. Locks new objects, and
-- one row of duties.

INSERT INTO pgjobs.duties (name, every) VALUES ('time_out', '5 seconds');

-- Cancels jobs: at once where they wait; a running one is asked to stop, and is cancelled when it has. Ended ones stay.
-- Returns those that it has changed, with their status. Locks: jobs, by id; it waits for whoever holds one.
CREATE FUNCTION pgjobs.cancel(ids uuid[], reason text DEFAULT 'cancelled')
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
               unique_key = CASE WHEN job.status = 'running' THEN job.unique_key END,
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

-- Queues ended jobs again: same rows, new positions, attempts counted anew, failures kept. Returns those that had ended.
-- Locks: jobs, by id; it waits for whoever holds one.
CREATE FUNCTION pgjobs.retry(ids uuid[])
RETURNS TABLE (id uuid)
LANGUAGE sql VOLATILE AS $$
    WITH target AS MATERIALIZED (
        SELECT job.id
          FROM pgjobs.jobs AS job
         WHERE job.id = ANY (retry.ids) AND job.status IN ('succeeded', 'failed', 'cancelled', 'expired')
         ORDER BY job.id
           FOR UPDATE
    ), changed AS (
        UPDATE pgjobs.jobs AS job
           SET status = 'queued', position = nextval('pgjobs.positions'), attempt = 0, crashes = 0, reason = NULL,
               result = NULL, run_at = NULL, expires_at = NULL, cancel_at = NULL, started_at = NULL, finished_at = NULL,
               claim_id = NULL, options = job.options - 'suspect'
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

-- Deletes jobs in any status, with their failures; the run of a running one is stopped, and its end recorded nowhere.
-- Returns those that were there. Locks: jobs, by id; it waits for whoever holds one.
CREATE FUNCTION pgjobs.delete(ids uuid[])
RETURNS TABLE (id uuid)
LANGUAGE sql VOLATILE AS $$
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

-- As before, but the notification names the priority too, so that no worker need look for it.
CREATE OR REPLACE FUNCTION pgjobs.enqueue(
    task text,
    args jsonb DEFAULT '{}',
    queue text DEFAULT 'default',
    priority integer DEFAULT 0,
    delay interval DEFAULT NULL,
    run_at timestamptz DEFAULT NULL,
    ttl interval DEFAULT NULL,
    timeout interval DEFAULT '1 hour',
    max_attempts integer DEFAULT 5
) RETURNS uuid
LANGUAGE sql VOLATILE AS $$
    WITH due AS (
        SELECT coalesce(enqueue.run_at, clock_timestamp() + enqueue.delay) AS at
    ), job AS (
        INSERT INTO pgjobs.jobs (task, args, queue, priority, status, position, run_at, due_at, expires_at, timeout, max_attempts)
        SELECT enqueue.task, enqueue.args, enqueue.queue, enqueue.priority,
               CASE WHEN due.at > clock_timestamp() THEN 'scheduled' ELSE 'queued' END,
               CASE WHEN due.at > clock_timestamp() THEN NULL ELSE nextval('pgjobs.positions') END,
               due.at,
               CASE WHEN due.at > clock_timestamp() THEN due.at END,
               clock_timestamp() + enqueue.ttl, enqueue.timeout, enqueue.max_attempts
          FROM due
        RETURNING id, queue, priority, status
    ), woken AS (
        SELECT pg_notify('pgjobs.jobs', 'queued ' || job.priority || ' ' || job.queue) FROM job
         WHERE job.status = 'queued'
           AND EXISTS (SELECT FROM pgjobs.idlers AS idler
                        WHERE idler.queue IN (job.queue, '*') AND idler.seen_at > now() - interval '15 seconds')
    )
    SELECT job.id FROM job LEFT JOIN woken ON true
$$;
