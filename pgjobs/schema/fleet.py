"""The workers, what they tell each other, and the tasks that they know."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Integer,
    Interval,
    MetaData,
    SmallInteger,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from pgjobs.schema.columns import DOUBLE, EMPTY, NOW, moment


def workers(metadata: MetaData) -> Table:
    return Table(
        "workers",
        metadata,
        Column("id", Uuid(), primary_key=True),
        Column("supervisor_id", Uuid(), nullable=False),
        Column("name", Text(), nullable=False),
        Column("host", Text(), nullable=False),
        Column("pid", Integer(), nullable=False),
        Column("process", JSONB(), nullable=False, server_default=EMPTY),
        Column("queues", ARRAY(Text()), nullable=False),
        Column("slots", Integer(), nullable=False),
        moment("started_at", nullable=False, server_default=NOW),
        moment("seen_at", nullable=False, server_default=NOW),
        moment("stopping_at"),
        moment("dead_at"),
        Column("beat", BigInteger(), nullable=False, server_default=text("0")),
        Column("missed_beat", BigInteger(), nullable=False, server_default=text("0")),
        Column("misses", SmallInteger(), nullable=False, server_default=text("0")),
        moment("quiet_at"),
        Column("asked", JSONB()),
        Column("told", JSONB()),
    )


def idlers(metadata: MetaData) -> Table:
    keys = Column("queue", Text(), primary_key=True), Column("worker_id", Uuid(), primary_key=True)
    return Table("idlers", metadata, *keys, moment("seen_at", nullable=False, server_default=NOW))


def waiters(metadata: MetaData) -> Table:
    key = Column("channel", Text(), primary_key=True)
    return Table("waiters", metadata, key, moment("seen_at", nullable=False, server_default=NOW))


def lanes(metadata: MetaData) -> Table:
    return Table(
        "lanes",
        metadata,
        Column("queue", Text(), primary_key=True),
        Column("priority", SmallInteger(), primary_key=True),
        Column("low", BigInteger(), nullable=False),
        moment("noted_at", nullable=False, server_default=NOW),
    )


def duties(metadata: MetaData) -> Table:
    return Table(
        "duties",
        metadata,
        Column("name", Text(), primary_key=True),
        Column("every", Interval(), nullable=False),
        moment("next_at", nullable=False, server_default=NOW),
        moment("ran_at"),
        Column("holder", Uuid()),
        Column("state", JSONB()),
    )


def tasks(metadata: MetaData) -> Table:
    return Table(
        "tasks",
        metadata,
        Column("name", Text(), primary_key=True),
        Column("queue", Text(), nullable=False),
        Column("priority", SmallInteger(), nullable=False),
        Column("max_attempts", SmallInteger(), nullable=False),
        Column("timeout", Interval()),
        Column("schema", JSONB(), nullable=False),
        Column("doc", Text()),
        moment("published_at", nullable=False, server_default=NOW),
    )


def alerts(metadata: MetaData) -> Table:
    return Table(
        "alerts",
        metadata,
        Column("name", Text(), primary_key=True),
        Column("state", Text(), nullable=False, server_default=text("'ok'::text")),
        moment("since", nullable=False, server_default=NOW),
        moment("turned_at"),
        moment("told_at"),
        moment("checked_at", nullable=False, server_default=text("'-infinity'::timestamp with time zone")),
        Column("says", Text()),
        Column("value", DOUBLE),
        Column("untold", JSONB(), nullable=False, server_default=text("'[]'::jsonb")),
        CheckConstraint("state IN ('ok', 'firing')", name="alerts_state_is_known"),
    )
