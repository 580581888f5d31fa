-- Enqueue by SQL refuses what no worker could do anything with, in a sentence that says the remedy.

-- What is wrong with the options of a job, as the column holds them, with durations in seconds; NULL where nothing is.
CREATE FUNCTION pgjobs.flaw_of_options(options jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE
        WHEN option.key <> ALL (known.names) THEN
            format('there is no option %s; there are %s', option.key, array_to_string(known.names, ', '))
        WHEN option.key <> ALL (known.times) THEN NULL
        WHEN jsonb_typeof(option.value) <> 'number' THEN
            format('option %s is %s; give seconds, as a number', option.key, left(option.value::text, 80))
        WHEN option.value::numeric NOT BETWEEN 0 AND 3153600000 THEN
            format('option %s is %s; give seconds, from 0 to a hundred years', option.key, left(option.value::text, 80))
        END AS problem
      FROM jsonb_each(flaw_of_options.options) AS option
      CROSS JOIN (SELECT '{context, deadline, ignore_result, keep, keeps, late, lifo, on_expiry, private, retry, retry_for,
                           soft_timeout, unique_for, unique_until, webhook}'::text[] AS names,
                         '{deadline, keep, late, retry_for, soft_timeout, unique_for}'::text[] AS times) AS known
     ORDER BY problem
     LIMIT 1
$$;

-- What is wrong with what pgjobs.enqueue was given, and the remedy; NULL where nothing is. The names of queues are those that a
-- worker can subscribe to; numbers and times have the bounds that they have everywhere.
CREATE FUNCTION pgjobs.flaw(
    task text, args jsonb, queue text, priority integer, delay interval, ttl interval, timeout interval, max_attempts integer,
    meta jsonb, options jsonb
) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE
        WHEN coalesce(flaw.task, '') = '' THEN
            'the task has no name; give the one under which workers know it'
        WHEN jsonb_typeof(flaw.args) IS DISTINCT FROM 'object' THEN
            format('args is %s; give a JSON object with the arguments by name', coalesce(left(flaw.args::text, 80), 'NULL'))
        WHEN flaw.queue !~ '^[A-Za-z0-9_][A-Za-z0-9_.:/@-]{0,99}$' THEN
            format('queue %L is not a name; use letters, digits and _ . : / @ -, 100 characters at most', left(flaw.queue, 80))
        WHEN flaw.priority NOT BETWEEN -100 AND 100 THEN
            format('priority is %s; give a whole number from -100 to 100, larger runs first', flaw.priority)
        WHEN flaw.max_attempts NOT BETWEEN 1 AND 32767 THEN
            format('max_attempts is %s; give the number of attempts, from 1 (no second one) to 32767', flaw.max_attempts)
        WHEN NOT flaw.delay BETWEEN '0' AND '100 years' THEN
            format('delay is %s; give a length of time, up to 100 years', flaw.delay)
        WHEN NOT flaw.ttl BETWEEN '0' AND '100 years' THEN
            format('ttl is %s; give a length of time, up to 100 years, or NULL for a job that may wait for ever', flaw.ttl)
        WHEN NOT flaw.timeout BETWEEN '0' AND '100 years' THEN
            format('timeout is %s; give a length of time, up to 100 years, or NULL for no limit', flaw.timeout)
        WHEN flaw.meta IS NOT NULL AND jsonb_typeof(flaw.meta) <> 'object' THEN
            format('meta is %s; give a JSON object', left(flaw.meta::text, 80))
        WHEN flaw.options IS NOT NULL AND jsonb_typeof(flaw.options) <> 'object' THEN
            format('options is %s; give a JSON object', left(flaw.options::text, 80))
        WHEN flaw.options IS NOT NULL THEN pgjobs.flaw_of_options(flaw.options)
    END
$$;

-- As before, but it says what is wrong before anything is written.
-- Enqueues one job from SQL. What is not given is as the task says, if a worker has published it, else as usual; a timeout of
-- NULL is no limit. delay and run_at exclude each other; a job that is due later waits as scheduled.
-- Where unique_key is taken, the id of its job is returned. options are as the column holds them, with durations in seconds.
-- Raises invalid_parameter_value (22023) where something cannot be meant, or the arguments do not fit the task.
-- Locks: the key; it waits for a transaction that has enqueued the same one.
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
        SELECT * INTO job FROM pgjobs.jobs WHERE jobs.unique_key = enqueue.unique_key;
        IF FOUND THEN
            RETURN job.id;
        END IF;
    END LOOP;
    RAISE EXCEPTION USING ERRCODE = 'lock_not_available',
        MESSAGE = format('the key %s was taken and freed three times; enqueue the job again', enqueue.unique_key);
END
$$;

COMMENT ON TABLE pgjobs.alembic_version IS 'works with releases of revision 0003 and later';
