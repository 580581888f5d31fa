-- name: announce
-- Enqueues the messages that jobs send when they have ended, of those of these jobs that have; run it in the transaction that ends
-- them, or after it. A message's id is made of its job, the attempt and the place among its hooks, so that asking twice sends one; it
-- carries the time of the job's own id, since retention walks ids by their time. It waits in the job's queue, which somebody
-- serves. What SQL has written for a hook and is none is passed over.
-- Locks: none beyond the new rows.
WITH ended AS (
    SELECT job.id, job.task, job.queue, job.priority, job.status, job.attempt, job.reason, job.result, job.meta,
           job.created_at, job.started_at, job.finished_at, hook.value AS hook, hook.place
      FROM pgjobs.jobs AS job
     CROSS JOIN LATERAL jsonb_path_query(job.options, 'lax $.webhook[*] ? (@.url.type() == "string")')
                        WITH ORDINALITY AS hook (value, place)
     WHERE job.id = ANY (%(ids)s::uuid[])
       AND job.status IN ('succeeded', 'failed', 'cancelled', 'expired')
       AND (NOT hook.value ? 'on' OR hook.value->'on' ? job.status)
), message AS (
    SELECT ended.*, md5(concat_ws(' ', ended.id, ended.attempt, ended.status, ended.finished_at, ended.place)) AS hash
      FROM ended
), named AS (
    SELECT message.*,
           (left(replace(id::text, '-', ''), 12) || '7' || left(hash, 3) || '8' || right(hash, 15))::uuid AS message_id
      FROM message
), added AS (
    INSERT INTO pgjobs.jobs (id, task, queue, priority, max_attempts, timeout, args)
    SELECT message_id, 'pgjobs.webhook', queue, priority, %(max_attempts)s::smallint, interval '1 minute',
           jsonb_build_object(
               'id', message_id,
               'url', hook->'url',
               'body', jsonb_build_object(
                   'type', 'job.' || status,
                   'timestamp', finished_at,
                   'data', jsonb_build_object(
                       'id', id, 'task', task, 'queue', queue, 'status', status, 'attempt', attempt, 'reason', reason,
                       'meta', meta, 'created_at', created_at, 'started_at', started_at, 'finished_at', finished_at)
                       || CASE WHEN hook->'result' = 'true' THEN jsonb_build_object('result', result) ELSE '{}' END))
      FROM named
        ON CONFLICT (id) DO NOTHING
    RETURNING queue, priority
), told AS MATERIALIZED (
    SELECT pg_notify('pgjobs.jobs', 'queued ' || priority || ' ' || queue)
      FROM (SELECT DISTINCT queue, priority FROM added) AS fresh
     WHERE EXISTS (SELECT FROM pgjobs.idlers AS idler
                    WHERE idler.queue IN (fresh.queue, '*') AND idler.seen_at > now() - interval '15 seconds')
)
SELECT count(*)
  FROM added
  CROSS JOIN (SELECT count(*) FROM told) AS told
