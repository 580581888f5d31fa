"""What the duties do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from pgjobs.statements.query import QUERIES, Row, Statement, column, nothing, scalar


@dataclass(frozen=True, slots=True)
class Duty:
    """A duty just taken; interrupted says that nobody ran it for a while, or not since the server's start."""

    name: str
    ran_at: datetime | None
    state: Any
    interrupted: bool


def take_duty(names: Sequence[str], worker: UUID) -> Statement[Duty | None]:
    """Takes the most overdue of the duties, for this transaction."""
    return Statement(
        QUERIES["take_duty"],
        {"names": list(names), "worker": worker},
        lambda rows: Duty(*rows[0]) if rows else None,
    )


def leave_duty(name: str, state: str | None, *, again: bool) -> Statement[None]:
    """Stores what the duty wants to remember; again asks for another run at once."""
    return Statement(QUERIES["leave_duty"], {"name": name, "state": state, "again": again}, nothing)


def put_off_duty(name: str) -> Statement[None]:
    """Says that a duty was tried, though it has failed."""
    return Statement(QUERIES["put_off_duty"], {"name": name}, nothing)


def add_duty(name: str, every_s: float) -> Statement[None]:
    """Makes a duty that no migration has made, if nobody has yet."""
    return Statement(QUERIES["add_duty"], {"name": name, "every": every_s}, nothing)


def duty_state(name: str) -> Statement[Any]:
    """What a duty remembers; an empty list where that is nothing yet, None where there is no such duty."""
    return Statement(QUERIES["duty_state"], {"name": name}, lambda rows: (rows[0][0] or []) if rows else None)


def promote(back_s: float | None = None) -> Statement[int]:
    """Queues up to 1,000 jobs that are due, for back_s at most if given; returns how many."""
    return Statement(QUERIES["promote"], {"back": back_s}, scalar)


def next_due(back_s: float | None = None) -> Statement[float | None]:
    """Seconds until the next scheduled job is due, of those that have been due for back_s at most if given."""
    return Statement(QUERIES["next_due"], {"back": back_s}, scalar)


def mark_silent(*, interrupted: bool) -> Statement[list[tuple[UUID, str]]]:
    """Counts misses; returns (id, name) of the workers that are dead now."""
    return Statement(
        QUERIES["mark_silent"],
        {"interrupted": interrupted},
        lambda rows: [(row[0], row[1]) for row in rows if row[2]],
    )


def reap(
    workers: Sequence[UUID] | None, begun: Sequence[UUID] | None, max_crashes: int, how: str
) -> Statement[list[tuple[UUID, str]]]:
    """Requeues jobs of dead workers, of the given ones or of all; returns (id, status) of at most 1,000."""
    params = {
        "workers": None if workers is None else list(workers),
        "begun": None if begun is None else list(begun),
        "max_crashes": max_crashes,
        "how": how,
    }
    return Statement(QUERIES["reap"], params, lambda rows: [(row[0], row[1]) for row in rows])


def forget_dead_claims() -> Statement[list[UUID]]:
    """Deletes claims of dead workers under which nothing runs."""
    return Statement(QUERIES["forget_dead_claims"], {}, column)


class Expired(NamedTuple):
    """How many jobs have ended, and rows of those that failed: as a claim's, and why."""

    jobs: int
    failed: list[Row]


def expire(since: Any) -> Statement[Expired]:
    """Ends waiting jobs whose ttl or deadline passed after since, 1,000 at most."""
    return Statement(
        QUERIES["expire"],
        {"since": since},
        lambda rows: Expired(rows[0][0], [row[1:] for row in rows if row[1] is not None]),
    )


@dataclass(frozen=True, slots=True)
class Pruned:
    """What one step of pruning did."""

    reached: UUID | None
    more: bool
    count: int


def prune(after: UUID, age_s: float, result_ttl_s: float, failed_ttl_s: float) -> Statement[Pruned]:
    """Deletes ended jobs past their retention among the next 1,000 ids after a cursor that are older than age."""
    params = {"after": after, "age": age_s, "result_ttl": result_ttl_s, "failed_ttl": failed_ttl_s}
    return Statement(QUERIES["prune"], params, lambda rows: Pruned(*rows[0]))


def roll_up() -> Statement[None]:
    """Merges the rollup rows of the last minutes."""
    return Statement(QUERIES["roll_up"], {}, nothing)


def coarsen(unit: str, since: str | None, age_s: float) -> Statement[datetime | None]:
    """Merges the rollups of 24 hours or days older than age, the first ones since a time; returns where they end."""
    params = {"unit": unit, "since": since, "age": age_s}
    return Statement(QUERIES["coarsen"], params, lambda rows: rows[0][0] if rows else None)


def tidy() -> Statement[None]:
    """Forgets workers, flags and waiters that are long gone."""
    return Statement(QUERIES["tidy"], {}, nothing)


def time_out(workers: Sequence[UUID] | None, ids: Sequence[UUID] | None) -> Statement[list[tuple[UUID, str]]]:
    """Ends overdue attempts: of the given jobs of the given workers, or all that are far over; returns (id, status)."""
    params = {"workers": None if workers is None else list(workers), "ids": None if ids is None else list(ids)}
    return Statement(QUERIES["time_out"], params, lambda rows: [(row[0], row[1]) for row in rows])
