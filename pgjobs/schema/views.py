"""The views, for reports; SQL makes them, and ``info["is_view"]`` marks them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, Interval, MetaData, SmallInteger, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

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


def task_stats(metadata: MetaData) -> Table:
    return Table(
        "task_stats",
        metadata,
        Column("task", Text()),
        *_handled(),
        *(Column(f"{name}_seconds", DOUBLE) for name in ("mean", "p50", "p95", "p99")),
        info={"is_view": True},
    )


def worker_stats(metadata: MetaData) -> Table:
    return Table(
        "worker_stats",
        metadata,
        Column("id", Uuid()),
        *(Column(name, Text()) for name in ("name", "host")),
        Column("pid", Integer()),
        Column("queues", ARRAY(Text())),
        *(Column(name, Integer()) for name in ("slots", "busy")),
        Column("held", BigInteger()),
        *(moment(name) for name in ("oldest_started_at", "started_at", "seen_at", "stopping_at", "quiet_at")),
        info={"is_view": True},
    )


def throughput(unit: str, metadata: MetaData) -> Table:
    """What was handled in each minute, hour or day."""
    return Table(
        f"throughput_{unit}",
        metadata,
        moment(unit),
        *(Column(name, Text()) for name in ("queue", "task")),
        *_handled(),
        Column("seconds", DOUBLE),
        info={"is_view": True},
    )


def waits(metadata: MetaData) -> Table:
    return Table(
        "waits",
        metadata,
        Column("queue", Text()),
        moment("oldest_since"),
        Column("oldest_seconds", DOUBLE),
        Column("started", BigInteger()),
        *(Column(f"{name}_seconds", DOUBLE) for name in ("p50", "p95", "max")),
        info={"is_view": True},
    )


def history(metadata: MetaData) -> Table:
    return Table(
        "history",
        metadata,
        Column("id", Uuid()),
        *(Column(name, Text()) for name in ("task", "queue", "status", "reason")),
        *(Column(name, SmallInteger()) for name in ("priority", "attempt", "max_attempts")),
        *(moment(name) for name in ("created_at", "run_at", "started_at", "finished_at")),
        *(Column(f"{name}_seconds", DOUBLE) for name in ("wait", "run")),
        *(Column(name, JSONB()) for name in ("args", "result", "meta")),
        info={"is_view": True},
    )


def _handled() -> list[Column[int]]:
    """What became of jobs, and of attempts that were not the last."""
    names = ("succeeded", "failed", "cancelled", "expired", "retried", "snoozed")
    return [Column(name, BigInteger()) for name in names]
