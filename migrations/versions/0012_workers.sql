-- What is asked of a worker stands in its own row, which it reads with every beat: no lost notification loses it.
-- stopping_at: since when it is to leave, or leaves; quiet_at: since when it is to claim no more, and stay; asked: what somebody
-- wants to know of it (id, what, seconds); told: its answer.

ALTER TABLE pgjobs.workers ADD COLUMN quiet_at timestamptz, ADD COLUMN asked jsonb, ADD COLUMN told jsonb;

COMMENT ON TABLE pgjobs.alembic_version IS 'works with releases of revision 0003 and later';
