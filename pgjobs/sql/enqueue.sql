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


-- name: enqueue_due
-- Adds one job with an earliest start. One that is due already is queued at once.
-- The delay counts from the statement, by the database's clock; an idle worker looks for due jobs by itself.
-- Locks: none beyond the new row.
WITH due AS (
    SELECT coalesce(%(run_at)s::timestamptz, clock_timestamp() + %(delay)s::interval) AS at
), start AS (
    SELECT at, at > clock_timestamp() AS later FROM due
)
INSERT INTO pgjobs.jobs (id, task, queue, priority, max_attempts, timeout, expires_at, args, options,
                         run_at, status, due_at, position)
SELECT %(id)s::uuid, %(task)s::text, %(queue)s::text, %(priority)s::smallint, %(max_attempts)s::smallint,
       %(timeout)s::interval, now() + %(ttl)s::interval, %(args)s::jsonb, %(options)s::jsonb,
       start.at,
       CASE WHEN start.later THEN 'scheduled' ELSE 'queued' END,
       CASE WHEN start.later THEN start.at END,
       CASE WHEN start.later THEN NULL ELSE nextval('pgjobs.positions') END
  FROM start
RETURNING status = 'queued' AND EXISTS (
    SELECT FROM pgjobs.idlers AS idler
     WHERE idler.queue IN (%(queue)s::text, '*') AND idler.seen_at > now() - interval '15 seconds')


-- name: enqueue_many
-- Adds a chunk of jobs that differ in id and arguments alone, in the order of the arrays.
-- Locks: none beyond the new rows.
WITH due AS (
    SELECT coalesce(%(run_at)s::timestamptz, clock_timestamp() + %(delay)s::interval) AS at
), start AS (
    SELECT at, coalesce(at > clock_timestamp(), false) AS later FROM due
)
INSERT INTO pgjobs.jobs (id, task, queue, priority, max_attempts, timeout, expires_at, args, options,
                         run_at, status, due_at, position)
SELECT new.id, %(task)s::text, %(queue)s::text, %(priority)s::smallint, %(max_attempts)s::smallint,
       %(timeout)s::interval, now() + %(ttl)s::interval, new.args::jsonb, %(options)s::jsonb,
       start.at,
       CASE WHEN start.later THEN 'scheduled' ELSE 'queued' END,
       CASE WHEN start.later THEN start.at END,
       CASE WHEN start.later THEN NULL ELSE nextval('pgjobs.positions') END
  FROM start
 CROSS JOIN unnest(%(ids)s::uuid[], %(args)s::text[]) AS new (id, args)


-- name: copy
-- Adds any number of jobs that may run at once; positions are drawn row by row, in the order of the stream.
COPY pgjobs.jobs (id, task, queue, priority, max_attempts, timeout, args, options) FROM STDIN


-- name: somebody_idle
-- Whether a worker waits for work on the queue.
SELECT EXISTS (
    SELECT FROM pgjobs.idlers AS idler
     WHERE idler.queue IN (%(queue)s::text, '*') AND idler.seen_at > now() - interval '15 seconds')


-- name: notify
-- A hint to whoever listens; never a fact that anything relies on.
SELECT pg_notify('pgjobs.jobs', %(payload)s::text)
