-- name: leaps
-- The lanes where jobs wait: a part of queries, which stands there for "SELECT queue, priority FROM pgjobs.lanes /* leaps */". Each is
-- found from the one before it by a leap through the index, so that a few pages a lane are read, whatever waits.
(SELECT queue, priority
   FROM pgjobs.jobs
  WHERE position IS NOT NULL
  ORDER BY queue, priority DESC
  LIMIT 1)
UNION ALL
SELECT next.queue, next.priority
  FROM lane
 CROSS JOIN LATERAL (
     (SELECT queue, priority
        FROM pgjobs.jobs
       WHERE position IS NOT NULL AND queue = lane.queue AND priority < lane.priority
       ORDER BY queue, priority DESC
       LIMIT 1)
     UNION ALL
     (SELECT queue, priority
        FROM pgjobs.jobs
       WHERE position IS NOT NULL AND queue > lane.queue
       ORDER BY queue, priority DESC
       LIMIT 1)
     LIMIT 1
 ) AS next
