-- name: claim
-- Takes up to limit jobs for a worker and returns them; none if the worker has been declared dead.
-- Lanes are (queue, priority) pairs in order of preference, each from its low bound up to high: dead index entries below
-- the bound are never read again. The rows are locked as the lanes are walked, so never more than limit of them.
-- The jobs are written where they were locked, by ctid: no second search, no join for the planner to get wrong. A row that
-- changed between the snapshot and its lock is not found there: it stays queued, for the next claim.
-- The options of a job that must be over by some time say how old it is, by this clock: the only one that counts.
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
       unique_key = CASE WHEN options->>'unique_until' = 'started' THEN NULL ELSE unique_key END,
       attempt = least(attempt, 32766) + 1, started_at = now()
 WHERE ctid = ANY (ARRAY (SELECT place FROM picked))
RETURNING id, task, queue, priority, attempt, max_attempts, crashes,
          extract(epoch FROM timeout)::float8 AS timeout_s, pgjobs.shown(created_at) AS created_at, args, meta,
          CASE WHEN options ?| '{deadline,late,retry_for}' AND jsonb_typeof(options) = 'object'
               THEN options || jsonb_build_object(
                        'age', greatest(0, extract(epoch FROM now() - pgjobs.shown(created_at))),
                        'tried', greatest(0, extract(epoch FROM now() - pgjobs.shown(coalesce(run_at, created_at)))))
               ELSE options END AS options


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


-- name: ages
-- For how many seconds the first job of each lane has waited: since its enqueue, or since it was to start.
SELECT lane.queue, lane.priority,
       extract(epoch FROM now() - pgjobs.shown(greatest(oldest.created_at, oldest.run_at)))::float8 AS seconds
  FROM unnest(%(queues)s::text[], %(priorities)s::smallint[], %(lows)s::bigint[]) AS lane (queue, priority, low)
 CROSS JOIN LATERAL (
     SELECT created_at, run_at
       FROM pgjobs.jobs
      WHERE position IS NOT NULL
        AND queue = lane.queue AND priority = lane.priority
        AND position >= lane.low
      ORDER BY position
      LIMIT 1
 ) AS oldest


-- name: new_lanes
-- Lanes with queued jobs beside those that are known: between two known queues, and between two known priorities of one.
-- The known lanes themselves are leapt over, with all the dead entries that they may have.
-- after and before bound a gap between queues (before is NULL at the end), aboves and belows one between priorities; the
-- recursions begin with the gap's end, which is no lane.
WITH RECURSIVE stranger AS (
    SELECT gap.after AS queue, gap.before, false AS found
      FROM unnest(%(afters)s::text[], %(befores)s::text[]) AS gap (after, before)
    UNION ALL
    SELECT next.queue, stranger.before, true
      FROM stranger
     CROSS JOIN LATERAL (
         (SELECT queue FROM pgjobs.jobs
           WHERE position IS NOT NULL AND queue > stranger.queue AND queue < stranger.before
           ORDER BY queue
           LIMIT 1)
         UNION ALL
         (SELECT queue FROM pgjobs.jobs
           WHERE position IS NOT NULL AND queue > stranger.queue AND stranger.before IS NULL
           ORDER BY queue
           LIMIT 1)
     ) AS next
), lane AS (
    SELECT gap.queue, gap.above, gap.below AS priority, false AS found
      FROM (SELECT * FROM unnest(%(queues)s::text[], %(aboves)s::integer[], %(belows)s::integer[])
            UNION ALL
            SELECT queue, -1000, 1000 FROM stranger WHERE found) AS gap (queue, above, below)
    UNION ALL
    SELECT lane.queue, lane.above, next.priority, true
      FROM lane
     CROSS JOIN LATERAL (
         SELECT max(priority)::integer AS priority
           FROM pgjobs.jobs
          WHERE position IS NOT NULL AND queue = lane.queue
            AND priority > lane.above AND priority < lane.priority
     ) AS next
     WHERE next.priority IS NOT NULL
)
SELECT queue, priority FROM lane WHERE found


-- name: strays
-- What may be claimed in some ranges of positions that claims pass over, a thousand in each at most.
SELECT lane.queue, lane.priority, min(stray.position) AS first, max(stray.position) AS last
  FROM unnest(%(queues)s::text[], %(priorities)s::smallint[], %(lows)s::bigint[], %(highs)s::bigint[])
           AS lane (queue, priority, low, high)
 CROSS JOIN LATERAL (
     SELECT position
       FROM pgjobs.jobs
      WHERE position IS NOT NULL
        AND queue = lane.queue AND priority = lane.priority
        AND position >= lane.low AND position < lane.high
        AND (expires_at IS NULL OR expires_at > now())
      ORDER BY position
      LIMIT 1000
 ) AS stray
 GROUP BY lane.queue, lane.priority


-- name: noted_lanes
-- The lanes that other workers have noted, with the bound from which to claim. Where the sequence has begun anew, the
-- bounds above it mean nothing.
SELECT queue, priority, low
  FROM pgjobs.lanes
 WHERE low <= (SELECT last_value FROM pgjobs.positions)


-- name: note_lanes
-- Notes the bounds of some lanes for workers to come.
-- Locks: the rows of these lanes, in the order given: by queue and priority.
INSERT INTO pgjobs.lanes AS lane (queue, priority, low)
SELECT * FROM unnest(%(queues)s::text[], %(priorities)s::smallint[], %(lows)s::bigint[])
    ON CONFLICT (queue, priority) DO UPDATE
   SET noted_at = now(),
       low = CASE WHEN lane.low > (SELECT last_value FROM pgjobs.positions) THEN excluded.low
                  ELSE greatest(lane.low, excluded.low) END


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
