-- name: job
-- One job as it stands.
SELECT id, task, queue, status, priority, attempt, max_attempts, crashes, pgjobs.shown(run_at) AS run_at,
       pgjobs.shown(due_at) AS due_at, pgjobs.shown(expires_at) AS expires_at, pgjobs.shown(cancel_at) AS cancel_at,
       pgjobs.shown(created_at) AS created_at, pgjobs.shown(started_at) AS started_at,
       pgjobs.shown(finished_at) AS finished_at, timeout, reason, args, progress, result, meta, options, usage
  FROM pgjobs.jobs
 WHERE id = %(id)s::uuid


-- name: jobs_by_id
-- Some jobs as they stand.
SELECT id, task, queue, status, priority, attempt, max_attempts, crashes, pgjobs.shown(run_at) AS run_at,
       pgjobs.shown(due_at) AS due_at, pgjobs.shown(expires_at) AS expires_at, pgjobs.shown(cancel_at) AS cancel_at,
       pgjobs.shown(created_at) AS created_at, pgjobs.shown(started_at) AS started_at,
       pgjobs.shown(finished_at) AS finished_at, timeout, reason, args, progress, result, meta, options, usage
  FROM pgjobs.jobs
 WHERE id = ANY (%(ids)s::uuid[])


-- name: output
-- What a job has written, the last of it; apart from its row, which is read more often.
SELECT output
  FROM pgjobs.jobs
 WHERE id = %(id)s::uuid


-- name: statuses
-- How some jobs stand.
SELECT id, status
  FROM pgjobs.jobs
 WHERE id = ANY (%(ids)s::uuid[])


-- name: jobs
-- The latest of some jobs.
SELECT id, task, queue, status, priority, attempt, max_attempts, crashes, pgjobs.shown(run_at) AS run_at,
       pgjobs.shown(due_at) AS due_at, pgjobs.shown(expires_at) AS expires_at, pgjobs.shown(cancel_at) AS cancel_at,
       pgjobs.shown(created_at) AS created_at, pgjobs.shown(started_at) AS started_at,
       pgjobs.shown(finished_at) AS finished_at, timeout, reason, args, progress, result, meta, options, usage
  FROM pgjobs.jobs
 WHERE status = ANY (%(statuses)s::text[])
   AND (%(queue)s::text IS NULL OR queue = %(queue)s::text)
   AND (%(task)s::text IS NULL OR task = %(task)s::text)
   AND (%(age)s::float8 IS NULL OR created_at < now() - %(age)s::float8 * interval '1 second')
   AND true /* alike */
   AND true /* where */
 ORDER BY id DESC
 LIMIT %(limit)s::int


-- name: alike
-- The condition of queries about some jobs that an attempt of a job failed so. It is put in where a fingerprint is given: beside an OR the
-- planner would walk all jobs instead of going from the failures to theirs.
id IN (SELECT job_id FROM pgjobs.failures WHERE coalesce(fingerprint, reason) = %(fingerprint)s::text)


-- name: count_jobs
-- How many jobs a command would act on, by status. Whoever gives the command may add a condition of their own: this and the
-- next run in transactions that can write nothing.
SELECT status, count(*) AS jobs
  FROM pgjobs.jobs
 WHERE status = ANY (%(statuses)s::text[])
   AND (%(queue)s::text IS NULL OR queue = %(queue)s::text)
   AND (%(task)s::text IS NULL OR task = %(task)s::text)
   AND (%(age)s::float8 IS NULL OR created_at < now() - %(age)s::float8 * interval '1 second')
   AND true /* alike */
   AND true /* where */
 GROUP BY status
 ORDER BY status


-- name: select_jobs
-- The next of these jobs, by id.
SELECT id
  FROM pgjobs.jobs
 WHERE id > %(after)s::uuid
   AND status = ANY (%(statuses)s::text[])
   AND (%(queue)s::text IS NULL OR queue = %(queue)s::text)
   AND (%(task)s::text IS NULL OR task = %(task)s::text)
   AND (%(age)s::float8 IS NULL OR created_at < now() - %(age)s::float8 * interval '1 second')
   AND true /* alike */
   AND true /* where */
 ORDER BY id
 LIMIT %(limit)s::int


-- name: export_jobs
-- The same jobs as they stand, or those of some ids, for a cursor: by id, so that the first rows come at once and nothing is
-- sorted.
SELECT id, task, queue, status, priority, attempt, max_attempts, crashes, pgjobs.shown(run_at) AS run_at,
       pgjobs.shown(due_at) AS due_at, pgjobs.shown(expires_at) AS expires_at, pgjobs.shown(cancel_at) AS cancel_at,
       pgjobs.shown(created_at) AS created_at, pgjobs.shown(started_at) AS started_at,
       pgjobs.shown(finished_at) AS finished_at, timeout, reason, args, progress, result, meta, options, usage
  FROM pgjobs.jobs
 WHERE (%(ids)s::uuid[] IS NULL OR id = ANY (%(ids)s::uuid[]))
   AND status = ANY (%(statuses)s::text[])
   AND (%(queue)s::text IS NULL OR queue = %(queue)s::text)
   AND (%(task)s::text IS NULL OR task = %(task)s::text)
   AND (%(age)s::float8 IS NULL OR created_at < now() - %(age)s::float8 * interval '1 second')
   AND true /* alike */
   AND true /* where */
 ORDER BY id


-- name: unrunnable
-- Jobs that workers have sent back, because no task fits them: they come up again within a minute. The first ten thousand that
-- are due are looked at.
SELECT task, reason, count(*) AS jobs
  FROM (SELECT task, reason
          FROM pgjobs.jobs
         WHERE due_at IS NOT NULL AND due_at < now() + interval '1 minute'
         ORDER BY due_at
         LIMIT 10000) AS due
 WHERE (reason = 'unknown task' OR reason LIKE 'arguments do not fit%%' OR reason LIKE 'options do not fit%%'
        OR reason LIKE 'task cannot be made ready%%')
 GROUP BY task, reason
 ORDER BY task, reason


-- name: failures
-- The failed attempts of one job, first to last.
SELECT attempt, failed_at, reason, exception, message, traceback, fingerprint
  FROM pgjobs.failures
 WHERE job_id = %(id)s::uuid
 ORDER BY id


-- name: queue_stats
-- How each queue stands, but for those that are one worker's own.
SELECT queue, queued, running, scheduled, succeeded, failed, cancelled, expired, retried,
       extract(epoch FROM now() - oldest_queued_at)::float8 AS oldest_s
  FROM pgjobs.queue_stats
 WHERE queue NOT LIKE '@%%'
 ORDER BY queue


-- name: workers
-- The workers that count as alive, with what they hold.
SELECT worker.id, worker.name, worker.host, worker.pid, worker.queues, worker.slots, worker.started_at,
       extract(epoch FROM clock_timestamp() - worker.seen_at)::float8 AS silent_s,
       worker.stopping_at IS NOT NULL AS stopping,
       (SELECT count(*) FROM pgjobs.running WHERE running.worker_id = worker.id) AS running,
       worker.quiet_at IS NOT NULL AS quiet
  FROM pgjobs.workers AS worker
 WHERE worker.dead_at IS NULL
 ORDER BY worker.name


-- name: throughput
-- What was handled in the last minutes.
SELECT status, sum(jobs)::bigint AS jobs
  FROM pgjobs.rollups
 WHERE minute >= now() - %(minutes)s::int * interval '1 minute'
 GROUP BY status


-- name: schema_revision
-- The revision of the schema, and the oldest one whose release still works on it: a migration that the running release can
-- live with says so in the version table's comment.
SELECT version_num,
       coalesce(substring(obj_description('pgjobs.alembic_version'::regclass, 'pg_class')
                          FROM 'works with releases of revision (\d+) and later'),
                version_num) AS oldest
  FROM pgjobs.alembic_version


-- name: ended
-- Of some jobs those that have ended, as they stand, and those that are not there, without a status.
SELECT asked.id, task, queue, status, priority, attempt, max_attempts, crashes, pgjobs.shown(run_at) AS run_at,
       pgjobs.shown(due_at) AS due_at, pgjobs.shown(expires_at) AS expires_at, pgjobs.shown(cancel_at) AS cancel_at,
       pgjobs.shown(created_at) AS created_at, pgjobs.shown(started_at) AS started_at,
       pgjobs.shown(finished_at) AS finished_at, timeout, reason, args, progress, result, meta, options, usage
  FROM unnest(%(ids)s::uuid[]) AS asked (id)
  LEFT JOIN pgjobs.jobs AS job USING (id)
 WHERE job.id IS NULL OR job.status IN ('succeeded', 'failed', 'cancelled', 'expired')
