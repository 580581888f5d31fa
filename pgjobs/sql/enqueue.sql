-- name: enqueue
-- Adds one job that may run at once. Returns whether somebody idle should be told.
-- One autocommit INSERT, no lock that others can wait for; the flags of idle workers are read in the same round trip.
-- Locks: none beyond the new row.
INSERT INTO pgjobs.jobs (id, task, queue, priority, max_attempts, timeout, expires_at, args, options)
VALUES (%(id)s::uuid, %(task)s::text, %(queue)s::text, %(priority)s::smallint, %(max_attempts)s::smallint,
        %(timeout)s::interval, now() + %(ttl)s::interval, %(args)s::jsonb, %(options)s::jsonb)
RETURNING EXISTS (
    SELECT FROM pgjobs.idlers AS idler
     WHERE idler.queue IN (%(queue)s::text, '*') AND idler.seen_at > now() - interval '15 seconds')


-- name: enqueue_many
-- Adds jobs with any option, which differ in id, key and arguments alone, in the order of the arrays; one whose key is taken
-- is left out. Returns the ids that were added, whether somebody idle should be told, and the lowest position.
-- The delay counts from the statement, by the database's clock; what is due already is queued at once. Positions are drawn in
-- the order of the arrays. The last job that is to run first has the lowest one: they go down from zero, below all others.
-- Locks: keys, in their order; beyond them none but the new rows.
WITH due AS (
    SELECT coalesce(%(run_at)s::timestamptz, clock_timestamp() + %(delay)s::interval) AS at
), start AS (
    SELECT at, coalesce(at > clock_timestamp(), false) AS later FROM due
), new AS MATERIALIZED (
    SELECT new.*, CASE WHEN start.later THEN NULL
                       WHEN %(lifo)s::boolean THEN -nextval('pgjobs.positions')
                       ELSE nextval('pgjobs.positions') END AS position
      FROM start
     CROSS JOIN unnest(%(ids)s::uuid[], %(args)s::text[], %(keys)s::text[]) AS new (id, args, key)
), added AS (
    INSERT INTO pgjobs.jobs (id, task, queue, priority, max_attempts, timeout, expires_at, args, options, meta,
                             run_at, status, due_at, position, unique_key)
    SELECT new.id, %(task)s::text, %(queue)s::text, %(priority)s::smallint, %(max_attempts)s::smallint,
           %(timeout)s::interval, now() + %(ttl)s::interval, new.args::jsonb, %(options)s::jsonb, %(meta)s::jsonb,
           start.at,
           CASE WHEN start.later THEN 'scheduled' ELSE 'queued' END,
           CASE WHEN start.later THEN start.at END,
           new.position, new.key
      FROM start CROSS JOIN new
     ORDER BY new.key
        ON CONFLICT (unique_key) WHERE unique_key IS NOT NULL DO NOTHING
    RETURNING id, position
)
SELECT array_agg(id::text) AS ids,
       count(position) > 0 AND EXISTS (
           SELECT FROM pgjobs.idlers AS idler
            WHERE idler.queue IN (%(queue)s::text, '*') AND idler.seen_at > now() - interval '15 seconds') AS idle,
       min(position) AS lowest
  FROM added


-- name: enqueue_here
-- Adds one job as if a worker had just claimed it; nothing comes back, and nothing is added, if that has been declared dead.
-- It has a position all the same, to which a release returns it.
-- Locks: none beyond the new rows.
WITH place AS MATERIALIZED (
    SELECT nextval('pgjobs.positions') AS position
     WHERE EXISTS (SELECT FROM pgjobs.workers WHERE id = %(worker)s::uuid AND dead_at IS NULL)
), claim AS (
    INSERT INTO pgjobs.claims (id, worker_id, job_ids, positions)
    SELECT %(claim)s::uuid, %(worker)s::uuid, ARRAY[%(id)s::uuid], ARRAY[position]
      FROM place
)
INSERT INTO pgjobs.jobs (id, task, queue, priority, max_attempts, timeout, expires_at, args, options, meta,
                         status, position, claim_id, attempt, started_at)
SELECT %(id)s::uuid, %(task)s::text, %(queue)s::text, %(priority)s::smallint, %(max_attempts)s::smallint,
       %(timeout)s::interval, now() + %(ttl)s::interval, %(args)s::jsonb, %(options)s::jsonb, %(meta)s::jsonb,
       'running', NULL, %(claim)s::uuid, 1, now()
  FROM place
RETURNING created_at


-- name: broadcast
-- Adds a job for each worker that lives, in the queue that only this one serves, and tells it, idle or not.
-- Locks: none beyond the new rows.
WITH live AS (
    SELECT '@' || id AS queue
      FROM pgjobs.workers
     WHERE dead_at IS NULL AND stopping_at IS NULL AND quiet_at IS NULL AND seen_at > now() - interval '15 seconds'
     ORDER BY id
), added AS (
    INSERT INTO pgjobs.jobs (task, queue, max_attempts, timeout, expires_at, args, options, meta)
    SELECT %(task)s::text, queue, %(max_attempts)s::smallint, %(timeout)s::interval, now() + %(ttl)s::interval,
           %(args)s::jsonb, %(options)s::jsonb, %(meta)s::jsonb
      FROM live
    RETURNING id, queue
), told AS MATERIALIZED (
    SELECT pg_notify('pgjobs.jobs', 'queued 0 ' || queue) FROM added
)
SELECT id::text
  FROM added
  CROSS JOIN (SELECT count(*) FROM told) AS told


-- name: depth
-- How many jobs are queued in a queue; counted up to limit, in the order of the index, so that it costs no more than that.
SELECT count(*)
  FROM (SELECT
          FROM pgjobs.jobs
         WHERE position IS NOT NULL AND queue = %(queue)s::text
         ORDER BY priority DESC, position
         LIMIT %(limit)s::int) AS waiting


-- name: free_keys
-- Takes the keys away from jobs that have ended and kept theirs for long enough.
-- Locks: jobs, by id, skipping: whoever holds one is asked again.
WITH over AS MATERIALIZED (
    SELECT id
      FROM pgjobs.jobs
     WHERE unique_key = ANY (%(keys)s::text[]) AND unique_key IS NOT NULL
       AND status IN ('succeeded', 'failed', 'cancelled', 'expired')
       AND created_at + interval '1 second' * pgjobs.option_s(options, 'unique_for') <= now()
     ORDER BY id
       FOR UPDATE SKIP LOCKED
)
UPDATE pgjobs.jobs AS job
   SET unique_key = NULL
  FROM over
 WHERE job.id = over.id
RETURNING job.id


-- name: holders
-- Who holds some keys.
SELECT unique_key, id::text
  FROM pgjobs.jobs
 WHERE unique_key = ANY (%(keys)s::text[]) AND unique_key IS NOT NULL


-- name: replace_args
-- Gives the job that holds a key other arguments, if it waits; moves its start where a delay is given and it is not due yet. A start
-- that lies ahead though the job is queued, since the clock was turned back, is now.
-- Locks: the job; it waits for whoever holds it, as an INSERT of the key would.
UPDATE pgjobs.jobs
   SET args = %(args)s::jsonb,
       due_at = CASE WHEN status = 'scheduled' AND %(delay)s::interval IS NOT NULL
                     THEN clock_timestamp() + %(delay)s::interval ELSE due_at END,
       run_at = CASE WHEN status = 'scheduled' AND %(delay)s::interval IS NOT NULL
                     THEN clock_timestamp() + %(delay)s::interval
                     WHEN status = 'queued' AND run_at > now() THEN now() ELSE run_at END
 WHERE unique_key = %(key)s::text AND unique_key IS NOT NULL AND status IN ('scheduled', 'blocked', 'queued')
RETURNING id


-- name: copy
-- Adds any number of plain jobs that may run at once; positions are drawn row by row, in the order of the stream.
COPY pgjobs.jobs (id, task, queue, priority, max_attempts, timeout, args, options) FROM STDIN


-- name: somebody_idle
-- Whether a worker waits for work on the queue.
SELECT EXISTS (
    SELECT FROM pgjobs.idlers AS idler
     WHERE idler.queue IN (%(queue)s::text, '*') AND idler.seen_at > now() - interval '15 seconds')


-- name: notify
-- A hint to whoever listens; never a fact that anything relies on.
SELECT pg_notify('pgjobs.jobs', %(payload)s::text)
