-- What people look at: workers that are quiet, and jobs by their ids.

-- An id for rows that SQL enqueues; those of clients are made alike (RFC 9562, method 3: twelve bits below the millisecond), so
-- that the ids of one statement ascend as its rows do: who walks them reads each page once, not once for every row. The number of
-- 1/4096 ms is fifteen digits, of which twelve are the milliseconds; the rest is that of a version 4, its variant included.
CREATE OR REPLACE FUNCTION pgjobs.uuidv7() RETURNS uuid
LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
    SELECT (overlay(lpad(to_hex(floor(extract(epoch FROM clock_timestamp()) * 4096000)::bigint), 15, '0') PLACING '7' FROM 13 FOR 0)
            || substr(gen_random_uuid()::text, 20))::uuid
$$;

-- As before, with the column quiet_at.
-- Which of the jobs that a worker holds have begun, and which lie in its buffer, it alone knows.
CREATE OR REPLACE VIEW pgjobs.worker_stats AS
    WITH held AS (
        SELECT worker_id, count(*) AS jobs, min(started_at) AS oldest FROM pgjobs.running GROUP BY worker_id
    )
    SELECT worker.id, worker.name, worker.host, worker.pid, worker.queues, worker.slots,
           least(coalesce(held.jobs, 0), worker.slots)::integer AS busy,
           coalesce(held.jobs, 0) AS held,
           held.oldest AS oldest_started_at,
           worker.started_at, worker.seen_at, worker.stopping_at, worker.quiet_at
      FROM pgjobs.workers AS worker
      LEFT JOIN held ON held.worker_id = worker.id
     WHERE worker.dead_at IS NULL;
COMMENT ON VIEW pgjobs.worker_stats IS
    'Each worker that counts as alive: its slots, how many of them are busy, the jobs that it holds (those in its buffer too), since when the oldest of them runs, when it was last seen, since when it leaves, and since when it was asked to claim no more.';

COMMENT ON TABLE pgjobs.alembic_version IS 'works with releases of revision 0003 and later';
