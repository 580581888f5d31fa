-- name: register
-- Makes a worker known; only then may it claim.
INSERT INTO pgjobs.workers (id, supervisor_id, name, host, pid, process, queues, slots, quiet_at)
VALUES (%(id)s::uuid, %(supervisor)s::uuid, %(name)s::text, %(host)s::text, %(pid)s::int, %(process)s::jsonb,
        %(queues)s::text[], %(slots)s::int, CASE WHEN %(quiet)s::boolean THEN now() END)


-- name: beat
-- Says that workers live, and which of them leave; returns what is asked of each. One that is absent from the result has been
-- declared dead and must drop all it holds.
-- Locks: the supervisor's own rows in workers, by id.
WITH mine AS MATERIALIZED (
    SELECT id
      FROM pgjobs.workers
     WHERE id = ANY (%(workers)s::uuid[]) AND dead_at IS NULL
     ORDER BY id
       FOR UPDATE
)
UPDATE pgjobs.workers AS worker
   SET beat = worker.beat + 1, seen_at = clock_timestamp(),
       stopping_at = CASE WHEN worker.id = ANY (%(leaving)s::uuid[]) THEN coalesce(worker.stopping_at, now())
                          ELSE worker.stopping_at END
  FROM mine
 WHERE worker.id = mine.id
RETURNING worker.id, worker.quiet_at IS NOT NULL, worker.stopping_at IS NOT NULL,
          CASE WHEN worker.told IS NULL THEN worker.asked END


-- name: order
-- Asks of workers to claim no more or to claim again (quiet), to leave as with a first signal, or to answer a question, in the same
-- row; what is NULL, or not to be done, stays as it was. They hear of it at once, or with their next beat; whoever has asked
-- something before is answered no more. Returns those that live.
-- Locks: workers, by id: for as long as a beat takes.
WITH wanted AS MATERIALIZED (
    SELECT id
      FROM pgjobs.workers
     WHERE id = ANY (%(workers)s::uuid[]) AND dead_at IS NULL
     ORDER BY id
       FOR UPDATE
), told AS (
    SELECT pg_notify('pgjobs.jobs', 'asked')
)
UPDATE pgjobs.workers AS worker
   SET quiet_at = CASE %(quiet)s::boolean WHEN true THEN coalesce(worker.quiet_at, now())
                                          WHEN false THEN NULL
                                          ELSE worker.quiet_at END,
       stopping_at = CASE WHEN %(leave)s::boolean THEN coalesce(worker.stopping_at, now()) ELSE worker.stopping_at END,
       asked = coalesce(%(question)s::jsonb, worker.asked),
       told = CASE WHEN %(question)s::jsonb IS NULL THEN worker.told END
  FROM wanted
 CROSS JOIN told
 WHERE worker.id = wanted.id
RETURNING worker.id


-- name: answer
-- Answers what a worker was asked, unless something else has been asked meanwhile.
-- Locks: the worker's row.
UPDATE pgjobs.workers
   SET told = %(answer)s::jsonb
 WHERE id = %(worker)s::uuid AND asked->>'id' = %(question)s::text
RETURNING id


-- name: answers
-- Of some workers, whether a question still stands, what was answered to it, and whether they still count as alive.
SELECT id, asked->>'id' IS NOT DISTINCT FROM %(question)s::text AS stands, told, dead_at IS NULL AS lives
  FROM pgjobs.workers
 WHERE id = ANY (%(workers)s::uuid[])


-- name: forget_question
-- Takes a question and its answers away.
-- Locks: workers, by id: for as long as a beat takes.
WITH asked AS MATERIALIZED (
    SELECT id
      FROM pgjobs.workers
     WHERE id = ANY (%(workers)s::uuid[]) AND asked->>'id' = %(question)s::text
     ORDER BY id
       FOR UPDATE
)
UPDATE pgjobs.workers AS worker
   SET asked = NULL, told = NULL
  FROM asked
 WHERE worker.id = asked.id
RETURNING worker.id


-- name: longest_wait
-- For how many seconds the first jobs of some queues have waited for their first attempt: the longest of each queue that is not
-- paused. Ten jobs of each lane are looked at, from where the last worker has noted that live ones
-- begin: so it reads a few pages a lane, whatever waits. Queues that are one worker's own count not.
WITH RECURSIVE lane AS (SELECT queue, priority FROM pgjobs.lanes /* leaps */)
SELECT lane.queue,
       max(extract(epoch FROM clock_timestamp() - pgjobs.shown(greatest(first.created_at, first.run_at))))::float8
  FROM lane
  LEFT JOIN pgjobs.lanes AS known ON known.queue = lane.queue AND known.priority = lane.priority
 CROSS JOIN LATERAL (
     SELECT created_at, run_at, attempt
       FROM pgjobs.jobs
      WHERE position IS NOT NULL AND queue = lane.queue AND priority = lane.priority
        AND position >= coalesce(known.low, %(lowest)s::bigint)
      ORDER BY position
      LIMIT 10
 ) AS first
 WHERE first.attempt = 0
   AND lane.queue NOT LIKE '@%%'
   AND NOT EXISTS (SELECT FROM pgjobs.pauses AS pause
                    WHERE pause.kind = 'queue' AND pause.name = lane.queue
                      AND (pause.until IS NULL OR pause.until > clock_timestamp()))
 GROUP BY lane.queue


-- name: retire
-- Takes leave: no flag stands any more, and the row is marked dead. It stays as long as that of one who died, because a claim
-- may still be on its way (cut off, or its commit waits for a standby): under a worker that is not there nobody would find it.
-- Locks: the worker's own row and flags.
WITH quiet AS (
    DELETE FROM pgjobs.idlers WHERE worker_id = %(worker)s::uuid
)
UPDATE pgjobs.workers
   SET dead_at = now()
 WHERE id = %(worker)s::uuid AND dead_at IS NULL
RETURNING id


-- name: declare_dead
-- Marks workers dead on the word of somebody who knows, such as the parent that saw its child die.
-- Locks: workers, by id.
WITH doomed AS MATERIALIZED (
    SELECT id
      FROM pgjobs.workers
     WHERE id = ANY (%(workers)s::uuid[]) AND dead_at IS NULL
     ORDER BY id
       FOR UPDATE
)
UPDATE pgjobs.workers AS worker
   SET dead_at = now()
  FROM doomed
 WHERE worker.id = doomed.id
RETURNING worker.id


-- name: neighbours
-- The workers on one boot of one machine that count as alive.
SELECT id, name, pid, process
  FROM pgjobs.workers
 WHERE dead_at IS NULL AND process->>'boot' = %(boot)s::text AND process->>'pids' = %(pids)s::text


-- name: reconcile
-- The claims that the database believes a worker to hold, and whether the worker still counts as alive.
SELECT claim.id, claim.job_ids
  FROM pgjobs.claims AS claim
 WHERE claim.worker_id = %(worker)s::uuid


-- name: alive
-- Whether a worker counts as alive, and how many do.
SELECT coalesce(bool_or(id = %(worker)s::uuid), false), count(*) FROM pgjobs.workers WHERE dead_at IS NULL


-- name: publish_tasks
-- Says which tasks a worker runs, with the schema of their arguments and the options of their jobs; what is as it was published
-- before is not written again. A timeout of NULL is no limit.
-- Locks: the tasks' rows, by name.
INSERT INTO pgjobs.tasks AS known (name, queue, priority, max_attempts, timeout, schema, doc)
SELECT task.name, task.queue, task.priority, task.max_attempts, task.timeout, task.schema::jsonb, task.doc
  FROM unnest(%(names)s::text[], %(queues)s::text[], %(priorities)s::smallint[], %(max_attempts)s::smallint[],
              %(timeouts)s::interval[], %(schemas)s::text[], %(docs)s::text[])
           AS task (name, queue, priority, max_attempts, timeout, schema, doc)
 ORDER BY task.name
    ON CONFLICT (name) DO UPDATE
   SET queue = excluded.queue, priority = excluded.priority, max_attempts = excluded.max_attempts,
       timeout = excluded.timeout, schema = excluded.schema, doc = excluded.doc, published_at = now()
 WHERE (known.queue, known.priority, known.max_attempts, known.timeout, known.schema, known.doc)
       IS DISTINCT FROM (excluded.queue, excluded.priority, excluded.max_attempts, excluded.timeout, excluded.schema,
                         excluded.doc)
RETURNING name
