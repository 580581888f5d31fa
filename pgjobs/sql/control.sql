-- name: cancel
-- Cancels waiting jobs, asks running ones to stop; returns (id, status) of those that were not over. Where statuses are given, here
-- and below, only what stands in one of them when it is locked.
SELECT id, status FROM pgjobs.cancel(%(ids)s::uuid[], %(reason)s::text, %(statuses)s::text[])


-- name: retry
-- Queues ended jobs again; returns those that had ended, but for those of workers that have left.
SELECT id FROM pgjobs.retry(%(ids)s::uuid[], %(statuses)s::text[])


-- name: misfit
-- What is wrong with arguments for a task, by the schema that its workers have published.
SELECT pgjobs.misfit(%(args)s::jsonb, schema)
  FROM pgjobs.tasks
 WHERE name = %(task)s


-- name: published
-- The schema that workers have published of a task's arguments.
SELECT schema
  FROM pgjobs.tasks
 WHERE name = %(task)s


-- name: retry_with
-- Gives an ended job other arguments and queues it again; returns it if it had ended.
SELECT id FROM pgjobs.retry_with(%(id)s::uuid, %(args)s::jsonb)


-- name: delete
-- Deletes jobs; returns those that were there.
SELECT id FROM pgjobs.delete(%(ids)s::uuid[], %(statuses)s::text[])


-- name: to_be_stopped
-- Of the runs of a worker, those whose job somebody has cancelled, deleted or given to another claim: this worker's own, maybe.
SELECT run.id, run.claim_id
  FROM unnest(%(ids)s::uuid[], %(claims)s::uuid[]) AS run (id, claim_id)
  LEFT JOIN pgjobs.jobs AS job ON job.id = run.id
 WHERE job.id IS NULL OR job.cancel_at IS NOT NULL OR job.claim_id IS DISTINCT FROM run.claim_id
