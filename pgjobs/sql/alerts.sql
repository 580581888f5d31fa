-- name: add_alerts
-- Makes the rows of alerts that have none, and forgets those that nobody has judged for a month.
-- Locks: the new rows, and rows that nobody uses.
WITH gone AS (
    DELETE FROM pgjobs.alerts
     WHERE checked_at < now() - interval '30 days' AND checked_at > '-infinity' AND name <> ALL (%(names)s::text[])
)
INSERT INTO pgjobs.alerts (name)
SELECT unnest(%(names)s::text[])
    ON CONFLICT (name) DO NOTHING


-- name: take_alerts
-- Takes those of some alerts that are to be judged, for the length of this transaction, and says how they stand and what the
-- time is. A time to come counts as long ago: a failover may have turned the clock back.
-- Locks: rows of alerts, skipping: whoever holds one is judging it.
WITH due AS MATERIALIZED (
    SELECT name
      FROM pgjobs.alerts
     WHERE name = ANY (%(names)s::text[])
       AND (checked_at <= clock_timestamp() - %(every)s::float8 * interval '1 second'
            OR checked_at > clock_timestamp() + interval '1 minute')
     ORDER BY name
       FOR UPDATE SKIP LOCKED
)
UPDATE pgjobs.alerts AS alert
   SET checked_at = clock_timestamp()
  FROM due
 WHERE alert.name = due.name
RETURNING alert.name, alert.state, alert.since, alert.turned_at, alert.told_at, alert.untold, clock_timestamp() AS at


-- name: note_alert
-- Writes how an alert stands.
-- Locks: the row, which this transaction holds.
UPDATE pgjobs.alerts
   SET state = %(state)s::text, since = %(since)s::timestamptz, turned_at = %(turned_at)s::timestamptz,
       told_at = %(told_at)s::timestamptz, says = %(says)s::text, value = %(value)s::float8, untold = %(untold)s::jsonb
 WHERE name = %(name)s::text


-- name: told_alert
-- Takes a message away that its target has confirmed, or never will.
-- Locks: the alert's row.
UPDATE pgjobs.alerts
   SET untold = (SELECT coalesce(jsonb_agg(message), '[]')
                   FROM jsonb_array_elements(untold) AS message
                  WHERE message->>'id' IS DISTINCT FROM %(id)s::text)
 WHERE name = %(name)s::text


-- name: alerts
-- How the alerts stand, as people see it; those that fire first.
SELECT name, state, since, turned_at, told_at, NULLIF(checked_at, '-infinity') AS checked_at, says, value,
       jsonb_array_length(untold) AS untold
  FROM pgjobs.alerts
 ORDER BY state = 'ok', name


-- name: ended_lately
-- How many jobs have failed and how many have succeeded in the last seconds, by the minute; of a queue or task, NULL for any.
SELECT coalesce(sum(jobs) FILTER (WHERE status = 'failed'), 0)::bigint AS failed,
       coalesce(sum(jobs) FILTER (WHERE status = 'succeeded'), 0)::bigint AS succeeded
  FROM pgjobs.rollups
 WHERE minute >= date_trunc('minute', now() - %(within)s::float8 * interval '1 second')
   AND status IN ('failed', 'succeeded')
   AND (%(queue)s::text IS NULL OR queue = %(queue)s::text)
   AND (%(task)s::text IS NULL OR task = %(task)s::text)
