-- Where the live positions of a lane began when a worker last looked: what the next one to start need not read again,
-- a hint that nothing relies on. Busy lanes alone have a row, written once a second at most.
CREATE TABLE pgjobs.lanes (
    queue text NOT NULL,
    priority smallint NOT NULL,
    low bigint NOT NULL,
    noted_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT lanes_pkey PRIMARY KEY (queue, priority)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

-- A claim's lists are written once, read seldom and soon gone: compressing them took seven percent of the server's time.
ALTER TABLE pgjobs.claims ALTER COLUMN job_ids SET STORAGE EXTERNAL, ALTER COLUMN positions SET STORAGE EXTERNAL;

-- Under an old snapshot every vacuum is in vain, and took a third of the completions while it ran; ten times its default pace
-- is enough.
ALTER TABLE pgjobs.jobs SET (autovacuum_vacuum_cost_delay = 2, autovacuum_vacuum_cost_limit = 500);

-- What runs where, each job by its key: the planner, knowing nothing of claims, joined them with a scan of all jobs.
CREATE OR REPLACE VIEW pgjobs.running AS
    SELECT job.id, job.task, job.queue, job.priority, job.attempt, job.args, job.progress,
           claim.claimed_at, job.started_at, worker.name AS worker, worker.host, worker.pid,
           claim.worker_id, job.claim_id, job.timeout
      FROM pgjobs.claims AS claim
     CROSS JOIN LATERAL unnest(claim.job_ids) AS held (id)
     CROSS JOIN LATERAL (
         SELECT * FROM pgjobs.jobs
          WHERE id = held.id AND claim_id = claim.id AND status = 'running'
          LIMIT 1) AS job
      LEFT JOIN pgjobs.workers AS worker ON worker.id = claim.worker_id;

-- What each queue holds, and what it has handled. Up to 10,000 queued jobs of a queue, and scheduled jobs of all, are counted;
-- beyond that the numbers are estimates: what the indexes held at the last vacuum or analyze, shared out by the span of the
-- positions, or as the next 10,000 due jobs are.
CREATE OR REPLACE VIEW pgjobs.queue_stats AS
    WITH RECURSIVE indexes AS (
        SELECT index.relname AS name, index.reltuples AS entries
          FROM pg_index
          JOIN pg_class AS index ON index.oid = indexrelid
         WHERE indrelid = 'pgjobs.jobs'::regclass
    ), lane AS (
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
    ), waiting AS (
        SELECT lane.queue, min(head.created_at) AS oldest, max(tail.position) - min(head.position) + 1 AS span
          FROM lane
         CROSS JOIN LATERAL (
             SELECT created_at, position FROM pgjobs.jobs
              WHERE position IS NOT NULL AND queue = lane.queue AND priority = lane.priority
              ORDER BY position LIMIT 1) AS head
         CROSS JOIN LATERAL (
             SELECT position FROM pgjobs.jobs
              WHERE position IS NOT NULL AND queue = lane.queue AND priority = lane.priority
              ORDER BY position DESC LIMIT 1) AS tail
         GROUP BY lane.queue
    ), counted AS (
        SELECT waiting.*, counting.jobs
          FROM waiting
         CROSS JOIN LATERAL (
             SELECT count(*) AS jobs
               FROM (SELECT FROM pgjobs.jobs
                      WHERE position IS NOT NULL AND queue = waiting.queue
                      ORDER BY priority DESC, position LIMIT 10001) AS few) AS counting
    ), total AS (
        SELECT (SELECT entries FROM indexes WHERE name = 'jobs_queued')
                   - coalesce(sum(jobs) FILTER (WHERE jobs <= 10000), 0) AS jobs,
               sum(span) FILTER (WHERE jobs > 10000) AS span
          FROM counted
    ), queued AS (
        SELECT counted.queue, counted.oldest,
               CASE WHEN counted.jobs <= 10000 THEN counted.jobs
                    ELSE greatest(counted.jobs, (total.jobs * counted.span::float8 / total.span::float8)::bigint) END AS jobs
          FROM counted CROSS JOIN total
    ), soon AS MATERIALIZED (
        SELECT queue, due_at FROM pgjobs.jobs WHERE due_at IS NOT NULL ORDER BY due_at LIMIT 10001
    ), scheduled AS (
        SELECT queue, min(due_at) AS next_due,
               CASE WHEN (SELECT count(*) FROM soon) <= 10000 THEN count(*)
                    ELSE greatest(count(*), (count(*) / 10001.0 * (
                        SELECT entries FROM indexes WHERE name = 'jobs_due'))::bigint) END AS jobs
          FROM soon GROUP BY queue
    ), running AS (
        SELECT queue, count(*) AS jobs FROM pgjobs.running GROUP BY queue
    ), handled AS (
        SELECT queue,
               sum(jobs) FILTER (WHERE status = 'succeeded') AS succeeded,
               sum(jobs) FILTER (WHERE status = 'failed') AS failed,
               sum(jobs) FILTER (WHERE status = 'cancelled') AS cancelled,
               sum(jobs) FILTER (WHERE status = 'expired') AS expired,
               sum(jobs) FILTER (WHERE status = 'retried') AS retried,
               sum(seconds) FILTER (WHERE status = 'succeeded') AS seconds
          FROM pgjobs.rollups GROUP BY queue
    ), names AS (
        SELECT queue FROM queued UNION SELECT queue FROM scheduled
        UNION SELECT queue FROM running UNION SELECT queue FROM handled
    )
    SELECT queue,
           coalesce(queued.jobs, 0) AS queued,
           coalesce(running.jobs, 0) AS running,
           coalesce(scheduled.jobs, 0) AS scheduled,
           coalesce(handled.succeeded, 0)::bigint AS succeeded,
           coalesce(handled.failed, 0)::bigint AS failed,
           coalesce(handled.cancelled, 0)::bigint AS cancelled,
           coalesce(handled.expired, 0)::bigint AS expired,
           coalesce(handled.retried, 0)::bigint AS retried,
           queued.oldest AS oldest_queued_at,
           scheduled.next_due AS next_due_at,
           handled.seconds / nullif(handled.succeeded, 0) AS mean_seconds
      FROM names
      LEFT JOIN queued USING (queue)
      LEFT JOIN scheduled USING (queue)
      LEFT JOIN running USING (queue)
      LEFT JOIN handled USING (queue);
