-- As it was: what SQL enqueues is checked by the constraints of the table, and its arguments by the schema of its task.

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
    deadline interval := (enqueue.options->>'deadline')::float8 * interval '1 second';
    job pgjobs.jobs;
BEGIN
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

DROP FUNCTION pgjobs.flaw(text, jsonb, text, integer, interval, interval, interval, integer, jsonb, jsonb);
DROP FUNCTION pgjobs.flaw_of_options(jsonb);

COMMENT ON TABLE pgjobs.alembic_version IS 'works with releases of revision 0003 and later';
