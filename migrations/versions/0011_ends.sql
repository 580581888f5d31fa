-- Messages of jobs that end without a worker's completion, moments that every client can hold, and failures by what they have in
-- common.

-- Enqueues the messages that jobs send when they have ended, of those of these jobs that ended in this transaction and have such;
-- returns how many are new. A message's id is made of its job, the attempt and the place among its hooks, so that asking twice
-- sends one; it carries the time of the job's own id, since retention walks ids by their time. It waits in the job's queue, which
-- somebody serves. What SQL has written for a hook and is none is passed over.
-- It has the rights of the schema's owner, since those who cancel jobs may enqueue none; who may end no job gets nothing enqueued.
-- Locks: none beyond the new rows.
CREATE FUNCTION pgjobs.announce(ids uuid[]) RETURNS bigint
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
        SELECT named.message_id, 'pgjobs' || '.webhook', named.queue, named.priority, 12, interval '1 minute',
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

-- As before, and what it has cancelled sends its messages. In one statement with the change, the function sees it, since it is
-- volatile and what it is given has been read to the end.
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


-- A moment as every client can hold it: SQL may write infinity, and years that other languages do not have. What lies beyond is
-- the second day of the year 1, or the last but one of the year 9999, which no time zone carries over the edge.
CREATE FUNCTION pgjobs.shown(moment timestamptz) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN moment > timestamptz '9999-12-30 00:00:00+00' THEN timestamptz '9999-12-30 00:00:00+00'
                WHEN moment < timestamptz '0001-01-02 00:00:00+00' THEN timestamptz '0001-01-02 00:00:00+00'
                ELSE moment END
$$;

-- For how many seconds a job rests after an attempt whose worker cannot say so: by the policy in its options, which may be anything
-- that SQL has written, else by the default one. The policies of tasks are in code alone.
CREATE FUNCTION pgjobs.rest_s(options jsonb, attempt integer) RETURNS double precision
LANGUAGE sql VOLATILE AS $$
    WITH policy AS (
        SELECT CASE jsonb_typeof(rest_s.options->'retry'->'backoff')
                    WHEN 'array'
                    THEN pgjobs.option_s(jsonb_build_object(
                             'rest', rest_s.options->'retry'->'backoff'
                                     ->(least(rest_s.attempt, jsonb_array_length(rest_s.options->'retry'->'backoff')) - 1)),
                             'rest')
                    ELSE pgjobs.option_s(rest_s.options->'retry', 'backoff')
                       * CASE WHEN rest_s.options->'retry'->>'growth' = 'linear' THEN rest_s.attempt
                              ELSE 2.0::float8 ^ least(rest_s.attempt - 1, 60) END END AS rest,
               pgjobs.option_s(rest_s.options->'retry', 'cap') AS cap,
               rest_s.options->'retry'->'jitter' = 'false' AS exact
    )
    SELECT least(coalesce(policy.rest, 5 * 2.0::float8 ^ least(rest_s.attempt - 1, 12)), coalesce(policy.cap, 3600))
         * CASE WHEN policy.exact THEN 1 ELSE random() END
      FROM policy
$$;

-- Failures that have something in common lie together; of equal keys one is stored, so an entry takes some ten bytes.
CREATE INDEX failures_alike ON pgjobs.failures ((coalesce(fingerprint, reason)));

COMMENT ON VIEW pgjobs.failed_by_fingerprint IS
    'Failed attempts by where they failed and with what. With a condition on fingerprint it reads those alone, without one all failures that are kept.';

COMMENT ON TABLE pgjobs.alembic_version IS 'works with releases of revision 0003 and later';
