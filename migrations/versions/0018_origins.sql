-- What whoever may insert jobs could write, and nothing else does: messages of their own in the name of ended jobs, runs that
-- no claim has made and nobody ends, ends that no pruner finds, places that the sequence will never reach. As with queues, new rows
-- are looked at and no others, after the statement.

CREATE FUNCTION pgjobs.check_state() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'check_violation',
        MESSAGE = CASE WHEN NEW.status = 'running' THEN 'a job is inserted as running, and no claim holds it'
                       WHEN NEW.status = 'queued' THEN format('position is %s, out of reach of the sequence', NEW.position)
                       ELSE format('a job is inserted as %s, and has never ended', NEW.status) END,
        HINT = 'insert it without status and position, and it is queued';
END
$$;

CREATE TRIGGER check_state AFTER INSERT ON pgjobs.jobs
    FOR EACH ROW WHEN (NEW.status = 'running' AND NEW.claim_id IS NULL
                       OR NEW.status IN ('succeeded', 'failed', 'cancelled', 'expired') AND NEW.finished_at IS NULL
                       OR NEW.position NOT BETWEEN -4611686018427387904 AND 4611686018427387904)
    EXECUTE FUNCTION pgjobs.check_state();

-- Workers sign messages with the secret of the application, so that they are believed. announce makes them, with the rights of its
-- owner; nobody else may, nor change one.
CREATE FUNCTION pgjobs.check_message() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT pg_has_role(current_user,
                       (SELECT proowner FROM pg_proc WHERE oid = 'pgjobs.announce(uuid[])'::regprocedure), 'MEMBER') THEN
        RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
            MESSAGE = 'messages of webhooks are made when a job has ended, and by nobody else',
            HINT = 'enqueue a job with the option webhook';
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER check_message AFTER INSERT ON pgjobs.jobs
    FOR EACH ROW WHEN (NEW.task = 'pgjobs' || '.webhook') EXECUTE FUNCTION pgjobs.check_message();

CREATE TRIGGER check_changed_message AFTER UPDATE OF task, args ON pgjobs.jobs
    FOR EACH ROW WHEN (NEW.task = 'pgjobs' || '.webhook' AND (OLD.task, OLD.args) IS DISTINCT FROM (NEW.task, NEW.args))
    EXECUTE FUNCTION pgjobs.check_message();

COMMENT ON TABLE pgjobs.alembic_version IS 'works with releases of revision 0003 and later';
