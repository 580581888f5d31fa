-- name: ages_of_queues
-- For how many seconds the longest waiting job of each queue has waited for its first attempt: since its enqueue, or since it was to
-- start; queues may be NULL for all but those that are one worker's own. Of each lane the first hundred jobs are looked at, and of
-- those that were put before them (lifo) the hundred that came first. A retry has no time of its own from which it waits, and is
-- passed over. Of the scheduled jobs whose time has come, which workers queue at once, the first ten thousand are looked at.
WITH RECURSIVE lane AS (SELECT queue, priority FROM pgjobs.lanes /* leaps */), wanted AS (
    SELECT queue, priority
      FROM lane
     WHERE queue = ANY (%(queues)s::text[]) OR (%(queues)s::text[] IS NULL AND queue NOT LIKE '@%%')
), waiting AS (
    SELECT wanted.queue, pgjobs.shown(greatest(job.created_at, job.run_at)) AS since
      FROM wanted
     CROSS JOIN LATERAL (
         (SELECT created_at, run_at, attempt
            FROM pgjobs.jobs
           WHERE position IS NOT NULL AND queue = wanted.queue AND priority = wanted.priority AND position >= 0
           ORDER BY position
           LIMIT 100)
         UNION ALL
         (SELECT created_at, run_at, attempt
            FROM pgjobs.jobs
           WHERE position IS NOT NULL AND queue = wanted.queue AND priority = wanted.priority AND position < 0
           ORDER BY position DESC
           LIMIT 100)
     ) AS job
     WHERE job.attempt = 0
    UNION ALL
    SELECT due.queue, pgjobs.shown(due.due_at)
      FROM (SELECT queue, due_at
              FROM pgjobs.jobs
             WHERE due_at IS NOT NULL AND due_at <= now()
             ORDER BY due_at
             LIMIT 10000) AS due
     WHERE due.queue = ANY (%(queues)s::text[]) OR (%(queues)s::text[] IS NULL AND due.queue NOT LIKE '@%%')
)
SELECT queue, extract(epoch FROM now() - min(since))::float8 AS seconds
  FROM waiting
 GROUP BY queue
 ORDER BY seconds DESC


-- name: failed_lately
-- How many jobs have failed in the last seconds, by the minute; of some queues, or of all where queues is NULL.
SELECT coalesce(sum(jobs), 0)::bigint
  FROM pgjobs.rollups
 WHERE minute >= date_trunc('minute', now() - %(within)s::float8 * interval '1 second')
   AND status = 'failed'
   AND (%(queues)s::text[] IS NULL OR queue = ANY (%(queues)s::text[]))


-- name: fallen_silent
-- The workers that were missed lately: marked dead by the reaper after seven missed beats, or silent and not yet marked. Those that
-- have taken leave, or whose parent has seen them die and replaced them, are none of them.
SELECT name
  FROM pgjobs.workers
 WHERE (dead_at > now() - %(within)s::float8 * interval '1 second' AND misses >= 7)
    OR (dead_at IS NULL AND seen_at < clock_timestamp() - %(silent)s::float8 * interval '1 second')
 ORDER BY name
