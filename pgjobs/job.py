"""What a job is: its statuses, its id, the row to be written and the row as it was read."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, NamedTuple
from uuid import UUID

from pgjobs.arguments.codec import Json
from pgjobs.errors import OptionError
from pgjobs.terms.depth import Depth
from pgjobs.terms.unique import Unique
from pgjobs.wording import given


class Status(StrEnum):
    """Where a job stands."""

    SCHEDULED = "scheduled"
    BLOCKED = "blocked"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def ended(self) -> bool:
        """Whether a job in this status changes no more, unless somebody retries it."""
        return self in ENDED


ENDED: Final = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELLED, Status.EXPIRED})


def new_ids(count: int) -> list[UUID]:
    """Makes UUIDv7s, ascending (RFC 9562, method 3: twelve bits below the millisecond)."""
    nanoseconds = time.time_ns()
    noise = os.urandom(8 * count)
    return [
        UUID(int=_uuid7(nanoseconds + index * 250, int.from_bytes(noise[8 * index : 8 * index + 8], "big")))
        for index in range(count)
    ]


def new_id() -> UUID:
    """Makes one UUIDv7."""
    return UUID(int=_uuid7(time.time_ns(), int.from_bytes(os.urandom(8), "big")))


def _uuid7(nanoseconds: int, noise: int) -> int:
    milliseconds, rest = divmod(nanoseconds, 1_000_000)
    return milliseconds << 80 | 7 << 76 | rest * 4096 // 1_000_000 << 64 | 2 << 62 | noise >> 2


def as_id(value: UUID | str) -> UUID:
    """Returns a job's id.

    Raises:
        OptionError: it is no UUID.
    """
    try:
        return value if isinstance(value, UUID) else UUID(value)
    except (ValueError, AttributeError, TypeError):
        raise OptionError(f"job id {given(value)} is not a UUID; give one, or its text, such as str(job.id)") from None


@dataclass(frozen=True, slots=True)
class Template:
    """All that one call of enqueue says of a job but its id and arguments: compiled once, used for many rows.

    At most one of delay and run_at is set. options and meta are JSON texts.
    """

    task: str
    queue: str
    priority: int
    max_attempts: int
    timeout: timedelta | None
    delay: timedelta | None = None
    run_at: datetime | None = None
    ttl: timedelta | None = None
    options: str | None = None
    meta: str | None = None
    lifo: bool = False
    unique: Unique | None = None
    here: bool = False
    depth: Depth | None = None

    @property
    def waits(self) -> bool:
        """Whether the job may be due later than now."""
        return self.delay is not None or self.run_at is not None

    @property
    def is_plain(self) -> bool:
        """Whether the shortest INSERT is enough: the job is as most are."""
        return not (self.waits or self.lifo or self.meta or self.unique or self.here or self.depth)


class Draft(NamedTuple):
    """What one call adds to its template: args is JSON text, job_id the caller's own id, key what it is unique by."""

    args: str
    job_id: UUID | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class JobRow:
    """A row of ``pgjobs.jobs`` as it was read; the columns by their names."""

    id: UUID
    task: str
    queue: str
    status: Status
    priority: int
    attempt: int
    max_attempts: int
    crashes: int
    run_at: datetime | None
    due_at: datetime | None
    expires_at: datetime | None
    cancel_at: datetime | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    timeout: timedelta | None
    reason: str | None
    args: dict[str, Json]
    progress: Json
    result: Json
    meta: Json
    options: dict[str, Any] | None
    usage: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class FailureRow:
    """A row of ``pgjobs.failures``: one failed attempt."""

    attempt: int
    failed_at: datetime
    reason: str
    exception: str | None
    message: str | None
    traceback: str | None
    fingerprint: str | None


@dataclass(frozen=True, slots=True)
class LogRow:
    """A row of ``pgjobs.logs``: a line that a job has logged."""

    id: int
    attempt: int
    at: datetime
    level: str
    line: str


@dataclass(frozen=True, slots=True)
class FileRow:
    """A row of ``pgjobs.files``, without its contents; size is in bytes."""

    name: str
    created_at: datetime
    content_type: str | None
    size: int
