"""The tables as SQLAlchemy sees them, for reports and for comparing a database with this release.

::

    select(schema.jobs.c.status, func.count()).group_by(schema.jobs.c.status)
    session.scalars(select(schema.JobRow).where(schema.JobRow.task == "mail.send"))

Where the schema has another name: ``tables("name").jobs``, and for the mapped class the execution option
``schema_translate_map={"pgjobs": "name"}``. The revisions make the tables; ``metadata.create_all()`` does not, for it
knows neither their functions nor their storage settings.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    Identity,
    Index,
    Integer,
    Interval,
    LargeBinary,
    MetaData,
    Sequence,
    SmallInteger,
    Table,
    Text,
    Uuid,
    event,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped

from pgjobs.config import DEFAULT_SCHEMA
from pgjobs.errors import PgJobsError

__all__ = [
    "JobRow",
    "Tables",
    "audit",
    "claims",
    "duties",
    "failed_by_fingerprint",
    "failures",
    "files",
    "holds",
    "idlers",
    "jobs",
    "lanes",
    "logs",
    "metadata",
    "pauses",
    "queue_stats",
    "rollups",
    "running",
    "tables",
    "tasks",
    "waiters",
    "workers",
]

_NOW: Final = text("now()")
_EMPTY: Final = text("'{}'::jsonb")
_DOUBLE: Final[Double[float]] = Double()


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables of one schema; the last three are views, marked ``info["is_view"]``."""

    metadata: MetaData
    jobs: Table
    claims: Table
    workers: Table
    idlers: Table
    waiters: Table
    lanes: Table
    duties: Table
    failures: Table
    logs: Table
    files: Table
    rollups: Table
    tasks: Table
    audit: Table
    pauses: Table
    holds: Table
    running: Table
    queue_stats: Table
    failed_by_fingerprint: Table


@lru_cache
def tables(schema: str = DEFAULT_SCHEMA) -> Tables:
    """Returns the tables under a schema's name; the same ones each time."""
    metadata = MetaData(schema=schema)
    return Tables(
        metadata,
        jobs=_jobs(metadata),
        claims=_claims(metadata),
        workers=_workers(metadata),
        idlers=_idlers(metadata),
        waiters=_waiters(metadata),
        lanes=_lanes(metadata),
        duties=_duties(metadata),
        failures=_failures(metadata),
        logs=_logs(metadata),
        files=_files(metadata),
        rollups=_rollups(metadata),
        tasks=_tasks(metadata),
        audit=_audit(metadata),
        pauses=_pauses(metadata),
        holds=_holds(metadata),
        running=_running(metadata),
        queue_stats=_queue_stats(metadata),
        failed_by_fingerprint=_failed_by_fingerprint(metadata),
    )


def _time(name: str, **options: Any) -> Column[datetime]:
    return Column(name, DateTime(timezone=True), **options)


# Defaults and conditions are written as PostgreSQL gives them back, so that Alembic can compare them as text: comparing
# two calls of a volatile default would find a difference each time.


def _jobs(metadata: MetaData) -> Table:
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
        _time("run_at"),
        _time("due_at"),
        _time("expires_at"),
        _time("cancel_at"),
        _time("created_at", nullable=False, server_default=_NOW),
        _time("started_at"),
        _time("finished_at"),
        Column("timeout", Interval(), server_default=text("'01:00:00'::interval")),
        Column("claim_id", Uuid()),
        Column("unique_key", Text()),
        Column("reason", Text()),
        Column("args", JSONB(), nullable=False, server_default=_EMPTY),
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


def _claims(metadata: MetaData) -> Table:
    return Table(
        "claims",
        metadata,
        Column("id", Uuid(), primary_key=True),
        Column("worker_id", Uuid(), nullable=False),
        _time("claimed_at", nullable=False, server_default=_NOW),
        Column("job_ids", ARRAY(Uuid()), nullable=False),
        Column("positions", ARRAY(BigInteger()), nullable=False),
        Index("claims_worker", "worker_id"),
    )


def _workers(metadata: MetaData) -> Table:
    return Table(
        "workers",
        metadata,
        Column("id", Uuid(), primary_key=True),
        Column("supervisor_id", Uuid(), nullable=False),
        Column("name", Text(), nullable=False),
        Column("host", Text(), nullable=False),
        Column("pid", Integer(), nullable=False),
        Column("process", JSONB(), nullable=False, server_default=_EMPTY),
        Column("queues", ARRAY(Text()), nullable=False),
        Column("slots", Integer(), nullable=False),
        _time("started_at", nullable=False, server_default=_NOW),
        _time("seen_at", nullable=False, server_default=_NOW),
        _time("stopping_at"),
        _time("dead_at"),
        Column("beat", BigInteger(), nullable=False, server_default=text("0")),
        Column("missed_beat", BigInteger(), nullable=False, server_default=text("0")),
        Column("misses", SmallInteger(), nullable=False, server_default=text("0")),
    )


def _idlers(metadata: MetaData) -> Table:
    keys = Column("queue", Text(), primary_key=True), Column("worker_id", Uuid(), primary_key=True)
    return Table("idlers", metadata, *keys, _time("seen_at", nullable=False, server_default=_NOW))


def _waiters(metadata: MetaData) -> Table:
    key = Column("channel", Text(), primary_key=True)
    return Table("waiters", metadata, key, _time("seen_at", nullable=False, server_default=_NOW))


def _lanes(metadata: MetaData) -> Table:
    return Table(
        "lanes",
        metadata,
        Column("queue", Text(), primary_key=True),
        Column("priority", SmallInteger(), primary_key=True),
        Column("low", BigInteger(), nullable=False),
        _time("noted_at", nullable=False, server_default=_NOW),
    )


def _duties(metadata: MetaData) -> Table:
    return Table(
        "duties",
        metadata,
        Column("name", Text(), primary_key=True),
        Column("every", Interval(), nullable=False),
        _time("next_at", nullable=False, server_default=_NOW),
        _time("ran_at"),
        Column("holder", Uuid()),
        Column("state", JSONB()),
    )


def _failures(metadata: MetaData) -> Table:
    return Table(
        "failures",
        metadata,
        Column("id", BigInteger(), Identity(always=True), primary_key=True),
        Column("job_id", Uuid(), nullable=False),
        Column("attempt", SmallInteger(), nullable=False),
        _time("failed_at", nullable=False, server_default=_NOW),
        Column("reason", Text(), nullable=False),
        Column("exception", Text()),
        Column("message", Text()),
        Column("traceback", Text()),
        Column("fingerprint", Text()),
        Index("failures_job", "job_id"),
    )


def _logs(metadata: MetaData) -> Table:
    return Table(
        "logs",
        metadata,
        Column("id", BigInteger(), Identity(always=True), primary_key=True),
        Column("job_id", Uuid(), nullable=False),
        Column("attempt", SmallInteger(), nullable=False),
        _time("at", nullable=False, server_default=_NOW),
        Column("level", Text(), nullable=False),
        Column("line", Text(), nullable=False),
        Index("logs_job", "job_id"),
    )


def _files(metadata: MetaData) -> Table:
    return Table(
        "files",
        metadata,
        Column("job_id", Uuid(), primary_key=True),
        Column("name", Text(), primary_key=True),
        _time("created_at", nullable=False, server_default=_NOW),
        Column("content_type", Text()),
        Column("size", BigInteger(), nullable=False),
        Column("data", LargeBinary(), nullable=False),
    )


def _rollups(metadata: MetaData) -> Table:
    return Table(
        "rollups",
        metadata,
        _time("minute", nullable=False),
        Column("queue", Text(), nullable=False),
        Column("task", Text(), nullable=False),
        Column("status", Text(), nullable=False),
        Column("bucket", SmallInteger(), nullable=False),
        Column("jobs", BigInteger(), nullable=False),
        Column("seconds", _DOUBLE, nullable=False),
        Index("rollups_minute", "minute"),
    )


def _tasks(metadata: MetaData) -> Table:
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
        _time("published_at", nullable=False, server_default=_NOW),
    )


def _audit(metadata: MetaData) -> Table:
    return Table(
        "audit",
        metadata,
        Column("id", BigInteger(), Identity(always=True), primary_key=True),
        _time("at", nullable=False, server_default=_NOW),
        Column("actor", Text(), nullable=False),
        Column("action", Text(), nullable=False),
        Column("selection", JSONB(), nullable=False),
        Column("jobs", BigInteger(), nullable=False, server_default=text("0")),
    )


def _pauses(metadata: MetaData) -> Table:
    return Table(
        "pauses",
        metadata,
        Column("kind", Text(), primary_key=True),
        Column("name", Text(), primary_key=True),
        Column("reason", Text()),
        _time("paused_at", nullable=False, server_default=_NOW),
        _time("until"),
        CheckConstraint("kind IN ('queue', 'task')", name="pauses_kind_is_known"),
    )


def _holds(metadata: MetaData) -> Table:
    holds = Table(
        "holds",
        metadata,
        Column("job_id", Uuid(), primary_key=True),
        Column("kind", Text(), nullable=False),
        Column("name", Text()),
        Column("position", BigInteger()),
        _time("due_at"),
        _time("held_at", nullable=False, server_default=_NOW),
        CheckConstraint("kind IN ('job', 'task')", name="holds_kind_is_known"),
    )
    Index("holds_parked", holds.c.name, holds.c.position, postgresql_where=holds.c.kind == "task")
    return holds


def _running(metadata: MetaData) -> Table:
    return Table(
        "running",
        metadata,
        Column("id", Uuid()),
        Column("task", Text()),
        Column("queue", Text()),
        Column("priority", SmallInteger()),
        Column("attempt", SmallInteger()),
        Column("args", JSONB()),
        Column("progress", JSONB()),
        _time("claimed_at"),
        _time("started_at"),
        *(Column(name, Text()) for name in ("worker", "host")),
        Column("pid", Integer()),
        *(Column(name, Uuid()) for name in ("worker_id", "claim_id")),
        Column("timeout", Interval()),
        info={"is_view": True},
    )


def _queue_stats(metadata: MetaData) -> Table:
    counts = ("queued", "running", "scheduled", "succeeded", "failed", "cancelled", "expired", "retried")
    return Table(
        "queue_stats",
        metadata,
        Column("queue", Text()),
        *(Column(name, BigInteger()) for name in counts),
        _time("oldest_queued_at"),
        _time("next_due_at"),
        Column("mean_seconds", _DOUBLE),
        info={"is_view": True},
    )


def _failed_by_fingerprint(metadata: MetaData) -> Table:
    return Table(
        "failed_by_fingerprint",
        metadata,
        *(Column(name, Text()) for name in ("fingerprint", "task", "exception", "message")),
        *(Column(name, BigInteger()) for name in ("attempts", "jobs", "failed")),
        _time("first_at"),
        _time("last_at"),
        info={"is_view": True},
    )


_default: Final = tables()
metadata: Final = _default.metadata
jobs: Final = _default.jobs
claims: Final = _default.claims
workers: Final = _default.workers
idlers: Final = _default.idlers
waiters: Final = _default.waiters
lanes: Final = _default.lanes
duties: Final = _default.duties
failures: Final = _default.failures
logs: Final = _default.logs
files: Final = _default.files
rollups: Final = _default.rollups
tasks: Final = _default.tasks
audit: Final = _default.audit
pauses: Final = _default.pauses
holds: Final = _default.holds
running: Final = _default.running
queue_stats: Final = _default.queue_stats
failed_by_fingerprint: Final = _default.failed_by_fingerprint


class _Base(DeclarativeBase):
    """Apart from the application's own base, so that its metadata, and its Alembic, see nothing of these tables."""

    metadata = metadata


class JobRow(_Base):
    """A row of ``jobs``, to be read only; ``pgjobs.Job`` is the handle that acts."""

    __table__ = jobs

    id: Mapped[UUID]
    task: Mapped[str]
    queue: Mapped[str]
    status: Mapped[str]
    priority: Mapped[int]
    attempt: Mapped[int]
    max_attempts: Mapped[int]
    crashes: Mapped[int]
    blockers: Mapped[int]
    has_children: Mapped[bool]
    position: Mapped[int | None]
    run_at: Mapped[datetime | None]
    due_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]
    cancel_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    timeout: Mapped[timedelta | None]
    claim_id: Mapped[UUID | None]
    unique_key: Mapped[str | None]
    reason: Mapped[str | None]
    args: Mapped[dict[str, Any]]
    progress: Mapped[Any]
    result: Mapped[Any]
    meta: Mapped[Any]
    options: Mapped[Any]
    usage: Mapped[Any]
    output: Mapped[str | None]


def _refuse(mapper: object, connection: object, row: JobRow) -> None:
    raise PgJobsError(f"JobRow {row.id} is for reading; enqueue tasks, and steer jobs by the handle: jobs.job(id)")


for _moment in ("before_insert", "before_update", "before_delete"):
    event.listen(JobRow, _moment, _refuse)
