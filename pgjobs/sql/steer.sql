-- name: pause
-- Pauses queues or tasks, and tells workers. The time counts from the statement, by the database's clock.
-- Locks: the rows of pauses, in the order given.
SELECT pgjobs.pause(%(kind)s::text, name, %(reason)s::text,
                    coalesce(%(until)s::timestamptz, clock_timestamp() + %(length)s::interval))
  FROM unnest(%(names)s::text[]) AS name


-- name: resume
-- Ends pauses, and tells workers; returns the names that were paused.
-- Locks: the rows of pauses, in the order given.
SELECT name
  FROM unnest(%(names)s::text[]) AS name
 WHERE pgjobs.resume(%(kind)s::text, name)


-- name: unpark
-- Queues up to a thousand jobs again whose task is paused no more; returns how many it has seen to.
SELECT pgjobs.unpark(1000)


-- name: pauses
-- What is paused now, as people see it.
SELECT kind, name, reason, paused_at, pgjobs.shown(until) AS until
  FROM pgjobs.pauses
 WHERE until IS NULL OR until > clock_timestamp()
 ORDER BY kind, name


-- name: paused
-- What is paused now, as workers need it: a small table, read as a whole.
SELECT kind, name
  FROM pgjobs.pauses
 WHERE until IS NULL OR until > clock_timestamp()


-- name: end_pauses
-- Deletes pauses whose time is over, and tells workers.
-- Locks: pauses, skipping: one that somebody holds is changed by them.
WITH over AS MATERIALIZED (
    SELECT kind, name
      FROM pgjobs.pauses
     WHERE until <= clock_timestamp()
       FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM pgjobs.pauses AS pause
     USING over
     WHERE pause.kind = over.kind AND pause.name = over.name
    RETURNING pause.name
)
SELECT pg_notify('pgjobs.jobs', 'paused') FROM gone LIMIT 1


-- name: hold
-- Puts waiting jobs on hold; returns those that waited. Where statuses are given, only what stands in one of them when it is locked.
SELECT id FROM pgjobs.hold(%(ids)s::uuid[], %(reason)s::text, %(statuses)s::text[])


-- name: unhold
-- Lets jobs go that are on hold; returns those that were.
SELECT id FROM pgjobs.unhold(%(ids)s::uuid[])


-- name: move
-- Gives waiting jobs another queue or priority, NULL for the one they have; returns those that waited. statuses as for hold.
SELECT id FROM pgjobs.move(%(ids)s::uuid[], %(queue)s::text, %(priority)s::int, %(statuses)s::text[])


-- name: run_now
-- Queues scheduled jobs now; returns those that were scheduled.
SELECT id FROM pgjobs.run_now(%(ids)s::uuid[])
