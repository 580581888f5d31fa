-- How the alerts of applications stand. A row is a duty, too: who locks it judges the rule, at most once in five seconds, for the
-- whole fleet. untold holds the messages that no target has confirmed: {id, target, kind, at, says, value, tries, next}, times in
-- seconds of Unix time.
CREATE TABLE pgjobs.alerts (
    name text NOT NULL,
    state text NOT NULL DEFAULT 'ok',
    since timestamptz NOT NULL DEFAULT now(),
    turned_at timestamptz,
    told_at timestamptz,
    checked_at timestamptz NOT NULL DEFAULT '-infinity',
    says text,
    value double precision,
    untold jsonb NOT NULL DEFAULT '[]',
    CONSTRAINT alerts_pkey PRIMARY KEY (name),
    CONSTRAINT alerts_state_is_known CHECK (state IN ('ok', 'firing'))
);

COMMENT ON TABLE pgjobs.alembic_version IS 'works with releases of revision 0003 and later';
