"""The views, for reports; SQL makes them, and ``info["is_view"]`` marks them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, Interval, MetaData, SmallInteger, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import JSONB

from pgjobs.schema.columns import DOUBLE, moment


def running(metadata: MetaData) -> Table:
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
        moment("claimed_at"),
        moment("started_at"),
        *(Column(name, Text()) for name in ("worker", "host")),
        Column("pid", Integer()),
        *(Column(name, Uuid()) for name in ("worker_id", "claim_id")),
        Column("timeout", Interval()),
        info={"is_view": True},
    )


def queue_stats(metadata: MetaData) -> Table:
    counts = ("queued", "running", "scheduled", "succeeded", "failed", "cancelled", "expired", "retried")
    return Table(
        "queue_stats",
        metadata,
        Column("queue", Text()),
        *(Column(name, BigInteger()) for name in counts),
        moment("oldest_queued_at"),
        moment("next_due_at"),
        Column("mean_seconds", DOUBLE),
        info={"is_view": True},
    )


def failed_by_fingerprint(metadata: MetaData) -> Table:
    return Table(
        "failed_by_fingerprint",
        metadata,
        *(Column(name, Text()) for name in ("fingerprint", "task", "exception", "message")),
        *(Column(name, BigInteger()) for name in ("attempts", "jobs", "failed")),
        moment("first_at"),
        moment("last_at"),
        info={"is_view": True},
    )
