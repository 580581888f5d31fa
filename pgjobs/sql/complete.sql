-- name: complete
-- Records successes. A job whose claim has moved on is left alone and is absent from the result; so is one whose row
-- somebody holds. Each is found by primary key, whatever the statistics say of status (a plain join scanned the table when
-- they said that nothing runs: 170 ms instead of 5), and written where it was locked, by ctid. A row that changed between
-- the snapshot and the lock is not written: it is sent again. Only what differs is written, and no indexed column, so the
-- update is HOT, but for a job that gives its unique key up. The rollup is part of it and so always agrees with the ledger. With the ids come the channels of those
-- who wait for results: whoever's row this snapshot does not see reads the job after it has written it. What attempts in
-- processes of their own have used and written comes with it; both arrays are NULL where no job of the batch has that.
-- Every producer may write to waiters: what NOTIFY would refuse, which would undo the batch, is passed over, as is what is
-- said to have been seen in a time to come, and there is an end to how many are told.
-- Locks: jobs, by id, skipping.
WITH done AS (
    SELECT *
      FROM unnest(%(ids)s::uuid[], %(claims)s::uuid[], %(results)s::text[], %(waits)s::float8[], %(seconds)s::float8[],
                  %(usages)s::text[], %(outputs)s::text[])
               AS done (id, claim_id, result, wait, seconds, usage, output)
), mine AS MATERIALIZED (
    SELECT job.place, done.result, done.wait, done.seconds, done.usage, done.output
      FROM (SELECT * FROM done ORDER BY id) AS done
     CROSS JOIN LATERAL (
         SELECT ctid AS place
           FROM pgjobs.jobs
          WHERE id = done.id AND claim_id = done.claim_id AND status = 'running'
            FOR UPDATE SKIP LOCKED
     ) AS job
), completed AS (
    UPDATE pgjobs.jobs AS job
       SET status = 'succeeded', result = mine.result::jsonb, finished_at = now(),
           usage = mine.usage::jsonb, output = mine.output,
           unique_key = CASE WHEN job.options ? 'unique_for' THEN job.unique_key END,
           started_at = job.started_at + mine.wait * interval '1 second'
      FROM mine
     WHERE job.ctid = mine.place
    RETURNING job.id, job.queue, job.task, mine.seconds
), rolled AS (
    INSERT INTO pgjobs.rollups (minute, queue, task, status, bucket, jobs, seconds)
    SELECT date_trunc('minute', now()), queue, task, 'succeeded',
           pgjobs.duration_bucket(seconds) AS bucket,
           count(*), sum(seconds)
      FROM completed
     GROUP BY queue, task, bucket
)
SELECT id, NULL AS channel FROM completed
UNION ALL
(SELECT NULL, channel
   FROM pgjobs.waiters
  WHERE seen_at BETWEEN now() - interval '30 seconds' AND now() + interval '30 seconds'
    AND octet_length(channel) BETWEEN 1 AND 63
  LIMIT 1000)


-- name: settle
-- Records every other end of an attempt: failed, cancelled, scheduled (a retry or a snooze). refund is 1 where the attempt
-- does not count, crash where a crash does. A job that somebody asked to cancel is cancelled instead of tried again, for the reason that they gave.
-- What failed leaves a failures row. A suspect whose run has ended is none any more. Options may have any shape that SQL has
-- written, so nothing of them is cast.
-- Without a delay a job rests for as long as it has waited, from a second to a minute: by this clock, since a worker's may be
-- wrong by hours.
-- outcome is how the attempt counts in the rollups: failed, retried, snoozed, cancelled.
-- Locks: jobs, by id, skipping.
WITH done AS (
    SELECT *
      FROM unnest(%(ids)s::uuid[], %(claims)s::uuid[], %(statuses)s::text[], %(reasons)s::text[], %(delays)s::float8[],
                  %(refunds)s::smallint[], %(crashes)s::smallint[], %(waits)s::float8[], %(seconds)s::float8[],
                  %(exceptions)s::text[], %(messages)s::text[], %(tracebacks)s::text[], %(fingerprints)s::text[])
               AS done (id, claim_id, status, reason, delay, refund, crash, wait, seconds,
                        exception, message, traceback, fingerprint)
), mine AS MATERIALIZED (
    SELECT done.*, job.place,
           job.attempt AS at_attempt,
           job.cancel_at IS NOT NULL AND done.status IN ('scheduled', 'cancelled') AS asked,
           CASE WHEN done.status = 'scheduled' AND job.cancel_at IS NOT NULL THEN 'cancelled' ELSE done.status END AS ending
      FROM (SELECT * FROM done ORDER BY id) AS done
     CROSS JOIN LATERAL (
         SELECT ctid AS place, attempt, cancel_at
           FROM pgjobs.jobs
          WHERE id = done.id AND claim_id = done.claim_id AND status = 'running'
            FOR UPDATE SKIP LOCKED
     ) AS job
), settled AS (
    UPDATE pgjobs.jobs AS job
       SET status = mine.ending,
           reason = CASE WHEN mine.asked THEN job.reason ELSE mine.reason END,
           due_at = CASE WHEN mine.ending = 'scheduled'
                         THEN clock_timestamp()
                            + coalesce(mine.delay * interval '1 second',
                                       least(greatest(now() - pgjobs.shown(job.created_at), interval '1 second'),
                                             interval '1 minute')) END,
           attempt = job.attempt - mine.refund,
           crashes = job.crashes + mine.crash,
           finished_at = CASE WHEN mine.ending <> 'scheduled' THEN now() END,
           unique_key = CASE WHEN mine.ending = 'scheduled' OR job.options ? 'unique_for' THEN job.unique_key END,
           options = CASE WHEN job.options->'suspect'->'runs' = 'true' THEN job.options - 'suspect' ELSE job.options END,
           started_at = job.started_at + mine.wait * interval '1 second'
      FROM mine
     WHERE job.ctid = mine.place
    RETURNING job.id, job.queue, job.task, mine.seconds,
              CASE WHEN mine.ending <> 'scheduled' THEN mine.ending
                   WHEN mine.exception IS NULL THEN 'snoozed'
                   ELSE 'retried' END AS outcome
), noted AS (
    INSERT INTO pgjobs.failures (job_id, attempt, reason, exception, message, traceback, fingerprint)
    SELECT id, at_attempt, reason, exception, message, traceback, fingerprint
      FROM mine
      JOIN settled USING (id)
     WHERE exception IS NOT NULL
), rolled AS (
    INSERT INTO pgjobs.rollups (minute, queue, task, status, bucket, jobs, seconds)
    SELECT date_trunc('minute', now()), queue, task, outcome,
           pgjobs.duration_bucket(seconds) AS bucket,
           count(*), sum(seconds)
      FROM settled
     GROUP BY queue, task, outcome, bucket
)
SELECT id, NULL AS channel FROM settled
UNION ALL
(SELECT NULL, channel
   FROM pgjobs.waiters
  WHERE seen_at BETWEEN now() - interval '30 seconds' AND now() + interval '30 seconds'
    AND octet_length(channel) BETWEEN 1 AND 63
  LIMIT 1000)


-- name: account
-- Keeps what attempts that did not succeed have used and written, beside their outcomes and in the same transaction; only jobs in
-- processes of their own have that. claim_id stays after an outcome, so a job whose claim has moved on is left alone. One whose row somebody holds is
-- sent again with its outcome. No indexed column: the update is HOT.
-- Locks: jobs, by id, skipping: those of the outcomes, which this transaction holds already.
WITH known AS (
    SELECT * FROM unnest(%(ids)s::uuid[], %(claims)s::uuid[], %(usages)s::text[], %(outputs)s::text[])
                      AS known (id, claim_id, usage, output)
), mine AS MATERIALIZED (
    SELECT job.place, known.usage, known.output
      FROM (SELECT * FROM known ORDER BY id) AS known
     CROSS JOIN LATERAL (
         SELECT ctid AS place
           FROM pgjobs.jobs
          WHERE id = known.id AND claim_id = known.claim_id
            FOR UPDATE SKIP LOCKED
     ) AS job
)
UPDATE pgjobs.jobs AS job
   SET usage = mine.usage::jsonb, output = mine.output
  FROM mine
 WHERE job.ctid = mine.place


-- name: complete_within
-- Records a success in the application's own transaction, with its rollup and its messages; nothing comes back when the claim has moved on.
-- It may wait for whoever holds the row: that is the application's choice, in its own transaction.
-- Locks: the job.
WITH completed AS (
    UPDATE pgjobs.jobs
       SET status = 'succeeded', result = %(result)s::jsonb, finished_at = now(),
           unique_key = CASE WHEN options ? 'unique_for' THEN unique_key END
     WHERE id = %(id)s::uuid AND claim_id = %(claim)s::uuid AND status = 'running'
    RETURNING id, queue, task, started_at, options
), rolled AS (
    INSERT INTO pgjobs.rollups (minute, queue, task, status, bucket, jobs, seconds)
    SELECT date_trunc('minute', now()), queue, task, 'succeeded',
           pgjobs.duration_bucket(%(seconds)s::float8),
           1, %(seconds)s::float8
      FROM completed
), announced AS MATERIALIZED (
    SELECT pgjobs.announce(ARRAY[id])
      FROM completed
     WHERE options ? 'webhook'
)
SELECT id
  FROM completed
  CROSS JOIN (SELECT count(*) FROM announced) AS announced


-- name: standing
-- How jobs stand that a completion did not bring back, by a plain read: still running under the claim means that
-- somebody holds the row; any other status under it, that the completion was recorded before; another claim, that it is lost.
SELECT job.id, asked.claim_id, job.status, job.claim_id = asked.claim_id AS ours
  FROM unnest(%(ids)s::uuid[], %(claims)s::uuid[]) AS asked (id, claim_id)
  JOIN pgjobs.jobs AS job USING (id)


-- name: forget_claims
-- Deletes claims all of whose jobs are confirmed settled.
-- Locks: claims, the worker's own.
DELETE FROM pgjobs.claims
 WHERE id = ANY (%(claims)s::uuid[])


-- name: begin_suspects
-- Says in the rows of suspects that they begin, so that a death of their host tells more of them than of the others.
-- Locks: jobs, by id, skipping.
WITH begins AS (
    SELECT * FROM unnest(%(ids)s::uuid[], %(claims)s::uuid[]) AS begins (id, claim_id) ORDER BY id
), mine AS MATERIALIZED (
    SELECT job.place
      FROM begins
     CROSS JOIN LATERAL (
         SELECT ctid AS place
           FROM pgjobs.jobs
          WHERE id = begins.id AND claim_id = begins.claim_id AND status = 'running'
            FOR UPDATE SKIP LOCKED
     ) AS job
)
UPDATE pgjobs.jobs AS job
   SET options = coalesce(job.options, '{}')
              || jsonb_build_object('suspect', coalesce(job.options->'suspect', '{"of": 1}') || '{"runs": true}')
  FROM mine
 WHERE job.ctid = mine.place
RETURNING job.id, job.claim_id


-- name: release
-- Gives jobs back that shall not run here: to their old place, the attempt not counted. Where away seconds are given they are
-- suspects that wait for their turn: they stay away for so long, and their rows keep the place for then. A clock that was turned
-- back leaves no run_at to come, which a CHECK would refuse. Each job is given back under its own claim alone: a worker may hold
-- one anew whose former run, under another claim, it gives back.
-- Locks: jobs, by id, skipping. What is skipped stays under its claim, to be released again.
WITH held AS (
    SELECT claim.id AS claim_id, held.id, held.position
      FROM pgjobs.claims AS claim
     CROSS JOIN LATERAL unnest(claim.job_ids, claim.positions) AS held (id, position)
     WHERE claim.id = ANY (%(claims)s::uuid[]) AND claim.id || ' ' || held.id = ANY (%(runs)s::text[])
), mine AS MATERIALIZED (
    SELECT job.id, held.position,
           CASE WHEN job.cancel_at IS NOT NULL THEN 'cancelled'
                WHEN EXISTS (SELECT FROM pgjobs.pauses AS pause
                              WHERE pause.kind = 'task' AND pause.name = job.task
                                AND (pause.until IS NULL OR pause.until > clock_timestamp())) THEN 'blocked'
                WHEN %(away)s::float8 IS NOT NULL THEN 'scheduled'
                ELSE 'queued' END AS status
      FROM held
      JOIN pgjobs.jobs AS job USING (id)
     WHERE job.claim_id = held.claim_id AND job.status = 'running'
     ORDER BY job.id
       FOR UPDATE OF job SKIP LOCKED
), released AS (
    UPDATE pgjobs.jobs AS job
       SET status = mine.status,
           position = CASE WHEN mine.status = 'queued' THEN mine.position END,
           due_at = CASE WHEN mine.status = 'scheduled' THEN clock_timestamp() + %(away)s::float8 * interval '1 second' END,
           reason = CASE mine.status WHEN 'blocked' THEN 'paused' WHEN 'scheduled' THEN 'waits to run apart' ELSE job.reason END,
           unique_key = CASE WHEN job.cancel_at IS NULL OR job.options ? 'unique_for' THEN job.unique_key END,
           finished_at = CASE WHEN job.cancel_at IS NULL THEN NULL ELSE now() END,
           attempt = greatest(job.attempt - 1, 0),
           run_at = CASE WHEN job.run_at > now() THEN now() ELSE job.run_at END,
           options = CASE WHEN mine.status = 'scheduled'
                          THEN coalesce(job.options, '{}')
                            || jsonb_build_object('suspect', jsonb_build_object(
                                   'of', coalesce(job.options->'suspect'->'of', '1'), 'place', mine.position))
                          WHEN job.options->'suspect'->'runs' IS NULL THEN job.options
                          ELSE job.options #- '{suspect,runs}' END,
           claim_id = NULL,
           started_at = NULL
      FROM mine
     WHERE job.id = mine.id
    RETURNING job.id, job.queue, job.task, job.priority, job.position, job.status, job.options,
              mine.position AS old_position
), parked AS (
    INSERT INTO pgjobs.holds AS hold (job_id, kind, name, position)
    SELECT id, 'task', task, old_position
      FROM released
     WHERE status = 'blocked'
        ON CONFLICT (job_id) DO UPDATE
       SET kind = excluded.kind, name = excluded.name, position = excluded.position, due_at = NULL, held_at = now()
), rolled AS (
    INSERT INTO pgjobs.rollups (minute, queue, task, status, bucket, jobs, seconds)
    SELECT date_trunc('minute', now()), queue, task, 'cancelled', 0, count(*), 0
      FROM released
     WHERE status = 'cancelled'
     GROUP BY queue, task
), told AS MATERIALIZED (
    SELECT pg_notify('pgjobs.jobs', 'restored ' || priority || ' ' || min(position) || ' ' || queue)
      FROM released
     WHERE position IS NOT NULL
     GROUP BY queue, priority
), announced AS MATERIALIZED (
    SELECT pgjobs.announce(array_agg(id))
      FROM released
     WHERE status = 'cancelled' AND options ? 'webhook'
    HAVING count(*) > 0
)
SELECT id
  FROM released
  CROSS JOIN (SELECT count(*) FROM told) AS told
  CROSS JOIN (SELECT count(*) FROM announced) AS announced
