-- name: demo_results
-- The longest pages.
SELECT substring(args->>'url' FROM '[^/]+$') AS page, result::int AS words, attempt,
       round(extract(epoch FROM finished_at - started_at), 2) AS seconds
  FROM pgjobs.jobs
 WHERE status = 'succeeded'
 ORDER BY words DESC
 LIMIT 8


-- name: demo_statuses
-- How the jobs stand.
SELECT status, count(*) AS jobs
  FROM pgjobs.jobs
 GROUP BY status
 ORDER BY jobs DESC


-- name: demo_troubles
-- Why attempts have failed.
SELECT reason, exception, count(*) AS attempts, count(DISTINCT job_id) AS jobs
  FROM pgjobs.failures
 GROUP BY reason, exception
 ORDER BY attempts DESC


-- name: demo_ended
-- The jobs that have ended.
SELECT id
  FROM pgjobs.jobs
 WHERE finished_at IS NOT NULL


-- name: demo_held
-- The jobs that run in the processes of a supervisor.
SELECT id
  FROM pgjobs.running
 WHERE worker LIKE %(worker)s::text
