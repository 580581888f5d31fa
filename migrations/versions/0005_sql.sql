-- Enqueue by SQL: arguments are checked against what workers have published of their tasks, whose options apply; a trigger, on
-- demand, for rows that are inserted by hand.

-- What workers have published: the tasks that they run, the JSON schema of their arguments, and the options of their jobs.
CREATE TABLE pgjobs.tasks (
    name text NOT NULL,
    queue text NOT NULL,
    priority smallint NOT NULL,
    max_attempts smallint NOT NULL,
    timeout interval,
    schema jsonb NOT NULL,
    doc text,
    published_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT tasks_pkey PRIMARY KEY (name)
);

-- Whether a JSON value has a type that a JSON schema names, itself or in its anyOf; of anything deeper nothing is said.
CREATE FUNCTION pgjobs.has_type(value jsonb, schema jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT coalesce(bool_or(
               type IS NULL
               OR type = jsonb_typeof(has_type.value)
               OR (type = 'integer' AND jsonb_typeof(has_type.value) = 'number' AND has_type.value::text !~ '[.]')), true)
      FROM (SELECT option->>'type' AS type
              FROM jsonb_array_elements(coalesce(has_type.schema->'anyOf', jsonb_build_array(has_type.schema))) AS option
           ) AS options
$$;

-- What is wrong with the arguments of a job, by the schema of its task; NULL where nothing is, or there is no schema.
CREATE FUNCTION pgjobs.misfit(args jsonb, schema jsonb) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT problem
      FROM (
        SELECT 1 AS place, format('argument %s is missing', name) AS problem
          FROM jsonb_array_elements_text(misfit.schema->'required') AS name
         WHERE NOT misfit.args ? name AND NOT misfit.args ? '*'
        UNION ALL
        SELECT 2, format('there is no argument %s', name)
          FROM jsonb_object_keys(misfit.args) AS name
         WHERE misfit.schema->'additionalProperties' = 'false' AND NOT misfit.schema->'properties' ? name AND name <> '*'
        UNION ALL
        SELECT 3, format('argument %s is of type %s', argument.key, jsonb_typeof(argument.value))
          FROM jsonb_each(misfit.args) AS argument
         WHERE NOT pgjobs.has_type(argument.value, misfit.schema->'properties'->argument.key)
      ) AS found
     ORDER BY place, problem
     LIMIT 1
$$;

-- Enqueues one job from SQL. What is not given is as the task says, if a worker has published it, else as usual; a timeout of
-- NULL is no limit. delay and run_at exclude each other; a job that is due later waits as scheduled.
-- Where unique_key is taken, the id of its job is returned. options are as the column holds them, with durations in seconds.
-- Raises invalid_parameter_value (22023) where the arguments do not fit the task.
-- Locks: the key; it waits for a transaction that has enqueued the same one.
DROP FUNCTION pgjobs.enqueue(text, jsonb, text, integer, interval, timestamptz, interval, interval, integer);
CREATE FUNCTION pgjobs.enqueue(
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

-- Tells workers of rows that were inserted by hand. Only where somebody has asked for it: pgjobs's own enqueue tells them itself.
CREATE FUNCTION pgjobs.tell_of_inserted() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('pgjobs.jobs', 'queued ' || lane.priority || ' ' || lane.queue)
       FROM (SELECT DISTINCT inserted.queue, inserted.priority FROM inserted WHERE inserted.position IS NOT NULL) AS lane
      WHERE EXISTS (SELECT FROM pgjobs.idlers AS idler
                     WHERE idler.queue IN (lane.queue, '*') AND idler.seen_at > now() - interval '15 seconds');
    RETURN NULL;
END
$$;

-- Has workers told of rows that are inserted by hand, or no more; for the owner of the schema. Every statement that inserts
-- jobs then looks for idle workers.
-- Locks: jobs, against other changes of its triggers and against writes, for an instant.
CREATE FUNCTION pgjobs.notify_raw_inserts(enabled boolean) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    DROP TRIGGER IF EXISTS tell_of_inserted ON pgjobs.jobs;
    IF enabled THEN
        CREATE TRIGGER tell_of_inserted AFTER INSERT ON pgjobs.jobs
            REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION pgjobs.tell_of_inserted();
    END IF;
END
$$;

-- As before, but options may have any shape that SQL has written.
-- Queues ended jobs again: same rows, new positions, attempts counted anew, failures kept. Returns those that had ended.
-- Locks: jobs, by id; it waits for whoever holds one.
CREATE OR REPLACE FUNCTION pgjobs.retry(ids uuid[])
RETURNS TABLE (id uuid)
LANGUAGE sql VOLATILE AS $$
    WITH target AS MATERIALIZED (
        SELECT job.id
          FROM pgjobs.jobs AS job
         WHERE job.id = ANY (retry.ids) AND job.status IN ('succeeded', 'failed', 'cancelled', 'expired')
         ORDER BY job.id
           FOR UPDATE
    ), changed AS (
        UPDATE pgjobs.jobs AS job
           SET status = 'queued', position = nextval('pgjobs.positions'), attempt = 0, crashes = 0, reason = NULL,
               result = NULL, run_at = NULL, expires_at = NULL, cancel_at = NULL, started_at = NULL, finished_at = NULL,
               claim_id = NULL,
               options = CASE WHEN jsonb_typeof(job.options) = 'object' THEN job.options - 'suspect' ELSE job.options END
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

-- Since PostgreSQL 18 a session keeps the plans of such functions: one made while the table was small scanned it when it was huge.
ALTER FUNCTION pgjobs.cancel(uuid[], text) SET plan_cache_mode = force_custom_plan;
ALTER FUNCTION pgjobs.retry(uuid[]) SET plan_cache_mode = force_custom_plan;
ALTER FUNCTION pgjobs.delete(uuid[]) SET plan_cache_mode = force_custom_plan;

COMMENT ON TABLE pgjobs.alembic_version IS 'works with releases of revision 0003 and later';
