-- name: read_only
-- Lets the transaction that has just begun write nothing.
SET TRANSACTION READ ONLY


-- name: note_action
-- Begins a line of the audit: who does what to which jobs. The database's own name for them, and what they are called outside.
-- Locks: none beyond the new row.
INSERT INTO pgjobs.audit (actor, action, selection)
VALUES (session_user || ' (' || %(actor)s::text || ')', %(action)s::text, %(selection)s::jsonb)
RETURNING id


-- name: count_action
-- Adds to a line of the audit the jobs that this transaction has changed.
-- Locks: that line.
UPDATE pgjobs.audit
   SET jobs = jobs + %(jobs)s::bigint
 WHERE id = %(id)s::bigint
RETURNING jobs


-- name: failures_alike
-- Failed attempts by what they have in common, the latest first.
SELECT fingerprint, task, exception, message, attempts, jobs, failed, first_at, last_at
  FROM pgjobs.failed_by_fingerprint
 WHERE (%(task)s::text IS NULL OR task = %(task)s::text)
   AND (%(fingerprint)s::text IS NULL OR fingerprint = %(fingerprint)s::text)
   AND (%(since)s::float8 IS NULL OR last_at >= now() - %(since)s::float8 * interval '1 second')
 ORDER BY last_at DESC, fingerprint, task
 LIMIT %(limit)s::int


-- name: lately_alike
-- The last so many failed attempts by what they have in common, as failed_by_fingerprint has all that are kept; the latest first.
-- They are read by primary key, from its end: it costs the same however many are kept.
WITH late AS MATERIALIZED (
    SELECT id, job_id, coalesce(fingerprint, reason) AS fingerprint, failed_at
      FROM pgjobs.failures
     ORDER BY id DESC
     LIMIT %(window)s::int
), alike AS (
    SELECT late.fingerprint, job.task,
           count(*) AS attempts,
           count(DISTINCT job.id) AS jobs,
           count(DISTINCT job.id) FILTER (WHERE job.status = 'failed') AS failed,
           min(late.failed_at) AS first_at, max(late.failed_at) AS last_at,
           max(late.id) AS last_id
      FROM late
      JOIN pgjobs.jobs AS job ON job.id = late.job_id
     WHERE (%(task)s::text IS NULL OR job.task = %(task)s::text)
     GROUP BY late.fingerprint, job.task
)
SELECT alike.fingerprint, alike.task, last.exception, last.message, alike.attempts, alike.jobs, alike.failed,
       alike.first_at, alike.last_at
  FROM alike
  JOIN pgjobs.failures AS last ON last.id = alike.last_id
 WHERE (%(since)s::float8 IS NULL OR alike.last_at >= now() - %(since)s::float8 * interval '1 second')
 ORDER BY alike.last_at DESC, alike.fingerprint, alike.task
 LIMIT %(limit)s::int


-- name: more_failures
-- Whether more failed attempts are kept than so many.
SELECT EXISTS (SELECT FROM pgjobs.failures ORDER BY id DESC OFFSET %(window)s::int LIMIT 1)


-- name: jobs_alike
-- The jobs that have failed so, those that did last first, with the attempt and its traceback.
SELECT job.id, job.task, job.queue, job.status, failure.attempt, failure.failed_at, failure.traceback, failure.message
  FROM (SELECT DISTINCT ON (job_id) *
          FROM pgjobs.failures
         WHERE coalesce(fingerprint, reason) = %(fingerprint)s::text
         ORDER BY job_id, id DESC) AS failure
  JOIN pgjobs.jobs AS job ON job.id = failure.job_id
 ORDER BY failure.id DESC
 LIMIT %(limit)s::int
