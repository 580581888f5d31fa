-- name: wait_on
-- Says that somebody waits for results, and on which channel.
-- Locks: the process's own row in waiters.
INSERT INTO pgjobs.waiters (channel)
VALUES (%(channel)s::text)
    ON CONFLICT (channel) DO UPDATE SET seen_at = now()
RETURNING channel


-- name: wait_no_more
-- Says that nobody waits in this process any more.
-- Locks: the process's own row in waiters.
DELETE FROM pgjobs.waiters
 WHERE channel = %(channel)s::text
RETURNING channel


-- name: tell
-- Tells those who wait which jobs have ended, after the commit that ended them.
SELECT pg_notify(waiter.channel, told.ids)
  FROM unnest(%(channels)s::text[]) AS waiter (channel)
 CROSS JOIN unnest(%(payloads)s::text[]) AS told (ids)
