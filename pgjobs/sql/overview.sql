-- name: without_jit
-- Lets nothing be compiled in this transaction: for queries of many parts that read little that takes a hundred times as long as
-- they do.
SELECT set_config('jit', 'off', true)


-- name: blocked
-- How many jobs of each queue are blocked, by the rows that say why they are: up to a thousand are looked up by primary key;
-- beyond that the numbers are estimates, all holds shared out as the first thousand are.
WITH few AS MATERIALIZED (
    SELECT job_id FROM pgjobs.holds LIMIT 1001
), found AS (
    SELECT job.queue, count(*) AS jobs
      FROM few
     CROSS JOIN LATERAL (
         SELECT queue FROM pgjobs.jobs WHERE id = few.job_id AND status = 'blocked' LIMIT 1) AS job
     GROUP BY job.queue
)
SELECT queue,
       CASE WHEN (SELECT count(*) FROM few) <= 1000 THEN jobs
            ELSE greatest(jobs, (jobs / 1001.0 * (
                SELECT reltuples FROM pg_class WHERE oid = 'pgjobs.holds'::regclass))::bigint) END AS jobs
  FROM found


-- name: waits
-- How long the jobs of each queue wait, in seconds: the one next in line, and those that began lately.
SELECT queue, CASE WHEN oldest_seconds IS NOT NULL THEN greatest(oldest_seconds, 0) END AS oldest_s, p50_seconds, p95_seconds
  FROM pgjobs.waits


-- name: pace
-- What each queue has handled, by status: in the last hour; and in the last minutes, four whole ones and the one that runs,
-- with the seconds since the first of them in which there was any.
SELECT queue, status, sum(jobs)::bigint AS hour,
       coalesce(sum(jobs) FILTER (WHERE minute >= date_trunc('minute', now()) - interval '4 minutes'), 0)::bigint AS lately,
       extract(epoch FROM clock_timestamp()
               - min(minute) FILTER (WHERE minute >= date_trunc('minute', now()) - interval '4 minutes'))::float8 AS since_s
  FROM pgjobs.rollups
 WHERE minute >= now() - interval '60 minutes'
 GROUP BY queue, status


-- name: arrivals
-- How many jobs of each queue have come in that may run by now, and in how many seconds: in the last minute, or since the
-- earliest of the last ten thousand. Found by ids, which are ordered by time.
WITH newest AS MATERIALIZED (
    SELECT queue, created_at, run_at
      FROM pgjobs.jobs
     WHERE id >= pgjobs.id_at(now() - interval '1 minute')
     ORDER BY id DESC
     LIMIT 10000
), seen AS (
    SELECT CASE WHEN count(*) < 10000 THEN 60
                ELSE extract(epoch FROM clock_timestamp() - greatest(pgjobs.shown(min(created_at)), now() - interval '1 minute')) END::float8
               AS span_s
      FROM newest
)
SELECT queue, count(*) FILTER (WHERE coalesce(run_at, created_at) <= now()) AS jobs, seen.span_s
  FROM newest
 CROSS JOIN seen
 WHERE created_at > now() - interval '1 minute'
 GROUP BY queue, seen.span_s


-- name: task_stats
-- What each task has ended in the last hour, and how long its runs took, in seconds; those that a worker knows are there though
-- nothing of them ran.
SELECT name, coalesce(succeeded, 0) AS succeeded, coalesce(failed, 0) AS failed, coalesce(retried, 0) AS retried,
       mean_seconds, p50_seconds, p95_seconds, known.queue
  FROM (SELECT task AS name, succeeded, failed, retried, mean_seconds, p50_seconds, p95_seconds
          FROM pgjobs.task_stats) AS stats
  FULL JOIN pgjobs.tasks AS known USING (name)
 ORDER BY name


-- name: held
-- Jobs that workers hold, those that were claimed last first.
SELECT id
  FROM pgjobs.running
 ORDER BY claimed_at DESC, id DESC
 LIMIT %(limit)s::int


-- name: names
-- Queues and tasks that are known by name, for whoever types one: those that tasks are published with, that wait, that are
-- paused, or that were handled in the last hour; of what is scheduled, those of the thousand jobs that are due first.
WITH RECURSIVE waiting AS (
    (SELECT queue FROM pgjobs.jobs WHERE position IS NOT NULL ORDER BY queue, priority DESC, position LIMIT 1)
    UNION ALL
    SELECT next.queue
      FROM waiting
     CROSS JOIN LATERAL (
         SELECT queue
           FROM pgjobs.jobs
          WHERE position IS NOT NULL AND queue > waiting.queue
          ORDER BY queue, priority DESC, position
          LIMIT 1
     ) AS next
), scheduled AS MATERIALIZED (
    SELECT queue, task FROM pgjobs.jobs WHERE due_at IS NOT NULL ORDER BY due_at LIMIT 1000
), handled AS MATERIALIZED (
    SELECT DISTINCT queue, task FROM pgjobs.rollups WHERE minute >= now() - interval '1 hour'
)
SELECT kind, name
  FROM (SELECT 'queue', queue FROM pgjobs.tasks
        UNION SELECT 'task', name FROM pgjobs.tasks
        UNION SELECT 'queue', queue FROM waiting
        UNION SELECT 'queue', queue FROM scheduled
        UNION SELECT 'task', task FROM scheduled
        UNION SELECT 'queue', queue FROM handled
        UNION SELECT 'task', task FROM handled
        UNION SELECT kind, name FROM pgjobs.pauses) AS known (kind, name)
 WHERE name NOT LIKE '@%%'
 ORDER BY kind, name
