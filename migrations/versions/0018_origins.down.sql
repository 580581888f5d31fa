-- As it was: whoever may insert jobs may insert messages, runs and ends, too.

DROP TRIGGER check_state ON pgjobs.jobs;
DROP TRIGGER check_message ON pgjobs.jobs;
DROP TRIGGER check_changed_message ON pgjobs.jobs;
DROP FUNCTION pgjobs.check_state();
DROP FUNCTION pgjobs.check_message();

COMMENT ON TABLE pgjobs.alembic_version IS 'works with releases of revision 0003 and later';
