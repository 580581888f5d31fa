-- name: changed
-- Jobs that have been enqueued, started or ended after a moment, of those that may have: without an index on these times, they
-- are looked for where they must be. Jobs are claimed first in, first out, so what began last was enqueued just before what
-- now waits longest in its lane, or is among what was enqueued last; what retries or was scheduled is known while it is held,
-- or shortly before it is due, and the caller watches it from then on. Each place is read up to a limit.
WITH RECURSIVE lane AS (SELECT queue, priority FROM pgjobs.lanes /* leaps */), head AS MATERIALIZED (
    SELECT first.id
      FROM lane
     CROSS JOIN LATERAL (
         SELECT id
           FROM pgjobs.jobs
          WHERE position IS NOT NULL AND queue = lane.queue AND priority = lane.priority
          ORDER BY position
          LIMIT 1) AS first
     WHERE %(job)s::uuid IS NULL
), candidate AS MATERIALIZED (
    SELECT before.id
      FROM (SELECT id FROM head
            UNION ALL
            SELECT 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid WHERE %(job)s::uuid IS NULL) AS start
     CROSS JOIN LATERAL (
         SELECT id FROM pgjobs.jobs WHERE id < start.id ORDER BY id DESC LIMIT %(limit)s::int) AS before
    UNION
    SELECT held.id
      FROM pgjobs.claims AS claim
     CROSS JOIN LATERAL unnest(claim.job_ids) AS held (id)
     WHERE %(job)s::uuid IS NULL
    UNION
    (SELECT id
       FROM pgjobs.jobs
      WHERE due_at IS NOT NULL AND due_at <= now() + interval '3 seconds' AND %(job)s::uuid IS NULL
      ORDER BY due_at
      LIMIT %(limit)s::int)
    UNION
    SELECT unnest(%(watched)s::uuid[])
    UNION
    SELECT %(job)s::uuid
)
SELECT job.id, job.task, job.queue, job.status, job.attempt, job.max_attempts, pgjobs.shown(job.created_at) AS created_at,
       pgjobs.shown(job.started_at) AS started_at, pgjobs.shown(job.finished_at) AS finished_at,
       pgjobs.shown(job.due_at) AS due_at, job.reason, clock_timestamp() AS now
  FROM candidate
 CROSS JOIN LATERAL (
     SELECT * FROM pgjobs.jobs WHERE id = candidate.id LIMIT 1) AS job
 WHERE (%(queue)s::text IS NULL OR job.queue = %(queue)s::text)
   AND (%(task)s::text IS NULL OR job.task = %(task)s::text)
   AND (greatest(job.created_at, job.started_at, job.finished_at) > %(since)s::timestamptz
        OR job.status = 'running'
        OR job.due_at <= now() + interval '3 seconds')


-- name: failed_after
-- The last attempts that have failed after the one with that id, with their jobs; of one job where it is given.
SELECT failure.id, pgjobs.shown(failure.failed_at) AS failed_at, failure.job_id, failure.attempt, failure.reason, failure.exception, failure.message,
       job.task, job.queue, job.status = 'failed' AND failure.attempt >= job.attempt AS last,
       pgjobs.shown(job.due_at) AS due_at
  FROM (SELECT *
          FROM pgjobs.failures
         WHERE id > %(after)s::bigint AND (%(job)s::uuid IS NULL OR job_id = %(job)s::uuid)
         ORDER BY id DESC
         LIMIT %(limit)s::int) AS failure
 CROSS JOIN LATERAL (
     SELECT * FROM pgjobs.jobs WHERE id = failure.job_id LIMIT 1) AS job
 WHERE (%(queue)s::text IS NULL OR job.queue = %(queue)s::text)
   AND (%(task)s::text IS NULL OR job.task = %(task)s::text)
 ORDER BY failure.id


-- name: logged_after
-- The last lines that were logged after the one with that id, with their jobs; of one job where it is given.
SELECT line.id, pgjobs.shown(line.at) AS at, line.job_id, line.attempt, line.level, line.line, job.task, job.queue
  FROM (SELECT *
          FROM pgjobs.logs
         WHERE id > %(after)s::bigint AND (%(job)s::uuid IS NULL OR job_id = %(job)s::uuid)
         ORDER BY id DESC
         LIMIT %(limit)s::int) AS line
 CROSS JOIN LATERAL (
     SELECT * FROM pgjobs.jobs WHERE id = line.job_id LIMIT 1) AS job
 WHERE (%(queue)s::text IS NULL OR job.queue = %(queue)s::text)
   AND (%(task)s::text IS NULL OR job.task = %(task)s::text)
 ORDER BY line.id
