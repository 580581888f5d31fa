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
