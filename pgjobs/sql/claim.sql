-- name: claim
-- Takes up to limit jobs for a worker and returns them; none if the worker has been declared dead.
-- Lanes are (queue, priority) pairs in order of preference, each from its low bound up to high: dead index entries below
-- the bound are never read again. The rows are locked as the lanes are walked, so never more than limit of them.
-- The jobs are written where they were locked, by ctid: no second search, no join for the planner to get wrong. A row that
-- changed between the snapshot and its lock is not found there: it stays queued, for the next claim.
-- Locks: jobs, skipping; then the new claims row.
WITH picked AS MATERIALIZED (
    SELECT job.place, job.id, job.position
      FROM unnest(%(queues)s::text[], %(priorities)s::smallint[], %(lows)s::bigint[], %(highs)s::bigint[])
               AS lane (queue, priority, low, high)
     CROSS JOIN LATERAL (
         SELECT ctid AS place, id, position
           FROM pgjobs.jobs
          WHERE position IS NOT NULL
            AND queue = lane.queue AND priority = lane.priority
            AND position >= lane.low AND position < lane.high
            AND (expires_at IS NULL OR expires_at > now())
          ORDER BY position
          LIMIT %(limit)s
            FOR UPDATE SKIP LOCKED
     ) AS job
     WHERE EXISTS (SELECT FROM pgjobs.workers WHERE id = %(worker)s::uuid AND dead_at IS NULL)
     LIMIT %(limit)s
), claim AS (
    INSERT INTO pgjobs.claims (id, worker_id, job_ids, positions)
    SELECT %(claim)s::uuid, %(worker)s::uuid, array_agg(id), array_agg(position)
      FROM picked
    HAVING count(*) > 0
)
UPDATE pgjobs.jobs
   SET status = 'running', position = NULL, reason = NULL, claim_id = %(claim)s::uuid,
       attempt = attempt + 1, started_at = now()
 WHERE ctid = ANY (ARRAY (SELECT place FROM picked))
RETURNING id, task, queue, priority, attempt, max_attempts, crashes,
          extract(epoch FROM timeout)::float8 AS timeout_s, created_at, args, options


-- name: bounds
-- What the low bounds are raised by: for each lane the lowest live position from its bound on, and what the sequence
-- and the transaction horizon say now.
SELECT lane.queue, lane.priority,
       (SELECT min(position)
          FROM pgjobs.jobs
         WHERE position IS NOT NULL
           AND queue = lane.queue AND priority = lane.priority
           AND position >= lane.low) AS lowest,
       (SELECT last_value FROM pgjobs.positions) AS last_value,
       pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS xmin,
       pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS xmax
  FROM unnest(%(queues)s::text[], %(priorities)s::smallint[], %(lows)s::bigint[]) AS lane (queue, priority, low)


-- name: lanes
-- Every (queue, priority) that has queued jobs, by hopping along the index from one pair to the next.
WITH RECURSIVE lane AS (
    (SELECT queue, priority
       FROM pgjobs.jobs
      WHERE position IS NOT NULL
      ORDER BY queue, priority DESC
      LIMIT 1)
    UNION ALL
    SELECT next.queue, next.priority
      FROM lane
     CROSS JOIN LATERAL (
         (SELECT queue, priority
            FROM pgjobs.jobs
           WHERE position IS NOT NULL AND queue = lane.queue AND priority < lane.priority
           ORDER BY queue, priority DESC
           LIMIT 1)
         UNION ALL
         (SELECT queue, priority
            FROM pgjobs.jobs
           WHERE position IS NOT NULL AND queue > lane.queue
           ORDER BY queue, priority DESC
           LIMIT 1)
         LIMIT 1
     ) AS next
)
SELECT queue, priority FROM lane


-- name: lanes_of
-- The priorities under which some queues have queued jobs.
WITH RECURSIVE lane AS (
    SELECT name AS queue,
           (SELECT max(priority) FROM pgjobs.jobs WHERE position IS NOT NULL AND queue = name) AS priority
      FROM unnest(%(queues)s::text[]) AS name
    UNION ALL
    SELECT lane.queue,
           (SELECT max(priority)
              FROM pgjobs.jobs
             WHERE position IS NOT NULL AND queue = lane.queue AND priority < lane.priority)
      FROM lane
     WHERE lane.priority IS NOT NULL
)
SELECT queue, priority FROM lane WHERE priority IS NOT NULL


-- name: idle
-- Says that a worker waits for work, unless the claim just made in this transaction found some.
-- Whoever enqueues after this commit sees the flag; what was committed before it is found by the claim that follows.
-- Locks: the worker's own rows in idlers.
INSERT INTO pgjobs.idlers (queue, worker_id, seen_at)
SELECT name, %(worker)s::uuid, now()
  FROM unnest(%(queues)s::text[]) AS name
 WHERE NOT EXISTS (SELECT FROM pgjobs.claims WHERE id = %(claim)s::uuid)
    ON CONFLICT (queue, worker_id) DO UPDATE SET seen_at = excluded.seen_at
RETURNING queue


-- name: busy
-- Takes the worker's flags away: nobody need tell it of new work.
-- Locks: the worker's own rows in idlers.
DELETE FROM pgjobs.idlers
 WHERE worker_id = %(worker)s::uuid
RETURNING queue
