-- name: take_duty
-- Takes the most overdue of some duties, for the length of this transaction, and says when it ran last.
-- A next_at more than two intervals ahead counts as due: a failover may have turned the clock back.
-- Locks: one row of duties, skipping.
WITH due AS MATERIALIZED (
    SELECT name, ran_at, state
      FROM pgjobs.duties
     WHERE name = ANY (%(names)s::text[])
       AND (next_at <= clock_timestamp() OR next_at > clock_timestamp() + 2 * every)
     ORDER BY next_at
     LIMIT 1
       FOR UPDATE SKIP LOCKED
)
UPDATE pgjobs.duties AS duty
   SET next_at = clock_timestamp() + duty.every, ran_at = clock_timestamp(), holder = %(worker)s::uuid
  FROM due
 WHERE duty.name = due.name
RETURNING duty.name, due.ran_at, due.state,
          coalesce(due.ran_at < clock_timestamp() - interval '3 seconds', true)
              OR due.ran_at < pg_postmaster_start_time() AS interrupted


-- name: leave_duty
-- Stores what a duty wants to remember, and when it wants to go on.
-- Locks: the row of duties that this transaction holds.
UPDATE pgjobs.duties
   SET state = %(state)s::jsonb,
       next_at = CASE WHEN %(again)s::bool THEN clock_timestamp() ELSE next_at END
 WHERE name = %(name)s::text


-- name: put_off_duty
-- Says that a duty was tried, though it has failed and nothing of it is kept. What was remembered stays.
-- Locks: one row of duties, skipping: whoever holds it is trying.
WITH failed AS MATERIALIZED (
    SELECT name
      FROM pgjobs.duties
     WHERE name = %(name)s::text
       FOR UPDATE SKIP LOCKED
)
UPDATE pgjobs.duties AS duty
   SET next_at = clock_timestamp() + duty.every
  FROM failed
 WHERE duty.name = failed.name


-- name: add_duty
-- Makes a duty that no migration has made, if nobody has yet.
INSERT INTO pgjobs.duties (name, every)
VALUES (%(name)s::text, %(every)s::float8 * interval '1 second')
ON CONFLICT (name) DO NOTHING
RETURNING name


-- name: duty_state
-- What a duty remembers, whoever does it: no row where there is no such duty.
SELECT state
  FROM pgjobs.duties
 WHERE name = %(name)s::text


-- name: promote
-- Queues jobs whose time has come, oldest first, and tells those who wait on their queues. Where back seconds are given, jobs
-- that have been due for longer are left to another call: under an old snapshot their dead index entries are many.
-- A run_at that is still to come (due_at was brought forward by hand, or the clock was turned back) is past with it: a CHECK
-- would refuse the row, and with it all the others.
-- A suspect that was away returns to the place that its row keeps, so that it does not go behind all that was enqueued since: one
-- that was drawn, since SQL may write any.
-- now(), because an index serves no comparison with clock_timestamp(), which is volatile.
-- Locks: jobs, by due time, skipping.
WITH due AS MATERIALIZED (
    SELECT id, due_at,
           CASE WHEN reason = 'waits to run apart' AND options #>> '{suspect,place}' ~ '^-?[0-9]{1,18}$'
                THEN (options #>> '{suspect,place}')::bigint END AS kept
      FROM pgjobs.jobs
     WHERE due_at IS NOT NULL AND due_at <= now()
       AND due_at >= coalesce(now() - %(back)s::float8 * interval '1 second', '-infinity')
     ORDER BY due_at
     LIMIT 1000
       FOR UPDATE SKIP LOCKED
), place AS MATERIALIZED (
    SELECT id, returns, CASE WHEN returns THEN kept ELSE nextval('pgjobs.positions') END AS position
      FROM (SELECT id, kept, kept IS NOT NULL AND abs(kept) <= (SELECT last_value FROM pgjobs.positions) AS returns
              FROM due
             ORDER BY due_at, id
            OFFSET 0) AS due
), promoted AS (
    UPDATE pgjobs.jobs AS job
       SET status = 'queued', position = place.position, due_at = NULL,
           run_at = CASE WHEN job.run_at > now() THEN now() ELSE job.run_at END,
           options = CASE WHEN place.returns THEN job.options #- '{suspect,place}' ELSE job.options END
      FROM place
     WHERE job.id = place.id
    RETURNING job.queue, job.priority, job.position, place.returns
), told AS MATERIALIZED (
    SELECT pg_notify('pgjobs.jobs', 'queued ' || priority || ' ' || queue)
      FROM (SELECT DISTINCT queue, priority FROM promoted WHERE NOT returns) AS fresh
     WHERE EXISTS (SELECT FROM pgjobs.idlers AS idler
                    WHERE idler.queue IN (fresh.queue, '*') AND idler.seen_at > now() - interval '15 seconds')
     UNION ALL
    SELECT pg_notify('pgjobs.jobs', 'restored ' || priority || ' ' || min(position) || ' ' || queue)
      FROM promoted
     WHERE returns
     GROUP BY queue, priority
)
SELECT count(*) AS promoted
  FROM promoted
  CROSS JOIN (SELECT count(*) FROM told) AS told


-- name: next_due
-- Seconds until the next scheduled job is due; NULL if there is none. Looks back as promote does. Not the difference of the two
-- instants: SQL may write infinity, from which PostgreSQL before 17 subtracts nothing.
SELECT (extract(epoch FROM min(due_at)) - extract(epoch FROM clock_timestamp()))::float8
  FROM pgjobs.jobs
 WHERE due_at IS NOT NULL
   AND due_at >= coalesce(now() - %(back)s::float8 * interval '1 second', '-infinity')


-- name: mark_silent
-- Counts a miss for every worker whose beat has not moved; after seven it is dead. Where the counting was interrupted
-- (no reaper ran, the server was away) it starts again, so that an outage reaps nobody.
-- Locks: workers, skipping: a row that is being beaten lives.
WITH silent AS MATERIALIZED (
    SELECT id
      FROM pgjobs.workers
     WHERE dead_at IS NULL
       AND (seen_at < clock_timestamp() - interval '4 seconds' OR seen_at > clock_timestamp() + interval '4 seconds')
     ORDER BY id
       FOR UPDATE SKIP LOCKED
)
UPDATE pgjobs.workers AS worker
   SET misses = CASE WHEN worker.beat = worker.missed_beat AND NOT %(interrupted)s::bool THEN worker.misses + 1 ELSE 1 END,
       missed_beat = worker.beat,
       dead_at = CASE WHEN worker.beat = worker.missed_beat AND worker.misses >= 6 AND NOT %(interrupted)s::bool THEN now() END
  FROM silent
 WHERE worker.id = silent.id
RETURNING worker.id, worker.name, worker.dead_at IS NOT NULL AS dead


-- name: reap
-- Requeues jobs of dead workers, a thousand at most, fenced; the attempt itself is given back. begun are the jobs that had
-- begun: each is charged with a crash, and after max_crashes it fails as poison. Where nobody knows them (begun is NULL),
-- all become suspects, of whom sixteen may run at once. Those whose rows say that they ran in another such death are
-- narrowed down: four at once, then one, and one that ran alone is charged. After a first crash
-- a job returns to its old place, as one does that is not charged; later ones go behind. It leaves its claim, so that the dead worker, should it wake, can tell this from
-- an end that it recorded itself. A clock that was turned back leaves no run_at to come, which a CHECK would refuse.
-- Locks: jobs, by id, skipping: what somebody holds is found by the next pass.
WITH held AS (
    SELECT claim.id AS claim_id, held.id, held.position
      FROM pgjobs.workers AS worker
      JOIN pgjobs.claims AS claim ON claim.worker_id = worker.id
     CROSS JOIN LATERAL unnest(claim.job_ids, claim.positions) AS held (id, position)
     WHERE worker.dead_at IS NOT NULL
       AND (%(workers)s::uuid[] IS NULL OR worker.id = ANY (%(workers)s::uuid[]))
), mine AS MATERIALIZED (
    SELECT job.id, held.position, job.cancel_at IS NOT NULL AS cancelled, job.crashes AS crashes_before, charge.crash,
           CASE WHEN suspect.ran THEN greatest(suspect.among / 4, 1)
                WHEN %(begun)s::uuid[] IS NULL THEN coalesce(suspect.among, 16) END AS among,
           job.crashes + charge.crash >= %(max_crashes)s::int AS poison
      FROM (SELECT * FROM held ORDER BY id) AS held
     CROSS JOIN LATERAL (
         SELECT id, cancel_at, crashes, options
           FROM pgjobs.jobs
          WHERE id = held.id AND claim_id = held.claim_id AND status = 'running'
            FOR UPDATE SKIP LOCKED
     ) AS job
     CROSS JOIN LATERAL (
         SELECT CASE WHEN jsonb_typeof(job.options->'suspect'->'of') = 'number'
                     THEN least(greatest((job.options->'suspect'->'of')::numeric, 1), 16)::int END AS among,
                coalesce(job.options->'suspect'->'runs' = 'true', false) AS ran
     ) AS suspect
     CROSS JOIN LATERAL (
         SELECT CASE WHEN job.id = ANY (%(begun)s::uuid[]) THEN 1
                     WHEN %(begun)s::uuid[] IS NULL AND suspect.ran AND suspect.among = 1 THEN 1
                     ELSE 0 END AS crash
     ) AS charge
     LIMIT 1000
), ending AS (
    SELECT mine.*,
           CASE WHEN cancelled THEN 'cancelled' WHEN poison AND crash = 1 THEN 'failed' ELSE 'queued' END AS status
      FROM mine
), reaped AS (
    UPDATE pgjobs.jobs AS job
       SET status = ending.status,
           position = CASE WHEN ending.status <> 'queued' THEN NULL
                           WHEN ending.crash = 0 OR ending.crashes_before = 0 THEN ending.position
                           ELSE nextval('pgjobs.positions') END,
           reason = CASE WHEN ending.status = 'cancelled' THEN job.reason
                         WHEN ending.status = 'failed' THEN 'poison'
                         WHEN ending.crash = 1 OR %(begun)s::uuid[] IS NULL THEN 'worker lost' END,
           crashes = least(job.crashes, 32766) + ending.crash,
           options = CASE WHEN ending.among IS NULL THEN job.options
                          ELSE coalesce(job.options, '{}')
                            || jsonb_build_object('suspect', jsonb_build_object('of', ending.among)) END,
           attempt = greatest(job.attempt - 1, 0),
           claim_id = NULL,
           run_at = CASE WHEN job.run_at > now() THEN now() ELSE job.run_at END,
           unique_key = CASE WHEN ending.status = 'queued' OR job.options ? 'unique_for' THEN job.unique_key END,
           finished_at = CASE WHEN ending.status <> 'queued' THEN now() END,
           started_at = CASE WHEN ending.status <> 'queued' THEN job.started_at END
      FROM ending
     WHERE job.id = ending.id
    RETURNING job.id, job.queue, job.task, job.priority, job.position, job.status, job.attempt, ending.crash, job.options
), noted AS (
    INSERT INTO pgjobs.failures (job_id, attempt, reason, message)
    SELECT id, attempt + 1, 'worker lost', %(how)s::text
      FROM reaped
     WHERE crash = 1 OR %(begun)s::uuid[] IS NULL
), rolled AS (
    INSERT INTO pgjobs.rollups (minute, queue, task, status, bucket, jobs, seconds)
    SELECT date_trunc('minute', now()), queue, task, status, 0, count(*), 0
      FROM reaped
     WHERE status <> 'queued'
     GROUP BY queue, task, status
), told AS MATERIALIZED (
    SELECT pg_notify('pgjobs.jobs', 'restored ' || priority || ' ' || min(position) || ' ' || queue)
      FROM reaped
     WHERE position IS NOT NULL
     GROUP BY queue, priority
), announced AS MATERIALIZED (
    SELECT pgjobs.announce(array_agg(id))
      FROM reaped
     WHERE status <> 'queued' AND options ? 'webhook'
    HAVING count(*) > 0
)
SELECT reaped.id, reaped.status
  FROM reaped
  CROSS JOIN (SELECT count(*) FROM told) AS told
  CROSS JOIN (SELECT count(*) FROM announced) AS announced


-- name: time_out
-- Ends attempts that were over their timeout where their own worker could not: those of some jobs, which somebody has seen;
-- or, where ids is NULL, those that have run 15 seconds past it. They count; a retry rests as the policy in the row says, or
-- the default one, since nobody here knows the task's own. A suspect whose run has ended is none any more. SQL may
-- have written a timeout that no moment can be made of; none at all counts as two hundred years here. Each is found by primary key, one after the other: asked for the first thousand by id,
-- the planner walked through the whole table.
-- Locks: jobs, by id, skipping.
WITH held AS (
    SELECT claim.id AS claim_id, held.id
      FROM pgjobs.claims AS claim
     CROSS JOIN LATERAL unnest(claim.job_ids) AS held (id)
     WHERE %(workers)s::uuid[] IS NULL OR claim.worker_id = ANY (%(workers)s::uuid[])
), mine AS MATERIALIZED (
    SELECT job.id,
           CASE WHEN job.cancel_at IS NOT NULL THEN 'cancelled'
                WHEN job.attempt >= job.max_attempts THEN 'failed'
                ELSE 'scheduled' END AS ending
      FROM (SELECT * FROM held ORDER BY id) AS held
     CROSS JOIN LATERAL (
         SELECT id, cancel_at, attempt, max_attempts
           FROM pgjobs.jobs
          WHERE id = held.id AND claim_id = held.claim_id AND status = 'running'
            AND (id = ANY (%(ids)s::uuid[])
                 OR %(ids)s::uuid[] IS NULL
                    AND least(started_at + greatest(least(timeout, '200 years'), '0'),
                              created_at + interval '1 second' * pgjobs.option_s(options, 'deadline'))
                        + interval '15 seconds' < now())
            FOR UPDATE SKIP LOCKED
     ) AS job
     LIMIT 1000
), ended AS (
    UPDATE pgjobs.jobs AS job
       SET status = mine.ending,
           reason = CASE mine.ending WHEN 'cancelled' THEN job.reason ELSE 'timeout' END,
           due_at = CASE WHEN mine.ending = 'scheduled'
                         THEN now() + pgjobs.rest_s(job.options, greatest(job.attempt, 1)) * interval '1 second' END,
           finished_at = CASE WHEN mine.ending <> 'scheduled' THEN now() END,
           unique_key = CASE WHEN mine.ending = 'scheduled' OR job.options ? 'unique_for' THEN job.unique_key END,
           options = CASE WHEN job.options->'suspect'->'runs' = 'true' THEN job.options - 'suspect' ELSE job.options END,
           claim_id = NULL
      FROM mine
     WHERE job.id = mine.id
    RETURNING job.id, job.queue, job.task, job.attempt, job.status, job.options,
              extract(epoch FROM now() - job.started_at)::float8 AS seconds
), noted AS (
    INSERT INTO pgjobs.failures (job_id, attempt, reason, message)
    SELECT id, attempt, 'timeout', 'the attempt ran longer than its timeout, and its worker could not stop it'
      FROM ended
), rolled AS (
    INSERT INTO pgjobs.rollups (minute, queue, task, status, bucket, jobs, seconds)
    SELECT date_trunc('minute', now()), queue, task,
           CASE status WHEN 'scheduled' THEN 'retried' ELSE status END AS outcome,
           pgjobs.duration_bucket(seconds) AS bucket,
           count(*), sum(seconds)
      FROM ended
     GROUP BY queue, task, outcome, bucket
), announced AS MATERIALIZED (
    SELECT pgjobs.announce(array_agg(id))
      FROM ended
     WHERE status <> 'scheduled' AND options ? 'webhook'
    HAVING count(*) > 0
)
SELECT id, status
  FROM ended
  CROSS JOIN (SELECT count(*) FROM announced) AS announced


-- name: forget_dead_claims
-- Deletes claims of dead workers under which no job runs any more. Never in one statement with reap: a job whose row an
-- application held, and then rolled back, would be under no claim at all.
-- Locks: claims, by id, skipping.
WITH empty AS MATERIALIZED (
    SELECT claim.id
      FROM pgjobs.workers AS worker
      JOIN pgjobs.claims AS claim ON claim.worker_id = worker.id
     WHERE worker.dead_at IS NOT NULL
       AND NOT EXISTS (SELECT FROM pgjobs.jobs AS job
                        WHERE job.id = ANY (claim.job_ids) AND job.claim_id = claim.id AND job.status = 'running')
     ORDER BY claim.id
       FOR UPDATE OF claim SKIP LOCKED
)
DELETE FROM pgjobs.claims AS claim
 USING empty
 WHERE claim.id = empty.id
RETURNING claim.id


-- name: expire
-- Ends waiting jobs whose ttl or deadline has passed, whether or not anybody subscribes to their queue, as they ask for:
-- expired, or failed with a failures row. Walks the index from since on; entries of jobs that ended before are passed over.
-- Returns how many have ended, and of those that failed what a claim would return. Their messages are enqueued with it.
-- Their options may be anything.
-- Locks: jobs, by expiry, skipping; then their holds.
WITH late AS MATERIALIZED (
    SELECT id,
           coalesce(options->>'on_expiry' = 'fail', false) AS fails,
           coalesce(expires_at >= created_at + interval '1 second' * (pgjobs.option_s(options, 'deadline') - 0.001),
                    false) AS over
      FROM pgjobs.jobs
     WHERE expires_at IS NOT NULL
       AND expires_at > %(since)s::timestamptz AND expires_at <= now()
       AND status IN ('queued', 'scheduled', 'blocked')
     ORDER BY expires_at
     LIMIT 1000
       FOR UPDATE SKIP LOCKED
), expired AS (
    UPDATE pgjobs.jobs AS job
       SET status = CASE WHEN late.fails OR late.over THEN 'failed' ELSE 'expired' END,
           position = NULL, due_at = NULL, finished_at = now(),
           unique_key = CASE WHEN job.options ? 'unique_for' THEN job.unique_key END,
           reason = CASE WHEN late.over THEN 'deadline passed' ELSE 'ttl passed' END
      FROM late
     WHERE job.id = late.id
    RETURNING job.*
), noted AS (
    INSERT INTO pgjobs.failures (job_id, attempt, reason, message)
    SELECT id, attempt, reason, 'the job had not started in time'
      FROM expired
     WHERE status = 'failed'
), freed AS (
    DELETE FROM pgjobs.holds
     WHERE job_id = ANY (ARRAY (SELECT id FROM expired))
), rolled AS (
    INSERT INTO pgjobs.rollups (minute, queue, task, status, bucket, jobs, seconds)
    SELECT date_trunc('minute', now()), queue, task, status, 0, count(*), 0
      FROM expired
     GROUP BY queue, task, status
), announced AS MATERIALIZED (
    SELECT pgjobs.announce(array_agg(id))
      FROM expired
     WHERE options ? 'webhook'
    HAVING count(*) > 0
)
SELECT (SELECT count(*) FROM expired) AS ended,
       id, task, queue, priority, attempt, max_attempts, crashes,
       extract(epoch FROM timeout)::float8 AS timeout_s, pgjobs.shown(created_at) AS created_at, args, meta, options, reason
  FROM (SELECT count(*) FROM announced) AS always
  LEFT JOIN expired ON status = 'failed'


-- name: prune
-- Deletes ended jobs past their retention, with their failures, log lines and files: walks up to 1,000 ids after a cursor, up to the age of keep
-- seconds, and says where it stopped and whether there is more. Ids are time-ordered, so no index on a time is needed.
-- A keep that SQL has written may be anything: what is no number counts as absent, and a hundred years are the most.
-- It stops before a young job that is to go soon after its end (options.keeps) and is not yet to go, for it comes by once.
-- Locks: jobs, by id, skipping.
WITH edge AS (
    SELECT (substr(hex, 1, 8) || '-' || substr(hex, 9, 4) || '-7000-8000-000000000000')::uuid AS id
      FROM lpad(to_hex((extract(epoch FROM now() - %(age)s::float8 * interval '1 second') * 1000)::bigint), 12, '0') AS hex
), passed AS MATERIALIZED (
    SELECT id, status, finished_at, own,
           CASE WHEN jsonb_typeof(options->'keep') = 'number'
                THEN least(greatest((options->'keep')::numeric, 0), 3153600000)::float8 END AS keep,
           %(age)s::float8 < 600 AND options ? 'keeps' AND created_at > now() - interval '10 minutes'
           AND (finished_at IS NULL OR finished_at > now() - own * interval '1 second' AND own <= %(age)s::float8) AS waits
      FROM pgjobs.jobs
     CROSS JOIN LATERAL (
         SELECT CASE WHEN jsonb_typeof(options->'keeps'->status) = 'number'
                     THEN least(greatest((options->'keeps'->status)::numeric, 0), 3153600000)::float8 END AS own
     ) AS said
     WHERE id > %(after)s::uuid AND id < (SELECT id FROM edge)
     ORDER BY id
     LIMIT 1000
), walked AS MATERIALIZED (
    SELECT *
      FROM passed
     WHERE id < coalesce((SELECT id FROM passed WHERE waits ORDER BY id LIMIT 1), 'ffffffff-ffff-ffff-ffff-ffffffffffff')
), old AS MATERIALIZED (
    SELECT job.id
      FROM walked
      JOIN pgjobs.jobs AS job USING (id)
     WHERE walked.status IN ('succeeded', 'failed', 'cancelled', 'expired')
       AND job.finished_at = walked.finished_at
       AND walked.finished_at <= now() - interval '1 second' * CASE
               WHEN walked.own IS NOT NULL THEN walked.own
               WHEN walked.status = 'failed' THEN greatest(%(failed_ttl)s::float8, walked.keep)
               ELSE coalesce(walked.keep, %(result_ttl)s::float8) END
     ORDER BY job.id
       FOR UPDATE OF job SKIP LOCKED
), pruned AS (
    DELETE FROM pgjobs.jobs
     WHERE id = ANY (ARRAY (SELECT id FROM old))
    RETURNING id
), forgotten AS (
    DELETE FROM pgjobs.failures
     WHERE job_id = ANY (ARRAY (SELECT id FROM pruned))
), unlogged AS (
    DELETE FROM pgjobs.logs
     WHERE job_id = ANY (ARRAY (SELECT id FROM pruned))
), emptied AS (
    DELETE FROM pgjobs.files
     WHERE job_id = ANY (ARRAY (SELECT id FROM pruned))
), freed AS (
    DELETE FROM pgjobs.holds
     WHERE job_id = ANY (ARRAY (SELECT id FROM pruned))
)
SELECT (SELECT id FROM walked ORDER BY id DESC LIMIT 1) AS reached,
       (SELECT count(*) FROM walked) = 1000 AS more,
       (SELECT count(*) FROM pruned) AS pruned


-- name: roll_up
-- Merges the rollup rows of the last few minutes, so that a minute has one row for each queue, task, status and bucket.
-- Locks: rollups, skipping.
WITH old AS MATERIALIZED (
    SELECT ctid
      FROM pgjobs.rollups
     WHERE minute >= now() - interval '5 minutes' AND minute < date_trunc('minute', now()) - interval '1 minute'
     LIMIT 10000
       FOR UPDATE SKIP LOCKED
), taken AS (
    DELETE FROM pgjobs.rollups
     WHERE ctid = ANY (ARRAY (SELECT ctid FROM old))
    RETURNING minute, queue, task, status, bucket, jobs, seconds
)
INSERT INTO pgjobs.rollups (minute, queue, task, status, bucket, jobs, seconds)
SELECT minute, queue, task, status, bucket, sum(jobs), sum(seconds)
  FROM taken
 GROUP BY minute, queue, task, status, bucket


-- name: coarsen
-- Merges rollup rows that are older than an age, those of 24 hours, or days, from a cursor on, so that what is summed over years
-- stays small: minutes become hours, and hours days (of UTC). Returns where the next ones begin; nothing when all is done. To do
-- it twice changes nothing. Nobody else writes there: completions count in the minute of their transaction.
-- Locks: rollups of that time.
WITH old AS MATERIALIZED (
    SELECT date_trunc(%(unit)s::text, now() - %(age)s::float8 * interval '1 second', 'UTC') AS before
), span AS MATERIALIZED (
    SELECT min(rollup.minute) AS first,
           least(date_trunc(%(unit)s::text, min(rollup.minute), 'UTC') + 24 * ('1 ' || %(unit)s::text)::interval,
                 min(old.before)) AS next
      FROM old
      JOIN pgjobs.rollups AS rollup ON rollup.minute < old.before
     WHERE rollup.minute >= coalesce(%(since)s::timestamptz, '-infinity')
), taken AS (
    DELETE FROM pgjobs.rollups
     WHERE minute >= (SELECT first FROM span) AND minute < (SELECT next FROM span)
    RETURNING date_trunc(%(unit)s::text, minute, 'UTC') AS start, queue, task, status, bucket, jobs, seconds
), merged AS (
    INSERT INTO pgjobs.rollups (minute, queue, task, status, bucket, jobs, seconds)
    SELECT start, queue, task, status, bucket, sum(jobs), sum(seconds)
      FROM taken
     GROUP BY start, queue, task, status, bucket
)
SELECT next FROM span WHERE next IS NOT NULL


-- name: tidy
-- Forgets workers dead for an hour under whose name no claim stands, flags of workers that are gone, and waiters not seen
-- for a minute, or seen in a time to come, and the notes of lanes where nothing moves; marks a year old.
-- Locks: rows of workers, idlers, lanes, marks and waiters that nobody uses.
WITH workers AS (
    DELETE FROM pgjobs.workers AS worker
     WHERE dead_at < now() - interval '1 hour'
       AND NOT EXISTS (SELECT FROM pgjobs.claims AS claim WHERE claim.worker_id = worker.id)
), idlers AS (
    DELETE FROM pgjobs.idlers WHERE seen_at < now() - interval '1 minute'
), lanes AS (
    DELETE FROM pgjobs.lanes WHERE noted_at < now() - interval '1 day'
), marks AS (
    DELETE FROM pgjobs.marks WHERE at < now() - interval '1 year'
)
DELETE FROM pgjobs.waiters
 WHERE seen_at NOT BETWEEN now() - interval '1 minute' AND now() + interval '1 minute'
