-- name: host_of
-- What server this is, whose role looks, and what that role may see.
SELECT current_setting('server_version_num')::int AS version, current_setting('server_version') AS words,
       pg_is_in_recovery() AS standby,
       pg_has_role('pg_read_all_stats', 'USAGE') AS sees_all,
       extract(epoch FROM clock_timestamp())::float8 AS clock


-- name: settings
-- Some of the server's settings, in their base units.
SELECT name, setting
  FROM pg_settings
 WHERE name = ANY (%(names)s::text[])


-- name: holders_of_horizon
-- What keeps dead rows of this database from being removed: sessions and standbys, slots, prepared transactions. seconds is how long
-- it has been so, where that is known; age in transactions.
SELECT 'session' AS kind, pid::text AS name, coalesce(application_name, '') AS application, coalesce(usename, '') AS who,
       coalesce(state, '') AS state, extract(epoch FROM clock_timestamp() - xact_start)::float8 AS seconds,
       greatest(age(backend_xmin), age(backend_xid)) AS age
  FROM pg_stat_activity
 WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
   AND xact_start IS NOT NULL
UNION ALL
SELECT 'standby', pid::text, coalesce(application_name, ''), coalesce(usename, ''), coalesce(state, ''), NULL, age(backend_xmin)
  FROM pg_stat_activity
 WHERE backend_type = 'walsender' AND backend_xmin IS NOT NULL
UNION ALL
SELECT CASE WHEN active THEN 'slot' ELSE 'idle slot' END, slot_name, coalesce(plugin, ''), '', '', NULL, age(xmin)
  FROM pg_replication_slots
 WHERE xmin IS NOT NULL
UNION ALL
SELECT 'prepared', gid, '', owner, '', extract(epoch FROM clock_timestamp() - prepared)::float8, age(transaction)
  FROM pg_prepared_xacts
 WHERE database = current_database()


-- name: table_health
-- How vacuum stands with each table: dead rows against the number at which autovacuum begins, and size against what the rows need
-- at the table's fillfactor (NULL where it was never analyzed, or its statistics may not be read).
SELECT relation.relname AS name,
       coalesce(option.enabled, true) AS enabled,
       stats.n_dead_tup AS dead,
       (coalesce(option.threshold, current_setting('autovacuum_vacuum_threshold')::float8)
           + coalesce(option.factor, current_setting('autovacuum_vacuum_scale_factor')::float8)
             * greatest(relation.reltuples, 0))::float8 AS begins,
       extract(epoch FROM clock_timestamp() - greatest(stats.last_vacuum, stats.last_autovacuum))::float8 AS since,
       pg_relation_size(relation.oid) AS bytes,
       CASE WHEN relation.reltuples > 0
            THEN relation.reltuples * (28 + width.bytes) * 100 / coalesce(option.fillfactor, 100) END AS needed
  FROM pg_class AS relation
  JOIN pg_stat_user_tables AS stats ON stats.relid = relation.oid
 CROSS JOIN LATERAL (
      SELECT bool_and(option_value::bool) FILTER (WHERE option_name = 'autovacuum_enabled') AS enabled,
             max(option_value::float8) FILTER (WHERE option_name = 'autovacuum_vacuum_threshold') AS threshold,
             max(option_value::float8) FILTER (WHERE option_name = 'autovacuum_vacuum_scale_factor') AS factor,
             max(option_value::float8) FILTER (WHERE option_name = 'fillfactor') AS fillfactor
        FROM pg_options_to_table(relation.reloptions)
  ) AS option
 CROSS JOIN LATERAL (
      SELECT sum(avg_width * (1 - null_frac)) AS bytes
        FROM pg_stats
       WHERE schemaname = stats.schemaname AND tablename = stats.relname
  ) AS width
 WHERE relation.relkind = 'r'
   AND relation.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'pgjobs.jobs'::regclass)
 ORDER BY relation.relname


-- name: index_health
-- The indexes of the schema: whether they may be used, and their size against sixty-four bytes for each entry.
SELECT index.relname AS name, pg_index.indisvalid AS valid, pg_relation_size(index.oid) AS bytes,
       CASE WHEN index.reltuples >= 0 THEN 64 * index.reltuples END AS needed
  FROM pg_index
  JOIN pg_class AS index ON index.oid = pg_index.indexrelid
 WHERE index.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'pgjobs.jobs'::regclass)
 ORDER BY index.relname


-- name: relations
-- The names of what the schema holds: tables and views, functions, and constraints.
SELECT 'relation' AS kind, relname AS name
  FROM pg_class
 WHERE relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'pgjobs.jobs'::regclass)
   AND relkind IN ('r', 'v', 'p')
UNION
SELECT 'function', proname
  FROM pg_proc
 WHERE pronamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'pgjobs.jobs'::regclass)
UNION
SELECT 'constraint', conname
  FROM pg_constraint
 WHERE connamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'pgjobs.jobs'::regclass)


-- name: orphaned_claims
-- What dead, silent or unknown workers still hold, for longer than a reaper takes: the claims and jobs of each.
SELECT coalesce(worker.name, claim.worker_id::text) AS name, count(*) AS claims, sum(cardinality(claim.job_ids))::bigint AS jobs
  FROM pgjobs.claims AS claim
  LEFT JOIN pgjobs.workers AS worker ON worker.id = claim.worker_id
 WHERE claim.claimed_at < now() - interval '30 seconds'
   AND (worker.id IS NULL OR worker.dead_at < now() - interval '30 seconds'
        OR (worker.dead_at IS NULL AND worker.seen_at < clock_timestamp() - interval '30 seconds'))
 GROUP BY 1
 ORDER BY 1


-- name: endless
-- Jobs that nobody will end or delete: running ones that no claim holds, and ended ones without the moment. No index has them, so
-- the ten thousand with the lowest ids are looked at, among which what stays comes to be, and as many with the highest.
SELECT CASE WHEN status = 'running' THEN 'running' ELSE 'ended' END AS kind, count(*) AS jobs, min(id::text) AS example
  FROM ((SELECT id, status, claim_id, finished_at FROM pgjobs.jobs ORDER BY id LIMIT 10000)
        UNION
        (SELECT id, status, claim_id, finished_at FROM pgjobs.jobs ORDER BY id DESC LIMIT 10000)) AS job
 WHERE status = 'running' AND NOT EXISTS (SELECT FROM pgjobs.claims AS claim WHERE claim.id = job.claim_id)
    OR status IN ('succeeded', 'failed', 'cancelled', 'expired') AND finished_at IS NULL
 GROUP BY 1
 ORDER BY 1


-- name: overdue_duties
-- The duties that should have run a minute and ten of their intervals ago, and for how long that has been so. None, unless a
-- worker lives that has had a minute to see to them.
SELECT name, extract(epoch FROM clock_timestamp() - next_at)::float8 AS seconds
  FROM pgjobs.duties
 WHERE next_at < clock_timestamp() - interval '1 minute' - 10 * every
   AND EXISTS (SELECT FROM pgjobs.workers
                WHERE dead_at IS NULL AND started_at < now() - interval '1 minute'
                  AND seen_at > clock_timestamp() - interval '15 seconds')
 ORDER BY name


-- name: wide_roles
-- The roles under which pgjobs's own connections run that may do far more than they need: superusers, and the schema's owner.
SELECT DISTINCT role.rolname AS name, role.rolsuper AS super
  FROM pg_stat_activity AS session
  JOIN pg_roles AS role ON role.oid = session.usesysid
 WHERE session.datname = current_database()
   AND session.application_name IN ('pgjobs worker', 'pgjobs upkeep', 'pgjobs beat')
   AND (role.rolsuper
        OR role.oid = (SELECT relowner FROM pg_class WHERE oid = 'pgjobs.jobs'::regclass))
 ORDER BY role.rolname
