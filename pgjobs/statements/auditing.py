"""What is done to many jobs, and failures by what they have in common."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from pgjobs.statements.query import QUERIES, Statement, nothing, scalar


def read_only() -> Statement[None]:
    """Lets the transaction that has just begun write nothing."""
    return Statement(QUERIES["read_only"], {}, nothing)


def note_action(actor: str, action: str, selection: Mapping[str, Any]) -> Statement[int]:
    """Begins a line of the audit; returns its id."""
    params = {"actor": actor, "action": action, "selection": json.dumps(selection)}
    return Statement(QUERIES["note_action"], params, scalar)


def count_action(line: int, jobs: int) -> Statement[int]:
    """Adds changed jobs to a line of the audit; returns how many it has now."""
    return Statement(QUERIES["count_action"], {"id": line, "jobs": jobs}, scalar)


@dataclass(frozen=True, slots=True)
class Alike:
    """A row of ``pgjobs.failed_by_fingerprint``; exception and message are those of the last attempt."""

    fingerprint: str
    task: str
    exception: str | None
    message: str | None
    attempts: int
    jobs: int
    failed: int
    first_at: datetime
    last_at: datetime


def failures_alike(
    task: str | None, since_s: float | None, limit: int, fingerprint: str | None = None
) -> Statement[list[Alike]]:
    """Failed attempts by what they have in common, the latest first."""
    params = {"task": task, "since": since_s, "limit": limit, "fingerprint": fingerprint}
    return Statement(QUERIES["failures_alike"], params, lambda rows: [Alike(*row) for row in rows])


WINDOW: Final = 10_000
"""Failed attempts that are looked at where nobody asks for all: the last ones."""


def lately_alike(task: str | None, since_s: float | None, limit: int, window: int = WINDOW) -> Statement[list[Alike]]:
    """The last so many failed attempts by what they have in common, the latest first."""
    params = {"task": task, "since": since_s, "limit": limit, "window": window}
    return Statement(QUERIES["lately_alike"], params, lambda rows: [Alike(*row) for row in rows])


def more_failures(window: int = WINDOW) -> Statement[bool]:
    """Whether more failed attempts are kept than so many."""
    return Statement(QUERIES["more_failures"], {"window": window}, scalar)


@dataclass(frozen=True, slots=True)
class FailedJob:
    """A job that has failed as others have, with the last attempt that did."""

    id: UUID
    task: str
    queue: str
    status: str
    attempt: int
    failed_at: datetime
    traceback: str | None
    message: str | None


def jobs_alike(fingerprint: str, limit: int) -> Statement[list[FailedJob]]:
    """The jobs of which an attempt has failed so."""
    params = {"fingerprint": fingerprint, "limit": limit}
    return Statement(QUERIES["jobs_alike"], params, lambda rows: [FailedJob(*row) for row in rows])
