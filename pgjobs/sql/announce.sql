-- name: announce
-- Enqueues the messages that jobs send when they have ended, of those of these jobs that ended in this transaction and have
-- such; statements that end jobs by themselves call the function for them.
-- Locks: none beyond the new rows.
SELECT pgjobs.announce(%(ids)s::uuid[])
