-- What is asked of a worker stands in its own row, which it reads with every beat: no lost notification loses it.

ALTER TABLE pgjobs.workers ADD COLUMN quiet_at timestamptz;
ALTER TABLE pgjobs.workers ADD COLUMN asked jsonb;
ALTER TABLE pgjobs.workers ADD COLUMN told jsonb;
COMMENT ON COLUMN pgjobs.workers.stopping_at IS 'since when it is to leave, or leaves: it claims no more';
COMMENT ON COLUMN pgjobs.workers.quiet_at IS 'since when it is to claim no more, and stay';
COMMENT ON COLUMN pgjobs.workers.asked IS 'what somebody wants to know of it: id, what, seconds';
COMMENT ON COLUMN pgjobs.workers.told IS 'its answer to what is asked';

COMMENT ON TABLE pgjobs.alembic_version IS 'works with releases of revision 0003 and later';
