-- Moments that people have marked, such as deploys: pgjobs mark, jobs.mark(…), or a plain INSERT. Kept for a year.
CREATE TABLE pgjobs.marks (
    id bigint GENERATED ALWAYS AS IDENTITY,
    at timestamptz NOT NULL DEFAULT now(),
    text text NOT NULL,
    author text NOT NULL DEFAULT CURRENT_USER,
    host text,
    CONSTRAINT marks_pkey PRIMARY KEY (id)
);
CREATE INDEX marks_at ON pgjobs.marks (at);

COMMENT ON TABLE pgjobs.alembic_version IS 'works with releases of revision 0003 and later';
