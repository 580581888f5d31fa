-- name: report
-- Writes what runs have said of themselves: progress, changes of meta, a longer timeout, log lines. One statement for all
-- runs of a worker. Fenced: a job that belongs to another claim, or has ended, is left alone, and is absent from the result;
-- so is one whose row somebody holds. Its lines are kept all the same while the claim is its own, since they touch no row of
-- it: they are inserted in the order given. No indexed column is written, so the update is HOT.
-- Locks: jobs, by id, skipping.
WITH said AS (
    SELECT *
      FROM unnest(%(ids)s::uuid[], %(claims)s::uuid[], %(progress)s::text[], %(meta)s::text[], %(timeouts)s::float8[])
               AS said (id, claim_id, progress, meta, timeout)
), mine AS MATERIALIZED (
    SELECT job.place, said.progress, said.meta, said.timeout
      FROM (SELECT * FROM said WHERE coalesce(progress, meta, timeout::text) IS NOT NULL ORDER BY id) AS said
     CROSS JOIN LATERAL (
         SELECT ctid AS place
           FROM pgjobs.jobs
          WHERE id = said.id AND claim_id = said.claim_id AND status = 'running'
            FOR UPDATE SKIP LOCKED
     ) AS job
), logged AS (
    INSERT INTO pgjobs.logs (job_id, attempt, at, level, line)
    SELECT line.job_id, line.attempt, now() - line.age * interval '1 second', line.level, line.line
      FROM unnest(%(jobs)s::uuid[], %(job_claims)s::uuid[], %(attempts)s::smallint[], %(ages)s::float8[], %(levels)s::text[],
                  %(lines)s::text[]) WITH ORDINALITY
               AS line (job_id, claim_id, attempt, age, level, line, place)
     WHERE EXISTS (SELECT FROM pgjobs.jobs WHERE id = line.job_id AND claim_id = line.claim_id)
     ORDER BY line.place
)
UPDATE pgjobs.jobs AS job
   SET progress = coalesce(mine.progress::jsonb || jsonb_build_object('at', now()), job.progress),
       meta = CASE WHEN mine.meta IS NULL THEN job.meta ELSE coalesce(job.meta, '{}') || mine.meta::jsonb END,
       timeout = coalesce(mine.timeout * interval '1 second', job.timeout)
  FROM mine
 WHERE job.ctid = mine.place
RETURNING job.id


-- name: enqueue_children
-- Adds jobs whose parents have succeeded in this very transaction, and tells idle workers of them: so they are there exactly
-- if the end of the parent is recorded, and a completion that is sent again after its commit adds none. The version of the
-- parent's row says who wrote it, and its claim by which of two runs. Where parents is NULL the caller has completed the parent itself.
-- Positions are drawn in the order of the arrays. Locks: none beyond the new rows.
WITH child AS (
    SELECT child.*,
           coalesce(child.run_at::timestamptz, clock_timestamp() + child.delay * interval '1 second') AS start
      FROM unnest(%(ids)s::uuid[], %(parents)s::uuid[], %(claims)s::uuid[], %(tasks)s::text[], %(queues)s::text[],
                  %(priorities)s::smallint[],
                  %(max_attempts)s::smallint[], %(timeouts)s::float8[], %(delays)s::float8[], %(run_ats)s::text[],
                  %(ttls)s::float8[], %(args)s::text[], %(options)s::text[], %(meta)s::text[], %(lifos)s::boolean[])
               WITH ORDINALITY
               AS child (id, parent, claim, task, queue, priority, max_attempts, timeout, delay, run_at, ttl, args, options, meta,
                         lifo, place)
     WHERE child.parent IS NULL
        OR EXISTS (SELECT FROM pgjobs.jobs AS parent
                    WHERE parent.id = child.parent AND parent.claim_id = child.claim AND parent.status = 'succeeded'
                      AND parent.xmin = pg_current_xact_id()::xid)
     ORDER BY place
), new AS MATERIALIZED (
    SELECT child.*, CASE WHEN start > clock_timestamp() THEN NULL
                         WHEN lifo THEN -nextval('pgjobs.positions')
                         ELSE nextval('pgjobs.positions') END AS position
      FROM child
), added AS (
    INSERT INTO pgjobs.jobs (id, task, queue, priority, max_attempts, timeout, expires_at, args, options, meta,
                             run_at, status, due_at, position)
    SELECT id, task, queue, priority, max_attempts, timeout * interval '1 second', now() + ttl * interval '1 second',
           args::jsonb, options::jsonb, meta::jsonb, start,
           CASE WHEN position IS NULL THEN 'scheduled' ELSE 'queued' END,
           CASE WHEN position IS NULL THEN start END,
           position
      FROM new
        ON CONFLICT (id) DO NOTHING
    RETURNING queue, priority, position
), told AS MATERIALIZED (
    SELECT CASE WHEN fresh.lowest < 0
                THEN pg_notify('pgjobs.jobs', 'restored ' || fresh.priority || ' ' || fresh.lowest || ' ' || fresh.queue)
                ELSE pg_notify('pgjobs.jobs', 'queued ' || fresh.priority || ' ' || fresh.queue) END
      FROM (SELECT queue, priority, min(position) AS lowest
              FROM added
             WHERE position IS NOT NULL
             GROUP BY queue, priority) AS fresh
     WHERE fresh.lowest < 0
        OR EXISTS (SELECT FROM pgjobs.idlers AS idler
                    WHERE idler.queue IN (fresh.queue, '*') AND idler.seen_at > now() - interval '15 seconds')
)
SELECT count(*) FROM told


-- name: logs
-- The log lines of one job after a given one, in order.
SELECT id, attempt, at, level, line
  FROM pgjobs.logs
 WHERE job_id = %(id)s::uuid AND id > %(after)s::bigint
 ORDER BY id
 LIMIT %(limit)s::int


-- name: attach
-- Stores a file of a job that runs under a claim, in place of one with the same name; nothing comes back when the claim has
-- moved on. Locks: the file's row.
INSERT INTO pgjobs.files (job_id, name, content_type, size, data)
SELECT id, %(name)s::text, %(content_type)s::text, octet_length(%(data)s::bytea), %(data)s::bytea
  FROM pgjobs.jobs
 WHERE id = %(id)s::uuid AND claim_id = %(claim)s::uuid
    ON CONFLICT (job_id, name) DO UPDATE
   SET created_at = now(), content_type = excluded.content_type, size = excluded.size, data = excluded.data
RETURNING job_id


-- name: files
-- What a job has attached, without the contents.
SELECT name, created_at, content_type, size
  FROM pgjobs.files
 WHERE job_id = %(id)s::uuid
 ORDER BY name


-- name: file
-- The contents of one file of a job.
SELECT data
  FROM pgjobs.files
 WHERE job_id = %(id)s::uuid AND name = %(name)s::text
