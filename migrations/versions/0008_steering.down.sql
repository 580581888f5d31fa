-- Jobs that are on hold wait in their queues again, in their order.
WITH place AS MATERIALIZED (
    SELECT job_id, CASE WHEN position < 0 THEN -nextval('pgjobs.positions')
                        ELSE nextval('pgjobs.positions') END AS position
      FROM (SELECT * FROM pgjobs.holds ORDER BY abs(position), job_id OFFSET 0) AS hold
)
UPDATE pgjobs.jobs AS job
   SET status = 'queued', position = place.position, reason = NULL,
       run_at = CASE WHEN job.run_at > now() THEN now() ELSE job.run_at END
  FROM place
 WHERE job.id = place.job_id AND job.status = 'blocked';

DELETE FROM pgjobs.duties WHERE name = 'resume';
DROP FUNCTION pgjobs.pause, pgjobs.resume, pgjobs.unpark, pgjobs.hold, pgjobs.unhold, pgjobs.prioritize, pgjobs.move,
    pgjobs.run_now;

-- Cancels jobs: at once where they wait; a running one is asked to stop, and is cancelled when it has. Ended ones stay.
-- Returns those that it has changed, with their status. Locks: jobs, by id; it waits for whoever holds one.
CREATE OR REPLACE FUNCTION pgjobs.cancel(ids uuid[], reason text DEFAULT 'cancelled')
RETURNS TABLE (id uuid, status text)
LANGUAGE sql VOLATILE SET plan_cache_mode = force_custom_plan AS $$
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

DROP TABLE pgjobs.pauses, pgjobs.holds;
