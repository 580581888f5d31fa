-- As it was: workers do not say that they are quiet, and ids of one millisecond are in no order.

CREATE OR REPLACE FUNCTION pgjobs.uuidv7() RETURNS uuid
LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
    SELECT encode(
        set_bit(set_bit(
            overlay(uuid_send(gen_random_uuid())
                    PLACING substring(int8send(floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3)
                    FROM 1 FOR 6),
            52, 1), 53, 1), 'hex')::uuid
$$;

DROP VIEW pgjobs.worker_stats;
-- Which of the jobs that a worker holds have begun, and which lie in its buffer, it alone knows.
CREATE VIEW pgjobs.worker_stats AS
    WITH held AS (
        SELECT worker_id, count(*) AS jobs, min(started_at) AS oldest FROM pgjobs.running GROUP BY worker_id
    )
    SELECT worker.id, worker.name, worker.host, worker.pid, worker.queues, worker.slots,
           least(coalesce(held.jobs, 0), worker.slots)::integer AS busy,
           coalesce(held.jobs, 0) AS held,
           held.oldest AS oldest_started_at,
           worker.started_at, worker.seen_at, worker.stopping_at
      FROM pgjobs.workers AS worker
      LEFT JOIN held ON held.worker_id = worker.id
     WHERE worker.dead_at IS NULL;
COMMENT ON VIEW pgjobs.worker_stats IS
    'Each worker that counts as alive: its slots, how many of them are busy, the jobs that it holds (those in its buffer too), since when the oldest of them runs, and when it was last seen.';

COMMENT ON TABLE pgjobs.alembic_version IS 'works with releases of revision 0003 and later';
