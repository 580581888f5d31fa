-- Where the live positions of a lane began when a worker last looked: what the next one to start need not read again,
-- a hint that nothing relies on. Busy lanes alone have a row, written once a second at most.
CREATE TABLE pgjobs.lanes (
    queue text NOT NULL,
    priority smallint NOT NULL,
    low bigint NOT NULL,
    noted_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT lanes_pkey PRIMARY KEY (queue, priority)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

-- A claim's lists are written once, read seldom and soon gone: compressing them took seven percent of the server's time.
ALTER TABLE pgjobs.claims ALTER COLUMN job_ids SET STORAGE EXTERNAL, ALTER COLUMN positions SET STORAGE EXTERNAL;
