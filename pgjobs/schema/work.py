"""The jobs, who holds them, and what is not to be run for now."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Index,
    Integer,
    Interval,
    MetaData,
    Sequence,
    SmallInteger,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from pgjobs.schema.columns import EMPTY, NOW, moment


def jobs(metadata: MetaData) -> Table:
    Sequence("positions", metadata=metadata)
    jobs = Table(
        "jobs",
        metadata,
        Column("id", Uuid(), primary_key=True, server_default=text(f"{metadata.schema}.uuidv7()")),
        Column("task", Text(), nullable=False),
        Column("queue", Text(), nullable=False, server_default=text("'default'::text")),
        Column("status", Text(), nullable=False, server_default=text("'queued'::text")),
        Column("priority", SmallInteger(), nullable=False, server_default=text("0")),
        Column("attempt", SmallInteger(), nullable=False, server_default=text("0")),
        Column("max_attempts", SmallInteger(), nullable=False, server_default=text("5")),
        Column("crashes", SmallInteger(), nullable=False, server_default=text("0")),
        Column("blockers", Integer(), nullable=False, server_default=text("0")),
        Column("has_children", Boolean(), nullable=False, server_default=text("false")),
        Column("position", BigInteger(), server_default=text(f"nextval('{metadata.schema}.positions')")),
        moment("run_at"),
        moment("due_at"),
        moment("expires_at"),
        moment("cancel_at"),
        moment("created_at", nullable=False, server_default=NOW),
        moment("started_at"),
        moment("finished_at"),
        Column("timeout", Interval(), server_default=text("'01:00:00'::interval")),
        Column("claim_id", Uuid()),
        Column("unique_key", Text()),
        Column("reason", Text()),
        Column("args", JSONB(), nullable=False, server_default=EMPTY),
        Column("progress", JSONB()),
        Column("result", JSONB()),
        Column("meta", JSONB()),
        Column("options", JSONB()),
        Column("usage", JSONB()),
        Column("output", Text()),
        CheckConstraint(
            "status IN ('scheduled', 'blocked', 'queued', 'running', 'succeeded', 'failed', 'cancelled', 'expired')",
            name="jobs_status_is_known",
        ),
        CheckConstraint("(status = 'queued') = (position IS NOT NULL)", name="jobs_position_means_queued"),
        CheckConstraint("(status = 'scheduled') = (due_at IS NOT NULL)", name="jobs_due_at_means_scheduled"),
        CheckConstraint(
            "status <> 'queued' OR run_at IS NULL OR claim_id IS NOT NULL OR run_at <= clock_timestamp()",
            name="jobs_run_at_needs_due_at",
        ),
        CheckConstraint("priority BETWEEN -100 AND 100", name="jobs_priority_range"),
        CheckConstraint("max_attempts > 0", name="jobs_max_attempts_positive"),
        CheckConstraint("jsonb_typeof(args) = 'object'", name="jobs_args_is_object"),
    )
    column = jobs.c
    present = column.position.is_not(None)
    Index("jobs_queued", column.queue, column.priority.desc(), column.position, postgresql_where=present)
    Index("jobs_due", column.due_at, postgresql_where=column.due_at.is_not(None))
    Index("jobs_unique", column.unique_key, unique=True, postgresql_where=column.unique_key.is_not(None))
    Index("jobs_expires", column.expires_at, postgresql_where=column.expires_at.is_not(None))
    return jobs


def claims(metadata: MetaData) -> Table:
    return Table(
        "claims",
        metadata,
        Column("id", Uuid(), primary_key=True),
        Column("worker_id", Uuid(), nullable=False),
        moment("claimed_at", nullable=False, server_default=NOW),
        Column("job_ids", ARRAY(Uuid()), nullable=False),
        Column("positions", ARRAY(BigInteger()), nullable=False),
        Index("claims_worker", "worker_id"),
    )


def pauses(metadata: MetaData) -> Table:
    return Table(
        "pauses",
        metadata,
        Column("kind", Text(), primary_key=True),
        Column("name", Text(), primary_key=True),
        Column("reason", Text()),
        moment("paused_at", nullable=False, server_default=NOW),
        moment("until"),
        CheckConstraint("kind IN ('queue', 'task')", name="pauses_kind_is_known"),
    )


def holds(metadata: MetaData) -> Table:
    holds = Table(
        "holds",
        metadata,
        Column("job_id", Uuid(), primary_key=True),
        Column("kind", Text(), nullable=False),
        Column("name", Text()),
        Column("position", BigInteger()),
        moment("due_at"),
        moment("held_at", nullable=False, server_default=NOW),
        CheckConstraint("kind IN ('job', 'task')", name="holds_kind_is_known"),
    )
    Index("holds_parked", holds.c.name, holds.c.position, postgresql_where=holds.c.kind == "task")
    return holds
