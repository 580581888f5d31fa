"""What has happened to jobs of late, from what the tables say."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from pgjobs.statements.query import QUERIES, Statement


class Changed(NamedTuple):
    """A job that was enqueued, started or ended lately, or is held; now is the database's."""

    id: UUID
    task: str
    queue: str
    status: str
    attempt: int
    max_attempts: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    due_at: datetime | None
    reason: str | None
    now: datetime


class FailedAttempt(NamedTuple):
    """An attempt that has failed; last says that its job has failed with it."""

    id: int
    at: datetime
    job_id: UUID
    attempt: int
    reason: str
    exception: str | None
    message: str | None
    task: str
    queue: str
    last: bool
    due_at: datetime | None


class LoggedLine(NamedTuple):
    """A line that a job has logged."""

    id: int
    at: datetime
    job_id: UUID
    attempt: int
    level: str
    line: str
    task: str
    queue: str


class Scope(NamedTuple):
    """Whose happenings are wanted; None for any."""

    queue: str | None = None
    task: str | None = None
    job: UUID | None = None

    def params(self) -> dict[str, str | None]:
        """As the queries take it."""
        return {"queue": self.queue, "task": self.task, "job": None if self.job is None else str(self.job)}


def changed(scope: Scope, since: datetime, watched: Collection[UUID], limit: int) -> Statement[list[Changed]]:
    """Jobs that something has happened to after a moment; at most so many from each place where they are looked for."""
    params = {**scope.params(), "since": since, "watched": [str(each) for each in watched], "limit": limit}
    return Statement(QUERIES["changed"], params, lambda rows: [Changed(*row) for row in rows])


def failed_after(scope: Scope, after: int, limit: int) -> Statement[list[FailedAttempt]]:
    """The last attempts that have failed after the one with that id, in order."""
    params = {**scope.params(), "after": after, "limit": limit}
    return Statement(QUERIES["failed_after"], params, lambda rows: [FailedAttempt(*row) for row in rows])


def logged_after(scope: Scope, after: int, limit: int) -> Statement[list[LoggedLine]]:
    """The last lines that were logged after the one with that id, in order."""
    params = {**scope.params(), "after": after, "limit": limit}
    return Statement(QUERIES["logged_after"], params, lambda rows: [LoggedLine(*row) for row in rows])
