-- name: sealed_jobs
-- The next jobs, by id, whose arguments or result are stored encrypted; with the tokens.
SELECT id, args->>'$encrypted' AS args, result->>'$encrypted' AS result
  FROM pgjobs.jobs
 WHERE id > %(after)s::uuid
   AND (args->>'$encrypted' IS NOT NULL OR result->>'$encrypted' IS NOT NULL)
 ORDER BY id
 LIMIT %(limit)s::int


-- name: reseal
-- Puts new tokens in the place of old ones, in any status; NULL leaves what stands there. A job whose row somebody holds, or
-- whose tokens are others by now, is left alone and is absent from the result. Neither column is in an index, and nothing else is
-- written, so the update is HOT where the page has room; a claim or completion that meets the new version sends itself again.
-- Locks: jobs, by id, skipping.
WITH new AS (
    SELECT *
      FROM unnest(%(ids)s::uuid[], %(old_args)s::text[], %(new_args)s::text[], %(old_results)s::text[], %(new_results)s::text[])
               AS new (id, old_args, new_args, old_result, new_result)
), mine AS MATERIALIZED (
    SELECT job.place, new.new_args, new.new_result
      FROM (SELECT * FROM new ORDER BY id) AS new
     CROSS JOIN LATERAL (
         SELECT ctid AS place
           FROM pgjobs.jobs
          WHERE id = new.id
            AND (new.new_args IS NULL OR args->>'$encrypted' = new.old_args)
            AND (new.new_result IS NULL OR result->>'$encrypted' = new.old_result)
            FOR UPDATE SKIP LOCKED
     ) AS job
)
UPDATE pgjobs.jobs AS job
   SET args = CASE WHEN mine.new_args IS NULL THEN job.args
                   ELSE jsonb_build_object('$encrypted', mine.new_args) END,
       result = CASE WHEN mine.new_result IS NULL THEN job.result
                     ELSE jsonb_build_object('$encrypted', mine.new_result) END
  FROM mine
 WHERE job.ctid = mine.place
RETURNING job.id
