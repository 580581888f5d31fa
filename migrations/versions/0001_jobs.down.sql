-- Takes everything of the first release away, but for the schema. Takes ACCESS EXCLUSIVE locks on all tables.

DROP FUNCTION pgjobs.enqueue;
DROP VIEW pgjobs.queue_stats, pgjobs.running;
DROP TABLE pgjobs.jobs, pgjobs.claims, pgjobs.workers, pgjobs.idlers, pgjobs.waiters, pgjobs.duties, pgjobs.failures,
           pgjobs.rollups;
DROP FUNCTION pgjobs.duration_bucket, pgjobs.uuidv7;
DROP SEQUENCE pgjobs.positions;
