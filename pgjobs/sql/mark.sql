-- name: add_mark
-- Marks a moment, now where none is given.
-- Locks: none beyond the new row.
INSERT INTO pgjobs.marks (at, text, author, host)
VALUES (coalesce(%(at)s::timestamptz, now()), %(text)s::text, %(author)s::text, %(host)s::text)
RETURNING id, at, text, author, host


-- name: marks
-- The last marks, the latest moment first; what is still to come is among them. Moments of which Python has no date, such as
-- infinity, can be written by SQL, and must not keep the others from being read.
SELECT id, at, text, author, host
  FROM pgjobs.marks
 WHERE at >= '0001-01-02 00:00+00' AND at < '9999-12-31 00:00+00'
 ORDER BY at DESC, id DESC
 LIMIT %(limit)s::int


-- name: last_mark
-- The latest mark that is not still to come.
SELECT id, at, text, author, host
  FROM pgjobs.marks
 WHERE at <= now() AND at >= '0001-01-02 00:00+00'
 ORDER BY at DESC, id DESC
 LIMIT 1
