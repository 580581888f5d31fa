"""What happens in a worker, as values; telemetry words them, and nobody else logs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened."""


@dataclass(frozen=True, slots=True)
class WorkerStarted(Event):
    """A worker has begun to claim."""

    name: str
    queues: str
    slots: int
    where: str
    tasks: int


@dataclass(frozen=True, slots=True)
class WorkerStopping(Event):
    """A worker claims no more; running jobs may finish for grace_s."""

    name: str
    running: int
    grace_s: float


@dataclass(frozen=True, slots=True)
class WorkerStopped(Event):
    """A worker has given back what it held."""

    name: str
    done: int
    released: int


@dataclass(frozen=True, slots=True)
class Recorded(Event):
    """Outcomes stand in the table. (Of pgjobs.run.Outcome.)"""

    outcomes: Sequence[Any]


@dataclass(frozen=True, slots=True)
class ClaimLost(Event):
    """An outcome came too late: its job belongs to another claim."""

    run: Any


@dataclass(frozen=True, slots=True)
class Unrunnable(Event):
    """Jobs went back because no task fits them: unknown name, or arguments that do not fit."""

    task: str
    reason: str
    jobs: int


@dataclass(frozen=True, slots=True)
class Released(Event):
    """Jobs went back to their places unrun."""

    jobs: int
    why: str


@dataclass(frozen=True, slots=True)
class DatabaseAway(Event):
    """The database cannot be reached; it is tried again and again."""

    error: str


@dataclass(frozen=True, slots=True)
class DatabaseBack(Event):
    """The database can be reached again."""

    after_s: float


@dataclass(frozen=True, slots=True)
class Unheard(Event):
    """Notifications don't arrive: a pooler in transaction mode sits before the server."""

    where: str


@dataclass(frozen=True, slots=True)
class Reaped(Event):
    """Jobs of dead workers were queued again, or given up as poison."""

    workers: Sequence[str]
    jobs: int
    poison: int


@dataclass(frozen=True, slots=True)
class TimedOut(Event):
    """Attempts that their workers could not stop were ended from outside."""

    jobs: Sequence[UUID]


@dataclass(frozen=True, slots=True)
class DeclaredDead(Event):
    """This worker was believed dead; it drops what it held and starts anew."""

    name: str


@dataclass(frozen=True, slots=True)
class Recycling(Event):
    """A worker leaves when it has drained, and a fresh process follows it."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Trouble(Event):
    """A service of the worker met an error that it does not know; it goes on."""

    service: str
    error: BaseException


Listener: TypeAlias = Callable[[Event], None]
