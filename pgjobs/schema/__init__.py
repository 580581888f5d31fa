"""The tables as SQLAlchemy sees them, for reports and for comparing a database with this release.

::

    select(schema.jobs.c.status, func.count()).group_by(schema.jobs.c.status)
    session.scalars(select(schema.JobRow).where(schema.JobRow.task == "mail.send"))

Where the schema has another name: ``tables("name").jobs``, and for the mapped class the execution option
``schema_translate_map={"pgjobs": "name"}``. The revisions make the tables; ``metadata.create_all()`` does not, for it
knows neither their functions nor their storage settings.
"""

from __future__ import annotations

from typing import Final

from pgjobs.schema.catalog import Tables, tables
from pgjobs.schema.mapped import JobRow

__all__ = [
    "JobRow",
    "Tables",
    "alerts",
    "audit",
    "claims",
    "duties",
    "failed_by_fingerprint",
    "failures",
    "files",
    "history",
    "holds",
    "idlers",
    "jobs",
    "lanes",
    "logs",
    "marks",
    "metadata",
    "pauses",
    "queue_stats",
    "rollups",
    "running",
    "tables",
    "task_stats",
    "tasks",
    "throughput_day",
    "throughput_hour",
    "throughput_minute",
    "waiters",
    "waits",
    "worker_stats",
    "workers",
]

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
marks: Final = _default.marks
pauses: Final = _default.pauses
holds: Final = _default.holds
alerts: Final = _default.alerts
running: Final = _default.running
queue_stats: Final = _default.queue_stats
failed_by_fingerprint: Final = _default.failed_by_fingerprint
task_stats: Final = _default.task_stats
worker_stats: Final = _default.worker_stats
throughput_minute: Final = _default.throughput_minute
throughput_hour: Final = _default.throughput_hour
throughput_day: Final = _default.throughput_day
waits: Final = _default.waits
history: Final = _default.history
