"""All tables of a schema, under its name."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from sqlalchemy import MetaData, Table

from pgjobs.config import DEFAULT_SCHEMA
from pgjobs.schema import fleet, traces, views, work


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables of one schema; the last ten, from ``running`` on, are views, marked ``info["is_view"]``."""

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
    marks: Table
    pauses: Table
    holds: Table
    alerts: Table
    running: Table
    queue_stats: Table
    failed_by_fingerprint: Table
    task_stats: Table
    worker_stats: Table
    throughput_minute: Table
    throughput_hour: Table
    throughput_day: Table
    waits: Table
    history: Table


@lru_cache
def tables(schema: str = DEFAULT_SCHEMA) -> Tables:
    """Returns the tables under a schema's name; the same ones each time."""
    metadata = MetaData(schema=schema)
    return Tables(
        metadata,
        jobs=work.jobs(metadata),
        claims=work.claims(metadata),
        workers=fleet.workers(metadata),
        idlers=fleet.idlers(metadata),
        waiters=fleet.waiters(metadata),
        lanes=fleet.lanes(metadata),
        duties=fleet.duties(metadata),
        failures=traces.failures(metadata),
        logs=traces.logs(metadata),
        files=traces.files(metadata),
        rollups=traces.rollups(metadata),
        tasks=fleet.tasks(metadata),
        audit=traces.audit(metadata),
        marks=traces.marks(metadata),
        pauses=work.pauses(metadata),
        holds=work.holds(metadata),
        alerts=fleet.alerts(metadata),
        running=views.running(metadata),
        queue_stats=views.queue_stats(metadata),
        failed_by_fingerprint=views.failed_by_fingerprint(metadata),
        task_stats=views.task_stats(metadata),
        worker_stats=views.worker_stats(metadata),
        throughput_minute=views.throughput("minute", metadata),
        throughput_hour=views.throughput("hour", metadata),
        throughput_day=views.throughput("day", metadata),
        waits=views.waits(metadata),
        history=views.history(metadata),
    )
