"""Reads for people: jobs, failures, workers, statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Final
from uuid import UUID

from pgjobs.job import FailureRow, JobRow, Status
from pgjobs.statements.query import QUERIES, Query, Row, Rows, Statement, column, rows

_JOB_COLUMNS: Final = tuple(field.name for field in fields(JobRow))


def _job_row(row: Row) -> JobRow:
    values: dict[str, Any] = dict(zip(_JOB_COLUMNS, row, strict=True))
    values["status"] = Status(values["status"])
    return JobRow(**values)


def job(job_id: UUID) -> Statement[JobRow | None]:
    """One job as it stands."""
    return Statement(QUERIES["job"], {"id": str(job_id)}, lambda rows: _job_row(rows[0]) if rows else None)


def jobs_by_id(ids: Sequence[UUID]) -> Statement[dict[UUID, JobRow]]:
    """Some jobs as they stand."""
    params = {"ids": [str(job_id) for job_id in ids]}
    return Statement(QUERIES["jobs_by_id"], params, lambda rows: {row[0]: _job_row(row) for row in rows})


def ended(ids: Sequence[UUID]) -> Statement[dict[UUID, JobRow | None]]:
    """Of some jobs those that have ended; None for those that are not there."""
    params = {"ids": [str(job_id) for job_id in ids]}
    return Statement(
        QUERIES["ended"], params, lambda rows: {row[0]: None if row[3] is None else _job_row(row) for row in rows}
    )


def output(job_id: UUID) -> Statement[str | None]:
    """The last of what a job has written."""
    return Statement(QUERIES["output"], {"id": str(job_id)}, lambda rows: rows[0][0] if rows else None)


def statuses(ids: Sequence[UUID]) -> Statement[dict[UUID, Status]]:
    """How some jobs stand."""
    params = {"ids": [str(job_id) for job_id in ids]}
    return Statement(QUERIES["statuses"], params, lambda rows: {row[0]: Status(row[1]) for row in rows})


@dataclass(frozen=True, slots=True)
class Selection:
    """Jobs by what they have in common; None for any. age_s: enqueued at least so many seconds ago.

    where is a condition in SQL: only who could run it anyway may give it, in a transaction that can write nothing.
    """

    statuses: list[str]
    queue: str | None = None
    task: str | None = None
    age_s: float | None = None
    fingerprint: str | None = None
    where: str | None = None

    def params(self) -> dict[str, Any]:
        """As the queries take it."""
        return {
            "statuses": self.statuses,
            "queue": self.queue,
            "task": self.task,
            "age": self.age_s,
            "fingerprint": self.fingerprint,
        }


def _chosen(name: str, chosen: Selection) -> Query:
    return QUERIES[name].alike(chosen.fingerprint).where(chosen.where)


def count_jobs(chosen: Selection) -> Statement[dict[str, int]]:
    """How many there are of each status."""
    query = _chosen("count_jobs", chosen)
    return Statement(query, chosen.params(), lambda rows: {row[0]: row[1] for row in rows})


def select_jobs(chosen: Selection, after: UUID, limit: int) -> Statement[list[UUID]]:
    """The next ids after one, in order."""
    query = _chosen("select_jobs", chosen)
    return Statement(query, chosen.params() | {"after": str(after), "limit": limit}, column)


def jobs(chosen: Selection, limit: int) -> Statement[list[JobRow]]:
    """The latest of them, newest first."""
    params = chosen.params() | {"limit": limit}
    return Statement(_chosen("jobs", chosen), params, lambda rows: [_job_row(row) for row in rows])


def export_jobs(chosen: Selection, ids: Sequence[UUID] | None = None) -> Statement[list[JobRow]]:
    """The rows of jobs in order of their ids: of those given, or of all that are chosen."""
    query = _chosen("export_jobs", chosen)
    params = chosen.params() | {"ids": None if ids is None else [str(job_id) for job_id in ids]}
    return Statement(query, params, lambda rows: [_job_row(row) for row in rows])


def unrunnable() -> Statement[list[tuple[str, str, int]]]:
    """Rows of (task, reason, jobs) that no worker can run as things are."""
    return Statement(QUERIES["unrunnable"], {}, lambda rows: [(row[0], row[1], row[2]) for row in rows])


def failures(job_id: UUID) -> Statement[list[FailureRow]]:
    """The failed attempts of one job, first to last."""
    return Statement(QUERIES["failures"], {"id": str(job_id)}, lambda rows: [FailureRow(*row) for row in rows])


def queue_stats() -> Statement[Rows]:
    """How every queue stands."""
    return Statement(QUERIES["queue_stats"], {}, rows)


def workers() -> Statement[Rows]:
    """The workers that count as alive."""
    return Statement(QUERIES["workers"], {}, rows)


def throughput(minutes: int) -> Statement[dict[str, int]]:
    """What was handled in the last minutes, by status."""
    return Statement(QUERIES["throughput"], {"minutes": minutes}, lambda rows: {row[0]: row[1] for row in rows})


def schema_revision() -> Statement[tuple[str, str]]:
    """The revision that the tables are at, and the oldest one whose release works on them; empty where none is."""
    return Statement(QUERIES["schema_revision"], {}, lambda rows: (rows[0][0], rows[0][1]) if rows else ("", ""))
