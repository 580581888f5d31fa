-- What steers jobs reads them under its own locks, acts on a status alone where it is told one, and leaves alone what nobody would
-- run; and no row has a queue that breaks the work on its neighbours.

-- Whether somebody may come for what is queued: a worker's own queue, @ and its id, ends with that worker.
CREATE FUNCTION pgjobs.is_served(queue text) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT is_served.queue NOT LIKE '@%'
        OR EXISTS (SELECT FROM pgjobs.workers AS worker
                    WHERE '@' || worker.id = is_served.queue
                      AND worker.dead_at IS NULL AND worker.stopping_at IS NULL
                      AND worker.seen_at > now() - interval '15 seconds')
$$;

-- A queue's name that any row can have: of a hundred characters at most, as wherever else one is given. A longer one fits neither the
-- index of what is queued nor a notification, and what fails at one row fails for all that are handled with it; one without
-- any is never found. Raises check_violation (23514).
CREATE FUNCTION pgjobs.queue_name(queue text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
    IF length(queue) BETWEEN 1 AND 100 THEN
        RETURN queue;
    END IF;
    RAISE EXCEPTION USING ERRCODE = 'check_violation',
        MESSAGE = format('queue %L has %s characters; give it a name, of 100 at most', left(queue, 80), length(queue));
END
$$;

CREATE FUNCTION pgjobs.check_queue() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pgjobs.queue_name(NEW.queue);
    RETURN NULL;
END
$$;

-- The functions that follow lock first and read then, by a second statement with a snapshot of its own: in one statement
-- what is read beside a lock that had to wait is what stood there before. What was committed in between is in that snapshot, and
-- not locked: so the second statement locks as well. It waits for nobody, since that would be out of turn.
-- Those with statuses act on jobs that stand in one of them, which is looked at under the lock, or in any where they are NULL:
-- whoever chose jobs by their status must not act on what has become of them since. They stand beside the ones without, so that
-- no call changes its meaning, and what was granted on those stays.

-- Puts waiting jobs on hold: they stay blocked until somebody lets them go. A job whose task is paused counts as waiting;
-- one that runs, or waits for something else, is left alone. Returns those that it has put on hold.
-- Locks: jobs, by id, then their holds; it waits for whoever holds one.
CREATE FUNCTION pgjobs.hold(ids uuid[], reason text, statuses text[])
RETURNS TABLE (id uuid)
LANGUAGE sql VOLATILE SET plan_cache_mode = force_custom_plan AS $$
    SELECT FROM pgjobs.jobs AS job WHERE job.id = ANY (hold.ids) ORDER BY job.id FOR UPDATE;
    WITH target AS MATERIALIZED (
        SELECT job.id, job.position, job.due_at
          FROM pgjobs.jobs AS job
         WHERE job.id = ANY (hold.ids)
           AND (job.status IN ('scheduled', 'queued') OR job.status = 'blocked' AND job.reason = 'paused')
           AND (hold.statuses IS NULL OR job.status = ANY (hold.statuses))
         ORDER BY job.id
           FOR UPDATE SKIP LOCKED
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

CREATE OR REPLACE FUNCTION pgjobs.hold(ids uuid[], reason text DEFAULT NULL)
RETURNS TABLE (id uuid)
LANGUAGE sql VOLATILE SET plan_cache_mode = force_custom_plan AS $$
    SELECT held.id FROM pgjobs.hold(hold.ids, hold.reason, NULL) AS held
$$;

-- Lets jobs go that are on hold: back to the queue, behind those that wait there, or to their due time if that is still to
-- come. Returns them. Locks: jobs, by id, then their holds; it waits for whoever holds one.
CREATE OR REPLACE FUNCTION pgjobs.unhold(ids uuid[])
RETURNS TABLE (id uuid)
LANGUAGE sql VOLATILE SET plan_cache_mode = force_custom_plan AS $$
    SELECT FROM pgjobs.jobs AS job WHERE job.id = ANY (unhold.ids) ORDER BY job.id FOR UPDATE;
    WITH target AS MATERIALIZED (
        SELECT job.id
          FROM pgjobs.jobs AS job
         WHERE job.id = ANY (unhold.ids) AND job.status = 'blocked' AND job.reason LIKE 'held%'
           AND EXISTS (SELECT FROM pgjobs.holds AS held WHERE held.job_id = job.id AND held.kind = 'job')
         ORDER BY job.id
           FOR UPDATE SKIP LOCKED
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
-- that wait there. Returns those that waited. A start that lies ahead though the job is queued, since the clock was turned back, is
-- now. Raises check_violation (23514) for a queue that no row can have. Locks: jobs, by id; it waits for whoever holds one.
CREATE FUNCTION pgjobs.move(ids uuid[], queue text, priority integer, statuses text[])
RETURNS TABLE (id uuid)
LANGUAGE sql VOLATILE SET plan_cache_mode = force_custom_plan AS $$
    SELECT FROM pgjobs.jobs AS job WHERE job.id = ANY (move.ids) ORDER BY job.id FOR UPDATE;
    WITH target AS MATERIALIZED (
        SELECT job.id, job.position
          FROM pgjobs.jobs AS job
         WHERE job.id = ANY (move.ids) AND job.status IN ('scheduled', 'blocked', 'queued')
           AND (move.statuses IS NULL OR job.status = ANY (move.statuses))
         ORDER BY job.id
           FOR UPDATE SKIP LOCKED
    ), place AS MATERIALIZED (
        SELECT target.id,
               CASE WHEN target.position < 0 THEN -nextval('pgjobs.positions')
                    WHEN target.position > 0 THEN nextval('pgjobs.positions') END AS position
          FROM (SELECT * FROM target ORDER BY abs(target.position), target.id OFFSET 0) AS target
    ), changed AS (
        UPDATE pgjobs.jobs AS job
           SET queue = coalesce(pgjobs.queue_name(move.queue), job.queue), priority = coalesce(move.priority, job.priority),
               position = place.position,
               run_at = CASE WHEN job.status = 'queued' AND job.run_at > now() THEN now() ELSE job.run_at END
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

CREATE OR REPLACE FUNCTION pgjobs.move(ids uuid[], queue text DEFAULT NULL, priority integer DEFAULT NULL)
RETURNS TABLE (id uuid)
LANGUAGE sql VOLATILE SET plan_cache_mode = force_custom_plan AS $$
    SELECT moved.id FROM pgjobs.move(move.ids, move.queue, move.priority, NULL) AS moved
$$;

-- Queues scheduled jobs now, however far off their time is, in its order. Returns those that were scheduled.
-- Locks: jobs, by id; it waits for whoever holds one.
CREATE OR REPLACE FUNCTION pgjobs.run_now(ids uuid[])
RETURNS TABLE (id uuid)
LANGUAGE sql VOLATILE SET plan_cache_mode = force_custom_plan AS $$
    SELECT FROM pgjobs.jobs AS job WHERE job.id = ANY (run_now.ids) ORDER BY job.id FOR UPDATE;
    WITH target AS MATERIALIZED (
        SELECT job.id, job.due_at
          FROM pgjobs.jobs AS job
         WHERE job.id = ANY (run_now.ids) AND job.status = 'scheduled'
         ORDER BY job.id
           FOR UPDATE SKIP LOCKED
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
-- Returns those that it has changed, with their status; their messages are in one statement with the change, which announce sees,
-- since it is volatile and what it is given has been read to the end. Locks: jobs, by id; it waits for whoever holds one. One that
-- had ended and is queued again meanwhile would be locked out of turn, so nobody is waited for then.
CREATE FUNCTION pgjobs.cancel(ids uuid[], reason text, statuses text[])
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
           AND (cancel.statuses IS NULL OR job.status = ANY (cancel.statuses))
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
        RETURNING job.id, job.queue, job.task, job.status, job.options
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
    ), announced AS MATERIALIZED (
        SELECT pgjobs.announce(array_agg(changed.id))
          FROM changed
         WHERE changed.status = 'cancelled' AND changed.options ? 'webhook'
        HAVING count(*) > 0
    )
    SELECT changed.id, changed.status
      FROM changed
      CROSS JOIN (SELECT count(*) FROM told) AS told
      CROSS JOIN (SELECT count(*) FROM announced) AS announced
$$;

CREATE OR REPLACE FUNCTION pgjobs.cancel(ids uuid[], reason text DEFAULT 'cancelled')
RETURNS TABLE (id uuid, status text)
LANGUAGE sql VOLATILE SET plan_cache_mode = force_custom_plan AS $$
    SELECT changed.id, changed.status FROM pgjobs.cancel(cancel.ids, cancel.reason, NULL) AS changed
$$;

-- Deletes jobs in any status, with all that belongs to them; the run of a running one is stopped, and its end recorded nowhere.
-- Returns those that were there. Locks: jobs, by id; it waits for whoever holds one.
CREATE FUNCTION pgjobs.delete(ids uuid[], statuses text[])
RETURNS TABLE (id uuid)
LANGUAGE sql VOLATILE SET plan_cache_mode = force_custom_plan AS $$
    SELECT FROM pgjobs.jobs AS job WHERE job.id = ANY (delete.ids) ORDER BY job.id FOR UPDATE;
    WITH target AS MATERIALIZED (
        SELECT job.id, job.status
          FROM pgjobs.jobs AS job
         WHERE job.id = ANY (delete.ids)
           AND (delete.statuses IS NULL OR job.status = ANY (delete.statuses))
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

CREATE OR REPLACE FUNCTION pgjobs.delete(ids uuid[])
RETURNS TABLE (id uuid)
LANGUAGE sql VOLATILE SET plan_cache_mode = force_custom_plan AS $$
    SELECT gone.id FROM pgjobs.delete(delete.ids, NULL) AS gone
$$;

-- Queues ended jobs again: same rows, new positions, attempts counted anew, failures kept. Neither a ttl nor a
-- deadline counts any more, and the time for which it may be tried begins anew. Returns those that had ended; one of a worker's own
-- queue is left alone when that worker has left, since it would wait for ever.
-- Locks: jobs, by id; it waits for whoever holds one.
CREATE FUNCTION pgjobs.retry(ids uuid[], statuses text[])
RETURNS TABLE (id uuid)
LANGUAGE sql VOLATILE SET plan_cache_mode = force_custom_plan AS $$
    WITH target AS MATERIALIZED (
        SELECT job.id
          FROM pgjobs.jobs AS job
         WHERE job.id = ANY (retry.ids) AND job.status IN ('succeeded', 'failed', 'cancelled', 'expired')
           AND (retry.statuses IS NULL OR job.status = ANY (retry.statuses))
           AND pgjobs.is_served(job.queue)
         ORDER BY job.id
           FOR UPDATE
    ), changed AS (
        UPDATE pgjobs.jobs AS job
           SET status = 'queued', position = nextval('pgjobs.positions'), attempt = 0, crashes = 0, reason = NULL,
               result = NULL, expires_at = NULL, cancel_at = NULL, started_at = NULL, finished_at = NULL,
               claim_id = NULL,
               run_at = CASE WHEN job.options ? 'retry_for' THEN now() END,
               options = CASE WHEN jsonb_typeof(job.options) = 'object'
                              THEN job.options - '{suspect,deadline,late,on_expiry}'::text[] ELSE job.options END
          FROM target
         WHERE job.id = target.id AND job.status IN ('succeeded', 'failed', 'cancelled', 'expired')
        RETURNING job.id, job.queue, job.priority
    ), told AS MATERIALIZED (
        SELECT pg_notify('pgjobs.jobs', 'queued ' || fresh.priority || ' ' || fresh.queue)
          FROM (SELECT DISTINCT changed.queue, changed.priority FROM changed) AS fresh
         WHERE EXISTS (SELECT FROM pgjobs.idlers AS idler
                        WHERE idler.queue IN (fresh.queue, '*') AND idler.seen_at > now() - interval '15 seconds')
    )
    SELECT changed.id
      FROM changed
      CROSS JOIN (SELECT count(*) FROM told) AS told
$$;

CREATE OR REPLACE FUNCTION pgjobs.retry(ids uuid[])
RETURNS TABLE (id uuid)
LANGUAGE sql VOLATILE SET plan_cache_mode = force_custom_plan AS $$
    SELECT retried.id FROM pgjobs.retry(retry.ids, NULL) AS retried
$$;

-- Gives an ended job other arguments, and queues it again. Returns its id, if retry would.
-- Locks: the job; it waits for whoever holds it.
CREATE OR REPLACE FUNCTION pgjobs.retry_with(job_id uuid, args jsonb)
RETURNS TABLE (id uuid)
LANGUAGE sql VOLATILE SET plan_cache_mode = force_custom_plan AS $$
    UPDATE pgjobs.jobs AS job
       SET args = retry_with.args
     WHERE job.id = retry_with.job_id AND job.status IN ('succeeded', 'failed', 'cancelled', 'expired')
       AND pgjobs.is_served(job.queue);
    SELECT retried.id FROM pgjobs.retry(ARRAY[retry_with.job_id], NULL) AS retried;
$$;

-- Enqueues the messages that jobs send when they have ended, of those of these jobs that ended in this transaction and have such;
-- returns how many are new. A message's id is made of its job, the attempt and the place among its hooks, so that asking twice
-- sends one; it carries the time of the job's own id, since retention walks ids by their time. It waits in the job's queue, which
-- somebody serves, but for a worker's own: that of a worker which has left nobody serves. What SQL has written for a hook and is
-- none is passed over.
-- It has the rights of the schema's owner, since those who cancel jobs may enqueue none; who may end no job gets nothing enqueued.
-- Locks: none beyond the new rows.
CREATE OR REPLACE FUNCTION pgjobs.announce(ids uuid[]) RETURNS bigint
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan AS $$
    WITH ended AS (
        SELECT job.id, job.task, job.queue, job.priority, job.status, job.attempt, job.reason, job.result, job.meta,
               job.created_at, job.started_at, job.finished_at, hook.value AS hook, hook.place
          FROM pgjobs.jobs AS job
         CROSS JOIN LATERAL jsonb_path_query(job.options, 'lax $.webhook[*] ? (@.url.type() == "string")')
                            WITH ORDINALITY AS hook (value, place)
         WHERE job.id = ANY (announce.ids)
           AND job.finished_at = now()
           AND job.status IN ('succeeded', 'failed', 'cancelled', 'expired')
           AND (NOT hook.value ? 'on' OR hook.value->'on' ? job.status)
    ), message AS (
        SELECT ended.*, md5(concat_ws(' ', ended.id, ended.attempt, ended.status, ended.finished_at, ended.place)) AS hash
          FROM ended
    ), named AS (
        SELECT message.*,
               (left(replace(message.id::text, '-', ''), 12) || '7' || left(message.hash, 3)
                || '8' || right(message.hash, 15))::uuid AS message_id
          FROM message
    ), added AS (
        INSERT INTO pgjobs.jobs (id, task, queue, priority, max_attempts, timeout, args)
        SELECT named.message_id, 'pgjobs' || '.webhook',
               CASE WHEN named.queue LIKE '@%' THEN 'default' ELSE named.queue END, named.priority, 12, interval '1 minute',
               jsonb_build_object(
                   'id', named.message_id,
                   'url', named.hook->'url',
                   'body', jsonb_build_object(
                       'type', 'job.' || named.status,
                       'timestamp', named.finished_at,
                       'data', jsonb_build_object(
                           'id', named.id, 'task', named.task, 'queue', named.queue, 'status', named.status,
                           'attempt', named.attempt, 'reason', named.reason, 'meta', named.meta,
                           'created_at', named.created_at, 'started_at', named.started_at,
                           'finished_at', named.finished_at)
                           || CASE WHEN named.hook->'result' = 'true' THEN jsonb_build_object('result', named.result)
                                   ELSE '{}' END))
          FROM named
            ON CONFLICT (id) DO NOTHING
        RETURNING queue, priority
    ), told AS MATERIALIZED (
        SELECT pg_notify('pgjobs.jobs', 'queued ' || fresh.priority || ' ' || fresh.queue)
          FROM (SELECT DISTINCT added.queue, added.priority FROM added) AS fresh
         WHERE EXISTS (SELECT FROM pgjobs.idlers AS idler
                        WHERE idler.queue IN (fresh.queue, '*') AND idler.seen_at > now() - interval '15 seconds')
    )
    SELECT count(*)
      FROM added
      CROSS JOIN (SELECT count(*) FROM told) AS told
$$;

-- As before, but a key whose period is over is free.
-- Enqueues one job from SQL. What is not given is as the task says, if a worker has published it, else as usual; a timeout of
-- NULL is no limit. delay and run_at exclude each other; a job that is due later waits as scheduled.
-- Where unique_key is taken, the id of its job is returned, unless that has ended and kept it for long enough. options are as the
-- column holds them, with durations in seconds.
-- Raises invalid_parameter_value (22023) where something cannot be meant, or the arguments do not fit the task.
-- Locks: the key; it waits for a transaction that has enqueued the same one. Beyond it the job that has to give it up, skipping.
CREATE OR REPLACE FUNCTION pgjobs.enqueue(
    task text,
    args jsonb DEFAULT '{}',
    queue text DEFAULT NULL,
    priority integer DEFAULT NULL,
    delay interval DEFAULT NULL,
    run_at timestamptz DEFAULT NULL,
    ttl interval DEFAULT NULL,
    timeout interval DEFAULT '0',
    max_attempts integer DEFAULT NULL,
    unique_key text DEFAULT NULL,
    meta jsonb DEFAULT NULL,
    options jsonb DEFAULT NULL
) RETURNS uuid
LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
DECLARE
    known pgjobs.tasks;
    problem text;
    due timestamptz := coalesce(enqueue.run_at, clock_timestamp() + enqueue.delay);
    later boolean := coalesce(due > clock_timestamp(), false);
    deadline interval;
    job pgjobs.jobs;
BEGIN
    problem := pgjobs.flaw(enqueue.task, enqueue.args, enqueue.queue, enqueue.priority, enqueue.delay, enqueue.ttl,
                           enqueue.timeout, enqueue.max_attempts, enqueue.meta, enqueue.options);
    IF problem IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = problem;
    END IF;
    deadline := (enqueue.options->>'deadline')::float8 * interval '1 second';
    SELECT * INTO known FROM pgjobs.tasks WHERE name = enqueue.task;
    problem := pgjobs.misfit(enqueue.args, known.schema);
    IF problem IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('task %s: %s', enqueue.task, problem),
            HINT = format('its arguments are %s', known.schema->'properties');
    END IF;
    IF enqueue.run_at IS NOT NULL AND enqueue.delay IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'delay and run_at are both given; give one of them';
    END IF;
    FOR try IN 1..3 LOOP
        INSERT INTO pgjobs.jobs AS new (task, args, queue, priority, status, position, run_at, due_at, expires_at, timeout,
                                        max_attempts, unique_key, meta, options)
        VALUES (enqueue.task, enqueue.args, coalesce(enqueue.queue, known.queue, 'default'),
                coalesce(enqueue.priority, known.priority, 0),
                CASE WHEN later THEN 'scheduled' ELSE 'queued' END,
                CASE WHEN later THEN NULL ELSE nextval('pgjobs.positions') END,
                due, CASE WHEN later THEN due END, clock_timestamp() + least(enqueue.ttl, deadline),
                CASE WHEN enqueue.timeout IS DISTINCT FROM '0' THEN enqueue.timeout
                     WHEN known.name IS NULL THEN '1 hour' ELSE known.timeout END,
                coalesce(enqueue.max_attempts, known.max_attempts, 5), enqueue.unique_key, enqueue.meta, enqueue.options)
            ON CONFLICT (unique_key) WHERE unique_key IS NOT NULL DO NOTHING
        RETURNING new.* INTO job;
        IF FOUND THEN
            IF NOT later AND EXISTS (SELECT FROM pgjobs.idlers AS idler
                                      WHERE idler.queue IN (job.queue, '*')
                                        AND idler.seen_at > now() - interval '15 seconds') THEN
                PERFORM pg_notify('pgjobs.jobs', 'queued ' || job.priority || ' ' || job.queue);
            END IF;
            RETURN job.id;
        END IF;
        WITH over AS MATERIALIZED (
            SELECT jobs.id
              FROM pgjobs.jobs
             WHERE jobs.unique_key = enqueue.unique_key
               AND jobs.status IN ('succeeded', 'failed', 'cancelled', 'expired')
               AND jobs.created_at + interval '1 second' * pgjobs.option_s(jobs.options, 'unique_for') <= now()
               FOR UPDATE SKIP LOCKED
        )
        UPDATE pgjobs.jobs AS held
           SET unique_key = NULL
          FROM over
         WHERE held.id = over.id;
        CONTINUE WHEN FOUND;
        SELECT * INTO job FROM pgjobs.jobs WHERE jobs.unique_key = enqueue.unique_key;
        IF FOUND THEN
            RETURN job.id;
        END IF;
    END LOOP;
    RAISE EXCEPTION USING ERRCODE = 'lock_not_available',
        MESSAGE = format('the key %s was taken and freed three times; enqueue the job again', enqueue.unique_key);
END
$$;

-- Of rows that are there, no constraint would do: it is looked at whenever one is written, so that a row from before would fail with
-- its next change, and its neighbours with it. A trigger looks at new ones alone; AFTER, so that COPY goes on in batches.
CREATE TRIGGER check_queue AFTER INSERT ON pgjobs.jobs
    FOR EACH ROW WHEN (length(NEW.queue) NOT BETWEEN 1 AND 100) EXECUTE FUNCTION pgjobs.check_queue();

COMMENT ON TABLE pgjobs.alembic_version IS 'works with releases of revision 0003 and later';
