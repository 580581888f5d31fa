"""What runs leave behind, and what people have done."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Identity, Index, LargeBinary, MetaData, SmallInteger, Table, Text, Uuid, text
from sqlalchemy.dialects.postgresql import JSONB

from pgjobs.schema.columns import DOUBLE, NOW, moment


def failures(metadata: MetaData) -> Table:
    return Table(
        "failures",
        metadata,
        Column("id", BigInteger(), Identity(always=True), primary_key=True),
        Column("job_id", Uuid(), nullable=False),
        Column("attempt", SmallInteger(), nullable=False),
        moment("failed_at", nullable=False, server_default=NOW),
        Column("reason", Text(), nullable=False),
        Column("exception", Text()),
        Column("message", Text()),
        Column("traceback", Text()),
        Column("fingerprint", Text()),
        Index("failures_job", "job_id"),
        Index("failures_alike", text("coalesce(fingerprint, reason)")),
    )


def logs(metadata: MetaData) -> Table:
    return Table(
        "logs",
        metadata,
        Column("id", BigInteger(), Identity(always=True), primary_key=True),
        Column("job_id", Uuid(), nullable=False),
        Column("attempt", SmallInteger(), nullable=False),
        moment("at", nullable=False, server_default=NOW),
        Column("level", Text(), nullable=False),
        Column("line", Text(), nullable=False),
        Index("logs_job", "job_id"),
    )


def files(metadata: MetaData) -> Table:
    return Table(
        "files",
        metadata,
        Column("job_id", Uuid(), primary_key=True),
        Column("name", Text(), primary_key=True),
        moment("created_at", nullable=False, server_default=NOW),
        Column("content_type", Text()),
        Column("size", BigInteger(), nullable=False),
        Column("data", LargeBinary(), nullable=False),
    )


def rollups(metadata: MetaData) -> Table:
    return Table(
        "rollups",
        metadata,
        moment("minute", nullable=False),
        Column("queue", Text(), nullable=False),
        Column("task", Text(), nullable=False),
        Column("status", Text(), nullable=False),
        Column("bucket", SmallInteger(), nullable=False),
        Column("jobs", BigInteger(), nullable=False),
        Column("seconds", DOUBLE, nullable=False),
        Index("rollups_minute", "minute"),
    )


def audit(metadata: MetaData) -> Table:
    return Table(
        "audit",
        metadata,
        Column("id", BigInteger(), Identity(always=True), primary_key=True),
        moment("at", nullable=False, server_default=NOW),
        Column("actor", Text(), nullable=False),
        Column("action", Text(), nullable=False),
        Column("selection", JSONB(), nullable=False),
        Column("jobs", BigInteger(), nullable=False, server_default=text("0")),
    )


def marks(metadata: MetaData) -> Table:
    return Table(
        "marks",
        metadata,
        Column("id", BigInteger(), Identity(always=True), primary_key=True),
        moment("at", nullable=False, server_default=NOW),
        Column("text", Text(), nullable=False),
        Column("author", Text(), nullable=False, server_default=text("CURRENT_USER")),
        Column("host", Text()),
        Index("marks_at", "at"),
    )
