"""Reads for those who watch the whole: each is cheap on tables of any size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from pgjobs.statements.query import QUERIES, Statement, column, nothing


class Waits(NamedTuple):
    """For how many seconds the next job in line of a queue has waited, and those waited that began lately."""

    queue: str
    oldest_s: float | None
    p50_s: float | None
    p95_s: float | None


class Pace(NamedTuple):
    """What a queue has handled with one status: in the last hour; and lately, in the last since_s seconds."""

    queue: str
    status: str
    hour: int
    lately: int
    since_s: float | None


class Arrivals(NamedTuple):
    """How many jobs have come into a queue in the last span_s seconds."""

    queue: str
    jobs: int
    span_s: float


@dataclass(frozen=True, slots=True)
class TaskStats:
    """What a task has ended in the last hour, and how long its successful runs took, in seconds.

    queue is the one that it is published with, None where no worker has published it.
    """

    name: str
    succeeded: int
    failed: int
    retried: int
    mean_s: float | None
    p50_s: float | None
    p95_s: float | None
    queue: str | None


def without_jit() -> Statement[None]:
    """Lets the server compile nothing in this transaction."""
    return Statement(QUERIES["without_jit"], {}, nothing)


def blocked() -> Statement[dict[str, int]]:
    """How many jobs of each queue are blocked; estimated beyond a thousand."""
    return Statement(QUERIES["blocked"], {}, lambda rows: {row[0]: row[1] for row in rows})


def waits() -> Statement[list[Waits]]:
    """How long the jobs of each queue wait."""
    return Statement(QUERIES["waits"], {}, lambda rows: [Waits(*row) for row in rows])


def pace() -> Statement[list[Pace]]:
    """What each queue has handled in the last hour and in the last minutes."""
    return Statement(QUERIES["pace"], {}, lambda rows: [Pace(*row) for row in rows])


def arrivals() -> Statement[list[Arrivals]]:
    """How many jobs have come into each queue lately."""
    return Statement(QUERIES["arrivals"], {}, lambda rows: [Arrivals(*row) for row in rows])


def task_stats() -> Statement[list[TaskStats]]:
    """What each task has ended in the last hour."""
    return Statement(QUERIES["task_stats"], {}, lambda rows: [TaskStats(*row) for row in rows])


def held(limit: int) -> Statement[list[UUID]]:
    """Jobs that workers hold, those that were claimed last first."""
    return Statement(QUERIES["held"], {"limit": limit}, column)


def names() -> Statement[dict[str, list[str]]]:
    """The names of queues and tasks that are known, by kind: ``queue`` or ``task``."""
    return Statement(
        QUERIES["names"], {}, lambda rows: {kind: [n for k, n in rows if k == kind] for kind in ("queue", "task")}
    )
