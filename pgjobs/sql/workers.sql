-- name: register
-- Makes a worker known; only then may it claim.
INSERT INTO pgjobs.workers (id, supervisor_id, name, host, pid, process, queues, slots)
VALUES (%(id)s::uuid, %(supervisor)s::uuid, %(name)s::text, %(host)s::text, %(pid)s::int, %(process)s::jsonb,
        %(queues)s::text[], %(slots)s::int)


-- name: beat
-- Says that workers live. One that is absent from the result has been declared dead and must drop all it holds.
-- Locks: the supervisor's own rows in workers, by id.
WITH mine AS MATERIALIZED (
    SELECT id
      FROM pgjobs.workers
     WHERE id = ANY (%(workers)s::uuid[]) AND dead_at IS NULL
     ORDER BY id
       FOR UPDATE
)
UPDATE pgjobs.workers AS worker
   SET beat = worker.beat + 1, seen_at = clock_timestamp()
  FROM mine
 WHERE worker.id = mine.id
RETURNING worker.id


-- name: stopping
-- Says that a worker claims no more.
UPDATE pgjobs.workers
   SET stopping_at = now()
 WHERE id = %(worker)s::uuid
RETURNING id


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
