-- name: bench_rate
-- Jobs a second, from the first claim to the last recorded completion.
SELECT count(*) / extract(epoch FROM max(finished_at) - min(started_at))
  FROM pgjobs.jobs
 WHERE status = 'succeeded'


-- name: bench_recorded
-- How many jobs' ends stand in the table: cheap to ask, however many there are.
SELECT sum(jobs)
  FROM pgjobs.rollups
 WHERE status = 'succeeded'


-- name: bench_left
-- How many jobs have not ended.
SELECT count(*)
  FROM pgjobs.jobs
 WHERE position IS NOT NULL OR status = 'running'


-- name: bench_counters
-- Bytes of WAL, commits and buffers so far, of the whole database.
SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8, xact_commit::float8, (blks_hit + blks_read)::float8
  FROM pg_stat_database
 WHERE datname = current_database()


-- name: bench_waits
-- For how many milliseconds each job of a task took from its row to its recorded end.
SELECT 1000 * extract(epoch FROM finished_at - created_at)::float8
  FROM pgjobs.jobs
 WHERE task = %(task)s::text AND status = 'succeeded'


-- name: bench_insert
-- The floor of an enqueue: the bare row.
INSERT INTO pgjobs.jobs (id, task, args)
VALUES (gen_random_uuid(), %(task)s::text, %(args)s::jsonb)


-- name: bench_copy
-- The floor of an enqueue in bulk: the bare rows.
COPY pgjobs.jobs (task, args) FROM STDIN


-- name: bench_claim
-- The floor of a claim: the bare change of the rows, with no queue around them.
-- Locks: jobs, skipping.
UPDATE pgjobs.jobs
   SET status = 'running', position = NULL, attempt = attempt + 1, started_at = now()
 WHERE id = ANY (ARRAY (
           SELECT id
             FROM pgjobs.jobs
            WHERE position IS NOT NULL AND queue = 'default' AND priority = 0
            ORDER BY position
            LIMIT %(limit)s::int
              FOR UPDATE SKIP LOCKED
       ))
RETURNING id, args


-- name: bench_complete
-- The floor of a completion: the bare change of the rows.
-- Locks: jobs; nobody else has them.
UPDATE pgjobs.jobs
   SET status = 'succeeded', finished_at = now()
 WHERE id = ANY (%(ids)s::uuid[]) AND status = 'running'


-- name: bench_settings
-- The settings of the server on which figures depend most.
SELECT name, setting
  FROM pg_settings
 WHERE name IN ('fsync', 'synchronous_commit', 'full_page_writes', 'shared_buffers', 'max_wal_size')
