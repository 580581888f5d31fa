-- name: standing_of
-- What bears on one job beside its own columns: its place, its hold, what it waits for, who runs it, how it last failed, and what
-- its queue has ended in ten minutes. What stands ahead of it is counted up to a thousand and one, by index: of its own
-- priority up to its position, and of all that are higher.
SELECT now() AS at, job.unique_key, job.blockers,
       hold.kind AS hold, hold.held_at,
       ahead.jobs AS ahead,
       EXISTS (SELECT FROM pgjobs.tasks WHERE name = job.task) AS published,
       claim.id IS NOT NULL AS claimed, claim.claimed_at,
       worker.name AS worker, worker.host, worker.pid, worker.dead_at,
       extract(epoch FROM clock_timestamp() - worker.seen_at)::float8 AS silent_s,
       failure.exception, failure.message,
       (SELECT coalesce(sum(jobs), 0)::bigint
          FROM pgjobs.rollups
         WHERE minute >= now() - interval '10 minutes' AND queue = job.queue AND status <> 'retried') AS lately
  FROM pgjobs.jobs AS job
  LEFT JOIN pgjobs.holds AS hold ON hold.job_id = job.id AND job.status = 'blocked'
  LEFT JOIN pgjobs.claims AS claim ON claim.id = job.claim_id AND job.status = 'running'
  LEFT JOIN pgjobs.workers AS worker ON worker.id = claim.worker_id
  LEFT JOIN LATERAL (
      SELECT exception, message
        FROM pgjobs.failures
       WHERE job_id = job.id
       ORDER BY id DESC
       LIMIT 1
  ) AS failure ON true
 CROSS JOIN LATERAL (
      SELECT count(*) AS jobs
        FROM ((SELECT
                 FROM pgjobs.jobs AS other
                WHERE other.position IS NOT NULL
                  AND other.queue = job.queue AND other.priority = job.priority AND other.position < job.position
                ORDER BY other.position
                LIMIT 1001)
              UNION ALL
              (SELECT
                 FROM pgjobs.jobs AS other
                WHERE other.position IS NOT NULL AND other.queue = job.queue AND other.priority > job.priority
                  AND job.position IS NOT NULL
                ORDER BY other.priority DESC, other.position
                LIMIT 1001)
              LIMIT 1001) AS few
  ) AS ahead
 WHERE job.id = %(id)s::uuid


-- name: fleet
-- The workers that are not marked dead, as far as it matters who serves what; silent_s since their last beat.
SELECT id, name, queues, extract(epoch FROM clock_timestamp() - seen_at)::float8 AS silent_s, quiet_at IS NOT NULL AS quiet
  FROM pgjobs.workers
 WHERE dead_at IS NULL
 ORDER BY name


-- name: deeds
-- What people have lately done to a job by name: the last thousand lines of the audit are looked through.
SELECT actor, action, at
  FROM (SELECT * FROM pgjobs.audit ORDER BY id DESC LIMIT 1000) AS line
 WHERE jsonb_typeof(selection->'ids') = 'array' AND selection->'ids' ? %(id)s::text AND jobs > 0
 ORDER BY id DESC
