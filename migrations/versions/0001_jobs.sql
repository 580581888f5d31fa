-- Everything of the first release. Takes locks on new objects only.

-- Draws the order of a lane. No CACHE: a cached range would land below a worker's low bound.
CREATE SEQUENCE pgjobs.positions;

-- A time-ordered id for rows inserted by hand; clients make their own. (PostgreSQL 18 has one built in, 15 to 17 have not.)
CREATE FUNCTION pgjobs.uuidv7() RETURNS uuid
LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
    SELECT encode(
        set_bit(set_bit(
            overlay(uuid_send(gen_random_uuid())
                    PLACING substring(int8send(floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3)
                    FROM 1 FOR 6),
            52, 1), 53, 1), 'hex')::uuid
$$;

-- The class of a duration: n holds what is under 2^n milliseconds, 21 all that is longer.
CREATE FUNCTION pgjobs.duration_bucket(seconds double precision) RETURNS smallint
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT width_bucket(seconds, '{0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048,
        4.096, 8.192, 16.384, 32.768, 65.536, 131.072, 262.144, 524.288, 1048.576}'::float8[])::smallint
$$;

-- The one table that users read. One nullable column drives each index, and status is in none of them,
-- so that completing a job is a HOT update; the free room of a page is there for the two updates of a life: at 60 instead of
-- 40, every third job moves to another page when it is claimed, a fifth of the completions is not HOT, and a life writes 7 %
-- more WAL; what is left at the end is as large.
CREATE TABLE pgjobs.jobs (
    id uuid NOT NULL DEFAULT pgjobs.uuidv7(),
    task text NOT NULL,
    queue text NOT NULL DEFAULT 'default',
    status text NOT NULL DEFAULT 'queued',
    priority smallint NOT NULL DEFAULT 0,
    attempt smallint NOT NULL DEFAULT 0,
    max_attempts smallint NOT NULL DEFAULT 5,
    crashes smallint NOT NULL DEFAULT 0,
    blockers integer NOT NULL DEFAULT 0,
    has_children boolean NOT NULL DEFAULT false,
    position bigint DEFAULT nextval('pgjobs.positions'),
    run_at timestamptz,
    due_at timestamptz,
    expires_at timestamptz,
    cancel_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz,
    finished_at timestamptz,
    timeout interval DEFAULT '1 hour',
    claim_id uuid,
    unique_key text,
    reason text,
    args jsonb NOT NULL DEFAULT '{}',
    progress jsonb,
    result jsonb,
    meta jsonb,
    options jsonb,
    CONSTRAINT jobs_pkey PRIMARY KEY (id),
    CONSTRAINT jobs_status_is_known CHECK (status IN
        ('scheduled', 'blocked', 'queued', 'running', 'succeeded', 'failed', 'cancelled', 'expired')),
    CONSTRAINT jobs_position_means_queued CHECK ((status = 'queued') = (position IS NOT NULL)),
    CONSTRAINT jobs_due_at_means_scheduled CHECK ((status = 'scheduled') = (due_at IS NOT NULL)),
    -- A row inserted by hand with run_at alone would run at once. The clock only makes this truer.
    CONSTRAINT jobs_run_at_needs_due_at CHECK (
        status <> 'queued' OR run_at IS NULL OR claim_id IS NOT NULL OR run_at <= clock_timestamp()),
    CONSTRAINT jobs_priority_range CHECK (priority BETWEEN -100 AND 100),
    CONSTRAINT jobs_max_attempts_positive CHECK (max_attempts > 0),
    CONSTRAINT jobs_args_is_object CHECK (jsonb_typeof(args) = 'object')
) WITH (
    fillfactor = 40,
    autovacuum_vacuum_scale_factor = 0.01,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_insert_scale_factor = 0.05,
    autovacuum_analyze_scale_factor = 0.02,
    autovacuum_vacuum_cost_delay = 1,
    autovacuum_vacuum_cost_limit = 2000
);
CREATE INDEX jobs_queued ON pgjobs.jobs (queue, priority DESC, position) WHERE position IS NOT NULL;
CREATE INDEX jobs_due ON pgjobs.jobs (due_at) WHERE due_at IS NOT NULL;
CREATE UNIQUE INDEX jobs_unique ON pgjobs.jobs (unique_key) WHERE unique_key IS NOT NULL;
CREATE INDEX jobs_expires ON pgjobs.jobs (expires_at) WHERE expires_at IS NOT NULL;

-- One row a claim call; its id fences the jobs it took. positions lets a released job return to its place.
CREATE TABLE pgjobs.claims (
    id uuid NOT NULL,
    worker_id uuid NOT NULL,
    claimed_at timestamptz NOT NULL DEFAULT now(),
    job_ids uuid[] NOT NULL,
    positions bigint[] NOT NULL,
    CONSTRAINT claims_pkey PRIMARY KEY (id)
) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000);
CREATE INDEX claims_worker ON pgjobs.claims (worker_id);

-- One row a worker process, beaten by its supervisor. Death is a mark; the row stays an hour.
CREATE TABLE pgjobs.workers (
    id uuid NOT NULL,
    supervisor_id uuid NOT NULL,
    name text NOT NULL,
    host text NOT NULL,
    pid integer NOT NULL,
    process jsonb NOT NULL DEFAULT '{}',
    queues text[] NOT NULL,
    slots integer NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    seen_at timestamptz NOT NULL DEFAULT now(),
    stopping_at timestamptz,
    dead_at timestamptz,
    beat bigint NOT NULL DEFAULT 0,
    missed_beat bigint NOT NULL DEFAULT 0,
    misses smallint NOT NULL DEFAULT 0,
    CONSTRAINT workers_pkey PRIMARY KEY (id)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

-- Who waits for work, and on which queue ('*' where a pattern is followed). Apart from workers, whose rows change with every beat.
CREATE TABLE pgjobs.idlers (
    queue text NOT NULL,
    worker_id uuid NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT idlers_pkey PRIMARY KEY (queue, worker_id)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200);

-- Processes in which somebody waits for a result, by the channel that they listen on.
CREATE TABLE pgjobs.waiters (
    channel text NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT waiters_pkey PRIMARY KEY (channel)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200);

-- Maintenance: whoever comes first at next_at takes the row with SKIP LOCKED.
CREATE TABLE pgjobs.duties (
    name text NOT NULL,
    every interval NOT NULL,
    next_at timestamptz NOT NULL DEFAULT now(),
    ran_at timestamptz,
    holder uuid,
    state jsonb,
    CONSTRAINT duties_pkey PRIMARY KEY (name)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
INSERT INTO pgjobs.duties (name, every) VALUES
    ('reap', '1 second'), ('expire', '1 second'), ('roll_up', '1 minute'), ('prune', '1 minute'), ('tidy', '1 minute');

-- One row a failed attempt.
CREATE TABLE pgjobs.failures (
    id bigint GENERATED ALWAYS AS IDENTITY,
    job_id uuid NOT NULL,
    attempt smallint NOT NULL,
    failed_at timestamptz NOT NULL DEFAULT now(),
    reason text NOT NULL,
    exception text,
    message text,
    traceback text,
    fingerprint text,
    CONSTRAINT failures_pkey PRIMARY KEY (id)
);
CREATE INDEX failures_job ON pgjobs.failures (job_id);

-- What was handled, by minute, queue, task, status and class of duration; outlives the jobs. Written in the completing
-- transaction, compacted by a duty.
-- bucket is a duration_bucket.
CREATE TABLE pgjobs.rollups (
    minute timestamptz NOT NULL,
    queue text NOT NULL,
    task text NOT NULL,
    status text NOT NULL,
    bucket smallint NOT NULL,
    jobs bigint NOT NULL,
    seconds double precision NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 5000);
CREATE INDEX rollups_minute ON pgjobs.rollups (minute);

-- What runs where. (claims has a row a claim call; the jobs are found by their primary key.)
CREATE VIEW pgjobs.running AS
    SELECT job.id, job.task, job.queue, job.priority, job.attempt, job.args, job.progress,
           claim.claimed_at, job.started_at, worker.name AS worker, worker.host, worker.pid,
           claim.worker_id, job.claim_id, job.timeout
      FROM pgjobs.claims AS claim
     CROSS JOIN LATERAL unnest(claim.job_ids) AS held (id)
      JOIN pgjobs.jobs AS job ON job.id = held.id AND job.claim_id = claim.id AND job.status = 'running'
      LEFT JOIN pgjobs.workers AS worker ON worker.id = claim.worker_id;

-- How every queue stands. Waiting jobs are counted from the two small indexes, running ones through the claims,
-- handled ones from the rollups: nothing here reads the history.
CREATE VIEW pgjobs.queue_stats AS
    WITH queued AS (
        SELECT queue, count(*) AS jobs, min(created_at) AS oldest
          FROM pgjobs.jobs WHERE position IS NOT NULL GROUP BY queue
    ), scheduled AS (
        SELECT queue, count(*) AS jobs, min(due_at) AS next_due
          FROM pgjobs.jobs WHERE due_at IS NOT NULL GROUP BY queue
    ), running AS (
        SELECT queue, count(*) AS jobs FROM pgjobs.running GROUP BY queue
    ), handled AS (
        SELECT queue,
               sum(jobs) FILTER (WHERE status = 'succeeded') AS succeeded,
               sum(jobs) FILTER (WHERE status = 'failed') AS failed,
               sum(jobs) FILTER (WHERE status = 'cancelled') AS cancelled,
               sum(jobs) FILTER (WHERE status = 'expired') AS expired,
               sum(jobs) FILTER (WHERE status = 'retried') AS retried,
               sum(seconds) FILTER (WHERE status = 'succeeded') AS seconds
          FROM pgjobs.rollups GROUP BY queue
    ), names AS (
        SELECT queue FROM queued UNION SELECT queue FROM scheduled
        UNION SELECT queue FROM running UNION SELECT queue FROM handled
    )
    SELECT queue,
           coalesce(queued.jobs, 0) AS queued,
           coalesce(running.jobs, 0) AS running,
           coalesce(scheduled.jobs, 0) AS scheduled,
           coalesce(handled.succeeded, 0)::bigint AS succeeded,
           coalesce(handled.failed, 0)::bigint AS failed,
           coalesce(handled.cancelled, 0)::bigint AS cancelled,
           coalesce(handled.expired, 0)::bigint AS expired,
           coalesce(handled.retried, 0)::bigint AS retried,
           queued.oldest AS oldest_queued_at,
           scheduled.next_due AS next_due_at,
           handled.seconds / nullif(handled.succeeded, 0) AS mean_seconds
      FROM names
      LEFT JOIN queued USING (queue)
      LEFT JOIN scheduled USING (queue)
      LEFT JOIN running USING (queue)
      LEFT JOIN handled USING (queue);

-- Enqueues one job from SQL. delay and run_at exclude each other; a job that is due waits as scheduled.
CREATE FUNCTION pgjobs.enqueue(
    task text,
    args jsonb DEFAULT '{}',
    queue text DEFAULT 'default',
    priority integer DEFAULT 0,
    delay interval DEFAULT NULL,
    run_at timestamptz DEFAULT NULL,
    ttl interval DEFAULT NULL,
    timeout interval DEFAULT '1 hour',
    max_attempts integer DEFAULT 5
) RETURNS uuid
LANGUAGE sql VOLATILE AS $$
    WITH due AS (
        SELECT coalesce(enqueue.run_at, clock_timestamp() + enqueue.delay) AS at
    ), job AS (
        INSERT INTO pgjobs.jobs (task, args, queue, priority, status, position, run_at, due_at, expires_at, timeout, max_attempts)
        SELECT enqueue.task, enqueue.args, enqueue.queue, enqueue.priority,
               CASE WHEN due.at > clock_timestamp() THEN 'scheduled' ELSE 'queued' END,
               CASE WHEN due.at > clock_timestamp() THEN NULL ELSE nextval('pgjobs.positions') END,
               due.at,
               CASE WHEN due.at > clock_timestamp() THEN due.at END,
               clock_timestamp() + enqueue.ttl, enqueue.timeout, enqueue.max_attempts
          FROM due
        RETURNING id, queue, status
    ), woken AS (
        SELECT pg_notify('pgjobs.jobs', 'queued ' || job.queue) FROM job
         WHERE job.status = 'queued'
           AND EXISTS (SELECT FROM pgjobs.idlers AS idler
                        WHERE idler.queue IN (job.queue, '*') AND idler.seen_at > now() - interval '15 seconds')
    )
    SELECT job.id FROM job LEFT JOIN woken ON true
$$;
