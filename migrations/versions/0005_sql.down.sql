DROP FUNCTION pgjobs.notify_raw_inserts(boolean);
DROP TRIGGER IF EXISTS tell_of_inserted ON pgjobs.jobs;
DROP FUNCTION pgjobs.tell_of_inserted();
DROP FUNCTION pgjobs.enqueue(text, jsonb, text, integer, interval, timestamptz, interval, interval, integer, text, jsonb, jsonb);
DROP FUNCTION pgjobs.misfit(jsonb, jsonb);
DROP FUNCTION pgjobs.has_type(jsonb, jsonb);
DROP TABLE pgjobs.tasks;

-- As before, but the notification names the priority too, so that no worker need look for it.
CREATE FUNCTION pgjobs.enqueue(
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

-- Queues ended jobs again: same rows, new positions, attempts counted anew, failures kept. Returns those that had ended.
-- Locks: jobs, by id; it waits for whoever holds one.
CREATE OR REPLACE FUNCTION pgjobs.retry(ids uuid[])
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

ALTER FUNCTION pgjobs.cancel(uuid[], text) RESET plan_cache_mode;
ALTER FUNCTION pgjobs.retry(uuid[]) RESET plan_cache_mode;
ALTER FUNCTION pgjobs.delete(uuid[]) RESET plan_cache_mode;
