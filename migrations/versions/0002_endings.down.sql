-- Takes the functions and the duty of overdue runs away.

DROP FUNCTION pgjobs.delete, pgjobs.retry, pgjobs.cancel;
DELETE FROM pgjobs.duties WHERE name = 'time_out';

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
        RETURNING id, queue, status
    ), woken AS (
        SELECT pg_notify('pgjobs.jobs', 'queued ' || job.queue) FROM job
         WHERE job.status = 'queued'
           AND EXISTS (SELECT FROM pgjobs.idlers AS idler
                        WHERE idler.queue IN (job.queue, '*') AND idler.seen_at > now() - interval '15 seconds')
    )
    SELECT job.id FROM job LEFT JOIN woken ON true
$$;
