"""Pauses and holds, and moving jobs about; of statuses see ``controlling``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal, NamedTuple
from uuid import UUID

from pgjobs.arguments.codec import text_of
from pgjobs.statements.query import QUERIES, Statement, column, nothing, scalar

Kind = Literal["queue", "task"]


class Pause(NamedTuple):
    """A queue or a task that is paused; until is None where somebody has to resume it."""

    kind: Kind
    name: str
    reason: str | None
    paused_at: datetime
    until: datetime | None


class Paused(NamedTuple):
    """The names of what is paused."""

    queues: frozenset[str]
    tasks: frozenset[str]


def pause(
    kind: Kind, names: Sequence[str], reason: str | None, until: datetime | None, length: timedelta | None
) -> Statement[None]:
    """Pauses queues or tasks: until somebody resumes them, until a time, or for some time."""
    params = {"kind": kind, "names": list(names), "reason": _reason(reason), "until": until, "length": length}
    return Statement(QUERIES["pause"], params, nothing)


def resume(kind: Kind, names: Sequence[str]) -> Statement[list[str]]:
    """Ends pauses; returns the names that were paused."""
    return Statement(QUERIES["resume"], {"kind": kind, "names": list(names)}, column)


def unpark() -> Statement[int]:
    """Queues up to a thousand jobs of resumed tasks again; returns how many it has seen to."""
    return Statement(QUERIES["unpark"], {}, scalar)


def pauses() -> Statement[list[Pause]]:
    """What is paused, with reason and time."""
    return Statement(QUERIES["pauses"], {}, lambda rows: [Pause(*row) for row in rows])


def paused() -> Statement[Paused]:
    """The names of what is paused."""
    return Statement(
        QUERIES["paused"],
        {},
        lambda rows: Paused(*(frozenset(name for kind, name in rows if kind == each) for each in ("queue", "task"))),
    )


def end_pauses() -> Statement[None]:
    """Ends the pauses whose time is over."""
    return Statement(QUERIES["end_pauses"], {}, nothing)


def hold(ids: Sequence[UUID], reason: str | None, statuses: Sequence[str] | None = None) -> Statement[list[UUID]]:
    """Puts waiting jobs on hold; returns them."""
    params = {"ids": _texts(ids), "reason": _reason(reason), "statuses": _some(statuses)}
    return Statement(QUERIES["hold"], params, column)


def unhold(ids: Sequence[UUID]) -> Statement[list[UUID]]:
    """Lets jobs go that are on hold; returns them."""
    return Statement(QUERIES["unhold"], {"ids": _texts(ids)}, column)


def move(
    ids: Sequence[UUID], queue: str | None, priority: int | None, statuses: Sequence[str] | None = None
) -> Statement[list[UUID]]:
    """Gives waiting jobs another queue or priority; returns them."""
    params = {"ids": _texts(ids), "queue": queue, "priority": priority, "statuses": _some(statuses)}
    return Statement(QUERIES["move"], params, column)


def run_now(ids: Sequence[UUID]) -> Statement[list[UUID]]:
    """Queues scheduled jobs now; returns them."""
    return Statement(QUERIES["run_now"], {"ids": _texts(ids)}, column)


def _reason(reason: str | None) -> str | None:
    return None if reason is None else text_of(reason, "reason")


def _some(statuses: Sequence[str] | None) -> list[str] | None:
    return None if statuses is None else list(statuses)


def _texts(ids: Sequence[UUID]) -> list[str]:
    return [str(job_id) for job_id in ids]
