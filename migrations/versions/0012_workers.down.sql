-- Nobody can ask anything of a worker any more.

ALTER TABLE pgjobs.workers DROP COLUMN quiet_at, DROP COLUMN asked, DROP COLUMN told;


COMMENT ON TABLE pgjobs.alembic_version IS 'works with releases of revision 0003 and later';
