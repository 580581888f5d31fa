-- Views for reports. None that is to be polled counts jobs: what was handled comes from the rollups, which outlive the jobs,
-- what runs from the claims, what waits from the small indexes, and what lies in the past is found by ids, which are
-- ordered by time.

-- The least id that a job of some moment can have: with it the primary key finds jobs by the time of their enqueueing.
CREATE FUNCTION pgjobs.id_at(moment timestamptz) RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT (substr(hex, 1, 8) || '-' || substr(hex, 9, 4) || '-7000-8000-000000000000')::uuid
      FROM lpad(to_hex((extract(epoch FROM moment) * 1000)::bigint), 12, '0') AS hex
$$;
COMMENT ON FUNCTION pgjobs.id_at(timestamptz) IS
    'The least id that a job enqueued at that moment can have: WHERE id >= pgjobs.id_at(now() - interval ''1 hour'') reads the primary key.';

-- A percentile is the mean of the class of durations that it lies in, and classes double: so it is off by less than a
-- factor of two, and exact where runs take equally long.
CREATE VIEW pgjobs.task_stats AS
    WITH lately AS MATERIALIZED (
        SELECT task, status, bucket, sum(jobs) AS jobs, sum(seconds) AS seconds
          FROM pgjobs.rollups
         WHERE minute >= now() - interval '1 hour'
         GROUP BY task, status, bucket
    ), handled AS (
        SELECT task,
               coalesce(sum(jobs) FILTER (WHERE status = 'succeeded'), 0)::bigint AS succeeded,
               coalesce(sum(jobs) FILTER (WHERE status = 'failed'), 0)::bigint AS failed,
               coalesce(sum(jobs) FILTER (WHERE status = 'cancelled'), 0)::bigint AS cancelled,
               coalesce(sum(jobs) FILTER (WHERE status = 'expired'), 0)::bigint AS expired,
               coalesce(sum(jobs) FILTER (WHERE status = 'retried'), 0)::bigint AS retried,
               coalesce(sum(jobs) FILTER (WHERE status = 'snoozed'), 0)::bigint AS snoozed,
               sum(seconds) FILTER (WHERE status = 'succeeded')
                   / sum(jobs) FILTER (WHERE status = 'succeeded') AS mean_seconds
          FROM lately
         GROUP BY task
    ), class AS (
        SELECT task, seconds / jobs::float8 AS typical,
               sum(jobs) OVER (PARTITION BY task ORDER BY bucket) / sum(jobs) OVER (PARTITION BY task) AS share
          FROM lately
         WHERE status = 'succeeded'
    ), lasted AS (
        SELECT task,
               min(typical) FILTER (WHERE share >= 0.5) AS p50_seconds,
               min(typical) FILTER (WHERE share >= 0.95) AS p95_seconds,
               min(typical) FILTER (WHERE share >= 0.99) AS p99_seconds
          FROM class
         GROUP BY task
    )
    SELECT handled.*, lasted.p50_seconds, lasted.p95_seconds, lasted.p99_seconds
      FROM handled
      LEFT JOIN lasted USING (task);
COMMENT ON VIEW pgjobs.task_stats IS
    'Each task in the last hour: how many jobs ended, by status, how many attempts were retried or snoozed, and how long the successful runs took, in seconds. Percentiles are off by less than a factor of two. From the rollups: what was pruned counts too.';

-- Which of the jobs that a worker holds have begun, and which lie in its buffer, it alone knows.
CREATE VIEW pgjobs.worker_stats AS
    WITH held AS (
        SELECT worker_id, count(*) AS jobs, min(started_at) AS oldest FROM pgjobs.running GROUP BY worker_id
    )
    SELECT worker.id, worker.name, worker.host, worker.pid, worker.queues, worker.slots,
           least(coalesce(held.jobs, 0), worker.slots)::integer AS busy,
           coalesce(held.jobs, 0) AS held,
           held.oldest AS oldest_started_at,
           worker.started_at, worker.seen_at, worker.stopping_at
      FROM pgjobs.workers AS worker
      LEFT JOIN held ON held.worker_id = worker.id
     WHERE worker.dead_at IS NULL;
COMMENT ON VIEW pgjobs.worker_stats IS
    'Each worker that counts as alive: its slots, how many of them are busy, the jobs that it holds (those in its buffer too), since when the oldest of them runs, and when it was last seen.';

-- The minute of a rollup is what this groups by, so a condition on it reaches the index; longer units are walked one by one
-- for the same reason. Days are those of the session's time zone.
CREATE VIEW pgjobs.throughput_minute AS
    SELECT minute, queue, task,
           coalesce(sum(jobs) FILTER (WHERE status = 'succeeded'), 0)::bigint AS succeeded,
           coalesce(sum(jobs) FILTER (WHERE status = 'failed'), 0)::bigint AS failed,
           coalesce(sum(jobs) FILTER (WHERE status = 'cancelled'), 0)::bigint AS cancelled,
           coalesce(sum(jobs) FILTER (WHERE status = 'expired'), 0)::bigint AS expired,
           coalesce(sum(jobs) FILTER (WHERE status = 'retried'), 0)::bigint AS retried,
           coalesce(sum(jobs) FILTER (WHERE status = 'snoozed'), 0)::bigint AS snoozed,
           coalesce(sum(seconds) FILTER (WHERE status = 'succeeded'), 0) AS seconds
      FROM pgjobs.rollups
     GROUP BY minute, queue, task;
COMMENT ON VIEW pgjobs.throughput_minute IS
    'What was handled, by minute, queue and task: jobs that ended, by status, attempts that were retried or snoozed, and how many seconds the successful runs took in all. From the rollups, so pruned jobs count too. Cheap with a condition on minute.';

CREATE VIEW pgjobs.throughput_hour AS
    WITH bound AS (
        SELECT date_trunc('hour', min(minute)) AS first FROM pgjobs.rollups
    )
    SELECT series.hour, handled.*
      FROM bound
     CROSS JOIN LATERAL generate_series(bound.first, now(), interval '1 hour') AS series (hour)
     CROSS JOIN LATERAL (
         SELECT queue, task,
                coalesce(sum(jobs) FILTER (WHERE status = 'succeeded'), 0)::bigint AS succeeded,
                coalesce(sum(jobs) FILTER (WHERE status = 'failed'), 0)::bigint AS failed,
                coalesce(sum(jobs) FILTER (WHERE status = 'cancelled'), 0)::bigint AS cancelled,
                coalesce(sum(jobs) FILTER (WHERE status = 'expired'), 0)::bigint AS expired,
                coalesce(sum(jobs) FILTER (WHERE status = 'retried'), 0)::bigint AS retried,
                coalesce(sum(jobs) FILTER (WHERE status = 'snoozed'), 0)::bigint AS snoozed,
                coalesce(sum(seconds) FILTER (WHERE status = 'succeeded'), 0) AS seconds
           FROM pgjobs.rollups
          WHERE minute >= series.hour AND minute < series.hour + interval '1 hour'
          GROUP BY queue, task
     ) AS handled;
COMMENT ON VIEW pgjobs.throughput_hour IS
    'As throughput_minute, by the hour. Cheap with a condition on hour.';

CREATE VIEW pgjobs.throughput_day AS
    WITH bound AS (
        SELECT date_trunc('day', min(minute)) AS first FROM pgjobs.rollups
    )
    SELECT series.day, handled.*
      FROM bound
     CROSS JOIN LATERAL generate_series(bound.first, now(), interval '1 day') AS series (day)
     CROSS JOIN LATERAL (
         SELECT queue, task,
                coalesce(sum(jobs) FILTER (WHERE status = 'succeeded'), 0)::bigint AS succeeded,
                coalesce(sum(jobs) FILTER (WHERE status = 'failed'), 0)::bigint AS failed,
                coalesce(sum(jobs) FILTER (WHERE status = 'cancelled'), 0)::bigint AS cancelled,
                coalesce(sum(jobs) FILTER (WHERE status = 'expired'), 0)::bigint AS expired,
                coalesce(sum(jobs) FILTER (WHERE status = 'retried'), 0)::bigint AS retried,
                coalesce(sum(jobs) FILTER (WHERE status = 'snoozed'), 0)::bigint AS snoozed,
                coalesce(sum(seconds) FILTER (WHERE status = 'succeeded'), 0) AS seconds
           FROM pgjobs.rollups
          WHERE minute >= series.day AND minute < series.day + interval '1 day'
          GROUP BY queue, task
     ) AS handled;
COMMENT ON VIEW pgjobs.throughput_day IS
    'As throughput_minute, by the day in the time zone of the session. Cheap with a condition on day.';

-- Jobs are claimed first in, first out: so what was started last was enqueued just before what now waits longest, or, where
-- nothing waits, is among what was enqueued last. Both lie together in the primary key.
CREATE VIEW pgjobs.waits AS
    WITH RECURSIVE lane AS (
        (SELECT queue, priority FROM pgjobs.jobs
          WHERE position IS NOT NULL ORDER BY queue, priority DESC LIMIT 1)
        UNION ALL
        SELECT next.queue, next.priority
          FROM lane
         CROSS JOIN LATERAL (
             (SELECT queue, priority FROM pgjobs.jobs
               WHERE position IS NOT NULL AND queue = lane.queue AND priority < lane.priority
               ORDER BY queue, priority DESC LIMIT 1)
             UNION ALL
             (SELECT queue, priority FROM pgjobs.jobs
               WHERE position IS NOT NULL AND queue > lane.queue
               ORDER BY queue, priority DESC LIMIT 1)
             LIMIT 1
         ) AS next
    ), head AS MATERIALIZED (
        SELECT lane.queue, first.id, first.since
          FROM lane
         CROSS JOIN LATERAL (
             SELECT id, greatest(created_at, run_at) AS since FROM pgjobs.jobs
              WHERE position IS NOT NULL AND queue = lane.queue AND priority = lane.priority
              ORDER BY position LIMIT 1) AS first
    ), started AS (
        SELECT before.id, before.queue, before.wait
          FROM (SELECT id FROM head UNION ALL SELECT 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid) AS start
         CROSS JOIN LATERAL (
             SELECT id, queue, attempt, started_at,
                    extract(epoch FROM started_at - greatest(created_at, run_at))::float8 AS wait
               FROM pgjobs.jobs
              WHERE id < start.id
              ORDER BY id DESC LIMIT 200) AS before
         WHERE before.started_at > now() - interval '5 minutes' AND before.attempt = 1
        UNION
        SELECT job.id, job.queue, extract(epoch FROM job.started_at - greatest(job.created_at, job.run_at))::float8
          FROM pgjobs.claims AS claim
         CROSS JOIN LATERAL unnest(claim.job_ids) AS held (id)
         CROSS JOIN LATERAL (
             SELECT * FROM pgjobs.jobs WHERE id = held.id AND claim_id = claim.id LIMIT 1) AS job
         WHERE job.started_at > now() - interval '5 minutes' AND job.attempt = 1
    ), lately AS (
        SELECT queue, count(*) AS started,
               percentile_cont(0.5) WITHIN GROUP (ORDER BY greatest(wait, 0)) AS p50_seconds,
               percentile_cont(0.95) WITHIN GROUP (ORDER BY greatest(wait, 0)) AS p95_seconds,
               max(greatest(wait, 0)) AS max_seconds
          FROM started
         GROUP BY queue
    ), waiting AS (
        SELECT queue, min(since) AS oldest FROM head GROUP BY queue
    )
    SELECT queue, waiting.oldest AS oldest_since,
           extract(epoch FROM now() - waiting.oldest)::float8 AS oldest_seconds,
           coalesce(lately.started, 0) AS started,
           lately.p50_seconds, lately.p95_seconds, lately.max_seconds
      FROM waiting
      FULL JOIN lately USING (queue);
COMMENT ON VIEW pgjobs.waits IS
    'How long jobs wait, by queue, in seconds from their enqueueing or the time that they were to run: the one next in line, and those that began lately: a sample of the first attempts of the last five minutes, whose number is started.';

CREATE VIEW pgjobs.history AS
    SELECT id, task, queue, status, reason, priority, attempt, max_attempts, created_at, run_at, started_at, finished_at,
           extract(epoch FROM started_at - least(started_at, greatest(created_at, run_at)))::float8 AS wait_seconds,
           CASE WHEN status = 'succeeded' OR status = 'failed' AND reason NOT IN ('ttl passed', 'deadline passed')
                THEN extract(epoch FROM greatest(finished_at, started_at) - started_at)::float8 END AS run_seconds,
           args, result, meta
      FROM pgjobs.jobs
     WHERE status IN ('succeeded', 'failed', 'cancelled', 'expired');
COMMENT ON VIEW pgjobs.history IS
    'Jobs that have ended and are not pruned yet: how many seconds each waited until its last attempt began, and how long that ran where it succeeded or failed. Ids are ordered by time: ORDER BY id DESC LIMIT, and WHERE id >= pgjobs.id_at(now() - interval ''1 hour''), read the primary key.';

COMMENT ON VIEW pgjobs.running IS
    'The jobs that workers hold, with the worker of each.';
COMMENT ON VIEW pgjobs.queue_stats IS
    'Each queue: what waits, runs and is scheduled, and what was handled. Beyond 10,000 jobs of a queue the numbers of those that wait are estimates.';
COMMENT ON VIEW pgjobs.failed_by_fingerprint IS
    'Failed attempts by where they failed and with what. It reads all failures that are kept.';

COMMENT ON TABLE pgjobs.alembic_version IS 'works with releases of revision 0003 and later';
