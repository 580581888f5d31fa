-- Takes the views for reports away, and the comments on those that stay.

DROP VIEW pgjobs.task_stats, pgjobs.worker_stats, pgjobs.throughput_minute, pgjobs.throughput_hour, pgjobs.throughput_day,
    pgjobs.waits, pgjobs.history;
DROP FUNCTION pgjobs.id_at(timestamptz);
COMMENT ON VIEW pgjobs.running IS NULL;
COMMENT ON VIEW pgjobs.queue_stats IS NULL;
COMMENT ON VIEW pgjobs.failed_by_fingerprint IS NULL;
