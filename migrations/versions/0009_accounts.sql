-- What attempts in processes of their own have used, and written. Both columns are NULL for all other jobs.

ALTER TABLE pgjobs.jobs ADD COLUMN usage jsonb, ADD COLUMN output text;

COMMENT ON TABLE pgjobs.alembic_version IS 'works with releases of revision 0003 and later';
