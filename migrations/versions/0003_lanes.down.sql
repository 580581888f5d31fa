ALTER TABLE pgjobs.jobs SET (autovacuum_vacuum_cost_delay = 1, autovacuum_vacuum_cost_limit = 2000);
ALTER TABLE pgjobs.claims ALTER COLUMN job_ids SET STORAGE EXTENDED, ALTER COLUMN positions SET STORAGE EXTENDED;
DROP TABLE pgjobs.lanes;

CREATE OR REPLACE VIEW pgjobs.running AS
    SELECT job.id, job.task, job.queue, job.priority, job.attempt, job.args, job.progress,
           claim.claimed_at, job.started_at, worker.name AS worker, worker.host, worker.pid,
           claim.worker_id, job.claim_id, job.timeout
      FROM pgjobs.claims AS claim
     CROSS JOIN LATERAL unnest(claim.job_ids) AS held (id)
      JOIN pgjobs.jobs AS job ON job.id = held.id AND job.claim_id = claim.id AND job.status = 'running'
      LEFT JOIN pgjobs.workers AS worker ON worker.id = claim.worker_id;

CREATE OR REPLACE VIEW pgjobs.queue_stats AS
    WITH queued AS (
        SELECT queue, count(*) AS jobs, min(created_at) AS oldest
          FROM pgjobs.jobs WHERE position IS NOT NULL GROUP BY queue
    ), scheduled AS (
        SELECT queue, count(*) AS jobs, min(due_at) AS next_due
          FROM pgjobs.jobs WHERE due_at IS NOT NULL GROUP BY queue
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
