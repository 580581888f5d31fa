-- Pauses of queues and tasks, jobs on hold, and functions that steer jobs: hold, unhold, move, prioritize, run_now.

-- What is not to be run for now. Workers know these rows, and claim from no queue that is paused; a job of a paused task is
-- put on hold when it is claimed. No job's row is touched by a pause.
CREATE TABLE pgjobs.pauses (
    kind text NOT NULL,
    name text NOT NULL,
    reason text,
    paused_at timestamptz NOT NULL DEFAULT now(),
    until timestamptz,
    CONSTRAINT pauses_pkey PRIMARY KEY (kind, name),
    CONSTRAINT pauses_kind_is_known CHECK (kind IN ('queue', 'task'))
);

-- Why a job is blocked, and where it came from: by hand (kind job), or because its task is paused (kind task, whose name is
-- the task's). A row that stands though its job is not blocked means nothing.
CREATE TABLE pgjobs.holds (
    job_id uuid NOT NULL,
    kind text NOT NULL,
    name text,
    position bigint,
    due_at timestamptz,
    held_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT holds_pkey PRIMARY KEY (job_id),
    CONSTRAINT holds_kind_is_known CHECK (kind IN ('job', 'task'))
) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000);
CREATE INDEX holds_parked ON pgjobs.holds (name, position) WHERE kind = 'task';

INSERT INTO pgjobs.duties (name, every) VALUES ('resume', '1 second');

-- Pauses a queue or a task, until somebody resumes it or until a time; again, to change the reason or the time.
-- Locks: the row of pauses; it waits for whoever holds it.
CREATE FUNCTION pgjobs.pause(kind text, name text, reason text DEFAULT NULL, until timestamptz DEFAULT NULL)
RETURNS void
LANGUAGE sql VOLATILE AS $$
    WITH paused AS (
        INSERT INTO pgjobs.pauses (kind, name, reason, until)
        VALUES (pause.kind, pause.name, pause.reason, pause.until)
            ON CONFLICT ON CONSTRAINT pauses_pkey DO UPDATE SET reason = excluded.reason, until = excluded.until
        RETURNING 1
    )
    SELECT FROM paused CROSS JOIN (SELECT pg_notify('pgjobs.jobs', 'paused')) AS told
$$;

-- Queues jobs again whose task is paused no more, up to most, in their old order; returns how many it has seen to.
-- The names are leapt through by index, so that those of a task that stays paused are not read.
-- Locks: holds, then jobs, all skipping: whoever holds one is asked again.
CREATE FUNCTION pgjobs.unpark(most integer DEFAULT 1000) RETURNS bigint
LANGUAGE sql VOLATILE SET plan_cache_mode = force_custom_plan AS $$
    WITH RECURSIVE parked AS (
        (SELECT name FROM pgjobs.holds WHERE kind = 'task' ORDER BY name LIMIT 1)
        UNION ALL
        SELECT next.name
          FROM parked
         CROSS JOIN LATERAL (
             SELECT name FROM pgjobs.holds WHERE kind = 'task' AND name > parked.name ORDER BY name LIMIT 1
         ) AS next
    ), old AS MATERIALIZED (
        SELECT hold.job_id, hold.position
          FROM parked
         CROSS JOIN LATERAL (
             SELECT job_id, position
               FROM pgjobs.holds
              WHERE kind = 'task' AND name = parked.name
              ORDER BY position
              LIMIT most
                FOR UPDATE SKIP LOCKED
         ) AS hold
         WHERE NOT EXISTS (SELECT FROM pgjobs.pauses AS pause WHERE pause.kind = 'task' AND pause.name = parked.name)
         LIMIT most
    ), target AS MATERIALIZED (
        SELECT job.id, old.position
          FROM old
          JOIN pgjobs.jobs AS job ON job.id = old.job_id
         WHERE job.status = 'blocked' AND job.reason = 'paused'
         ORDER BY job.id
           FOR UPDATE OF job SKIP LOCKED
    ), place AS MATERIALIZED (
        SELECT id, CASE WHEN position < 0 THEN -nextval('pgjobs.positions') ELSE nextval('pgjobs.positions') END AS position
          FROM (SELECT * FROM target ORDER BY abs(position) OFFSET 0) AS target
    ), queued AS (
        UPDATE pgjobs.jobs AS job
           SET status = 'queued', position = place.position, reason = NULL,
               run_at = CASE WHEN job.run_at > now() THEN now() ELSE job.run_at END
          FROM place
         WHERE job.id = place.id
        RETURNING job.id, job.queue, job.priority, job.position
    ), gone AS (
        DELETE FROM pgjobs.holds AS hold
         USING old
         WHERE hold.job_id = old.job_id
           AND (EXISTS (SELECT FROM queued WHERE queued.id = old.job_id)
                OR NOT EXISTS (SELECT FROM pgjobs.jobs AS job
                                WHERE job.id = old.job_id AND job.status = 'blocked' AND job.reason = 'paused'))
        RETURNING hold.job_id
    ), told AS MATERIALIZED (
        SELECT pg_notify('pgjobs.jobs', 'restored ' || priority || ' ' || min(position) || ' ' || queue)
          FROM queued
         GROUP BY queue, priority
    )
    SELECT count(*) FROM gone CROSS JOIN (SELECT count(*) FROM told) AS told
$$;

-- Resumes a queue or a task; returns whether it was paused. The jobs of a task are queued again by the duty resume, within a
-- second, or by whoever calls unpark now. Locks: the row of pauses; it waits for whoever holds it.
CREATE FUNCTION pgjobs.resume(kind text, name text) RETURNS boolean
LANGUAGE sql VOLATILE AS $$
    WITH gone AS (
        DELETE FROM pgjobs.pauses AS pause
         WHERE pause.kind = resume.kind AND pause.name = resume.name
        RETURNING 1
    ), told AS MATERIALIZED (
        SELECT pg_notify('pgjobs.jobs', 'paused') FROM gone
    )
    SELECT count(*) > 0 FROM told
$$;

-- The functions that follow lock first and read then, by a second statement with a snapshot of its own: in one statement
-- what is read beside a lock that had to wait is what stood there before.

-- Puts waiting jobs on hold: they stay blocked until somebody lets them go. A job whose task is paused counts as waiting;
-- one that runs, or waits for something else, is left alone. Returns those that it has put on hold.
-- Locks: jobs, by id, then their holds; it waits for whoever holds one.
CREATE FUNCTION pgjobs.hold(ids uuid[], reason text DEFAULT NULL)
RETURNS TABLE (id uuid)
LANGUAGE sql VOLATILE SET plan_cache_mode = force_custom_plan AS $$
    SELECT FROM pgjobs.jobs AS job WHERE job.id = ANY (hold.ids) ORDER BY job.id FOR UPDATE;
    WITH target AS MATERIALIZED (
        SELECT job.id, job.position, job.due_at
          FROM pgjobs.jobs AS job
         WHERE job.id = ANY (hold.ids)
           AND (job.status IN ('scheduled', 'queued') OR job.status = 'blocked' AND job.reason = 'paused')
    ), changed AS (
        UPDATE pgjobs.jobs AS job
           SET status = 'blocked', position = NULL, due_at = NULL, reason = 'held' || coalesce(': ' || hold.reason, '')
          FROM target
         WHERE job.id = target.id
        RETURNING job.id, target.position, target.due_at
    ), kept AS (
        INSERT INTO pgjobs.holds AS held (job_id, kind, position, due_at)
        SELECT changed.id, 'job', changed.position, changed.due_at
          FROM changed
            ON CONFLICT ON CONSTRAINT holds_pkey DO UPDATE
           SET kind = 'job', name = NULL, held_at = now(), due_at = excluded.due_at,
               position = CASE WHEN excluded.position IS NULL AND excluded.due_at IS NULL THEN held.position
                               ELSE excluded.position END
    )
    SELECT changed.id FROM changed
$$;

-- Lets jobs go that are on hold: back to the queue, behind those that wait there, or to their due time if that is still to
-- come. Returns them. Locks: jobs, by id, then their holds; it waits for whoever holds one.
CREATE FUNCTION pgjobs.unhold(ids uuid[])
RETURNS TABLE (id uuid)
LANGUAGE sql VOLATILE SET plan_cache_mode = force_custom_plan AS $$
    SELECT FROM pgjobs.jobs AS job WHERE job.id = ANY (unhold.ids) ORDER BY job.id FOR UPDATE;
    WITH target AS MATERIALIZED (
        SELECT job.id
          FROM pgjobs.jobs AS job
         WHERE job.id = ANY (unhold.ids) AND job.status = 'blocked' AND job.reason LIKE 'held%'
           AND EXISTS (SELECT FROM pgjobs.holds AS held WHERE held.job_id = job.id AND held.kind = 'job')
    ), freed AS (
        DELETE FROM pgjobs.holds AS held
         USING target
         WHERE held.job_id = target.id AND held.kind = 'job'
        RETURNING held.job_id, held.position, CASE WHEN held.due_at > clock_timestamp() THEN held.due_at END AS due_at
    ), place AS MATERIALIZED (
        SELECT freed.job_id, freed.due_at,
               CASE WHEN freed.due_at IS NOT NULL THEN NULL
                    WHEN freed.position < 0 THEN -nextval('pgjobs.positions')
                    ELSE nextval('pgjobs.positions') END AS position
          FROM (SELECT * FROM freed ORDER BY abs(freed.position), freed.job_id OFFSET 0) AS freed
    ), changed AS (
        UPDATE pgjobs.jobs AS job
           SET status = CASE WHEN place.due_at IS NULL THEN 'queued' ELSE 'scheduled' END,
               position = place.position, due_at = place.due_at, reason = NULL,
               run_at = CASE WHEN place.due_at IS NULL AND job.run_at > now() THEN now() ELSE job.run_at END
          FROM place
         WHERE job.id = place.job_id
        RETURNING job.id, job.queue, job.priority, job.position
    ), told AS MATERIALIZED (
        SELECT pg_notify('pgjobs.jobs',
                         'restored ' || changed.priority || ' ' || min(changed.position) || ' ' || changed.queue)
          FROM changed
         WHERE changed.position IS NOT NULL
         GROUP BY changed.queue, changed.priority
    )
    SELECT changed.id
      FROM changed
      CROSS JOIN (SELECT count(*) FROM told) AS told
$$;

-- Gives waiting jobs another queue, another priority, or both (NULL leaves it): where they are queued they go behind those
-- that wait there. Returns those that waited. Locks: jobs, by id; it waits for whoever holds one.
CREATE FUNCTION pgjobs.move(ids uuid[], queue text DEFAULT NULL, priority integer DEFAULT NULL)
RETURNS TABLE (id uuid)
LANGUAGE sql VOLATILE SET plan_cache_mode = force_custom_plan AS $$
    SELECT FROM pgjobs.jobs AS job WHERE job.id = ANY (move.ids) ORDER BY job.id FOR UPDATE;
    WITH target AS MATERIALIZED (
        SELECT job.id, job.position
          FROM pgjobs.jobs AS job
         WHERE job.id = ANY (move.ids) AND job.status IN ('scheduled', 'blocked', 'queued')
    ), place AS MATERIALIZED (
        SELECT target.id,
               CASE WHEN target.position < 0 THEN -nextval('pgjobs.positions')
                    WHEN target.position > 0 THEN nextval('pgjobs.positions') END AS position
          FROM (SELECT * FROM target ORDER BY abs(target.position), target.id OFFSET 0) AS target
    ), changed AS (
        UPDATE pgjobs.jobs AS job
           SET queue = coalesce(move.queue, job.queue), priority = coalesce(move.priority, job.priority),
               position = place.position
          FROM place
         WHERE job.id = place.id
        RETURNING job.id, job.queue, job.priority, job.position
    ), told AS MATERIALIZED (
        SELECT pg_notify('pgjobs.jobs',
                         'restored ' || changed.priority || ' ' || min(changed.position) || ' ' || changed.queue)
          FROM changed
         WHERE changed.position IS NOT NULL
         GROUP BY changed.queue, changed.priority
    )
    SELECT changed.id
      FROM changed
      CROSS JOIN (SELECT count(*) FROM told) AS told
$$;

-- Gives waiting jobs another priority; see move.
CREATE FUNCTION pgjobs.prioritize(ids uuid[], priority integer)
RETURNS TABLE (id uuid)
LANGUAGE sql VOLATILE SET plan_cache_mode = force_custom_plan AS $$
    SELECT moved.id FROM pgjobs.move(prioritize.ids, NULL, prioritize.priority) AS moved
$$;

-- Queues scheduled jobs now, however far off their time is, in its order. Returns those that were scheduled.
-- Locks: jobs, by id; it waits for whoever holds one.
CREATE FUNCTION pgjobs.run_now(ids uuid[])
RETURNS TABLE (id uuid)
LANGUAGE sql VOLATILE SET plan_cache_mode = force_custom_plan AS $$
    SELECT FROM pgjobs.jobs AS job WHERE job.id = ANY (run_now.ids) ORDER BY job.id FOR UPDATE;
    WITH target AS MATERIALIZED (
        SELECT job.id, job.due_at
          FROM pgjobs.jobs AS job
         WHERE job.id = ANY (run_now.ids) AND job.status = 'scheduled'
    ), place AS MATERIALIZED (
        SELECT target.id, nextval('pgjobs.positions') AS position
          FROM (SELECT * FROM target ORDER BY target.due_at, target.id OFFSET 0) AS target
    ), changed AS (
        UPDATE pgjobs.jobs AS job
           SET status = 'queued', position = place.position, due_at = NULL, reason = NULL,
               run_at = CASE WHEN job.run_at > now() THEN now() ELSE job.run_at END
          FROM place
         WHERE job.id = place.id
        RETURNING job.id, job.queue, job.priority, job.position
    ), told AS MATERIALIZED (
        SELECT pg_notify('pgjobs.jobs',
                         'restored ' || changed.priority || ' ' || min(changed.position) || ' ' || changed.queue)
          FROM changed
         GROUP BY changed.queue, changed.priority
    )
    SELECT changed.id
      FROM changed
      CROSS JOIN (SELECT count(*) FROM told) AS told
$$;

-- Cancels jobs: at once where they wait; a running one is asked to stop, and is cancelled when it has. Ended ones stay.
-- Returns those that it has changed, with their status. Locks: jobs, by id; it waits for whoever holds one. One that had ended
-- and is queued again meanwhile would be locked out of turn, so nobody is waited for then.
CREATE OR REPLACE FUNCTION pgjobs.cancel(ids uuid[], reason text DEFAULT 'cancelled')
RETURNS TABLE (id uuid, status text)
LANGUAGE sql VOLATILE SET plan_cache_mode = force_custom_plan AS $$
    SELECT FROM pgjobs.jobs AS job
     WHERE job.id = ANY (cancel.ids) AND job.status IN ('scheduled', 'blocked', 'queued', 'running')
     ORDER BY job.id
       FOR UPDATE;
    WITH target AS MATERIALIZED (
        SELECT job.id
          FROM pgjobs.jobs AS job
         WHERE job.id = ANY (cancel.ids) AND job.status IN ('scheduled', 'blocked', 'queued', 'running')
         ORDER BY job.id
           FOR UPDATE SKIP LOCKED
    ), changed AS (
        UPDATE pgjobs.jobs AS job
           SET status = CASE WHEN job.status = 'running' THEN 'running' ELSE 'cancelled' END,
               position = NULL,
               due_at = NULL,
               cancel_at = coalesce(job.cancel_at, now()),
               finished_at = CASE WHEN job.status = 'running' THEN NULL ELSE now() END,
               unique_key = CASE WHEN job.status = 'running' OR job.options ? 'unique_for' THEN job.unique_key END,
               reason = cancel.reason
          FROM target
         WHERE job.id = target.id AND job.status IN ('scheduled', 'blocked', 'queued', 'running')
        RETURNING job.id, job.queue, job.task, job.status
    ), rolled AS (
        INSERT INTO pgjobs.rollups (minute, queue, task, status, bucket, jobs, seconds)
        SELECT date_trunc('minute', now()), changed.queue, changed.task, 'cancelled', 0, count(*), 0
          FROM changed
         WHERE changed.status = 'cancelled'
         GROUP BY changed.queue, changed.task
    ), forgotten AS (
        DELETE FROM pgjobs.holds AS held
         USING changed
         WHERE held.job_id = changed.id
    ), told AS MATERIALIZED (
        SELECT pg_notify('pgjobs.jobs', 'cancelled')
          FROM (SELECT FROM changed WHERE changed.status = 'running' LIMIT 1) AS running
    )
    SELECT changed.id, changed.status
      FROM changed
      CROSS JOIN (SELECT count(*) FROM told) AS told
$$;

-- Deletes jobs in any status, with all that belongs to them; the run of a running one is stopped, and its end recorded nowhere.
-- Returns those that were there. Locks: jobs, by id; it waits for whoever holds one.
CREATE OR REPLACE FUNCTION pgjobs.delete(ids uuid[])
RETURNS TABLE (id uuid)
LANGUAGE sql VOLATILE SET plan_cache_mode = force_custom_plan AS $$
    SELECT FROM pgjobs.jobs AS job WHERE job.id = ANY (delete.ids) ORDER BY job.id FOR UPDATE;
    WITH target AS MATERIALIZED (
        SELECT job.id, job.status
          FROM pgjobs.jobs AS job
         WHERE job.id = ANY (delete.ids)
         ORDER BY job.id
           FOR UPDATE
    ), gone AS (
        DELETE FROM pgjobs.jobs AS job
         USING target
         WHERE job.id = target.id
        RETURNING job.id, target.status
    ), forgotten AS (
        DELETE FROM pgjobs.failures AS failure
         USING gone
         WHERE failure.job_id = gone.id
    ), unlogged AS (
        DELETE FROM pgjobs.logs AS line
         USING gone
         WHERE line.job_id = gone.id
    ), emptied AS (
        DELETE FROM pgjobs.files AS file
         USING gone
         WHERE file.job_id = gone.id
    ), freed AS (
        DELETE FROM pgjobs.holds AS held
         USING gone
         WHERE held.job_id = gone.id
    ), told AS MATERIALIZED (
        SELECT pg_notify('pgjobs.jobs', 'cancelled')
          FROM (SELECT FROM gone WHERE gone.status = 'running' LIMIT 1) AS running
    )
    SELECT gone.id
      FROM gone
      CROSS JOIN (SELECT count(*) FROM told) AS told
$$;

COMMENT ON TABLE pgjobs.alembic_version IS 'works with releases of revision 0003 and later';
