"""What happens, as values: telemetry words them for the log, and whoever subscribes is told of them."""

from __future__ import annotations

import contextlib
import logging
import traceback
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened."""


@dataclass(frozen=True, slots=True)
class JobEvent(Event):
    """Something that happened to a job."""

    job_id: UUID
    task: str
    queue: str


@dataclass(frozen=True, slots=True)
class JobEnqueued(JobEvent):
    """A job was written; the caller's transaction may still be open."""


@dataclass(frozen=True, slots=True)
class JobStarted(JobEvent):
    """An attempt begins in this worker."""

    attempt: int


@dataclass(frozen=True, slots=True)
class JobSucceeded(JobEvent):
    """Its success stands in the table."""

    attempt: int
    seconds: float


@dataclass(frozen=True, slots=True)
class JobRetried(JobEvent):
    """An attempt has failed, and another one follows after delay_s."""

    attempt: int
    seconds: float
    delay_s: float
    reason: str
    exception: str | None
    message: str | None


@dataclass(frozen=True, slots=True)
class JobSnoozed(JobEvent):
    """It asked to be run later, or no task fits it here; the attempt does not count."""

    delay_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class JobFailed(JobEvent):
    """It is in the failed queue: its attempts are used up, or nothing is to be tried again."""

    attempt: int
    seconds: float
    reason: str
    exception: str | None
    message: str | None


@dataclass(frozen=True, slots=True)
class JobCancelled(JobEvent):
    """It was cancelled while it ran, by itself or by somebody."""

    attempt: int
    reason: str


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
    """Outcomes stand in the table. (Of pgjobs.running.outcome.Outcome.)"""

    outcomes: Sequence[Any]


@dataclass(frozen=True, slots=True)
class ClaimLost(Event):
    """An outcome came too late: its job belongs to another claim."""

    run: Any


@dataclass(frozen=True, slots=True)
class RaisedAfterCompletion(Event):
    """The code of a job raised after ``complete``: the success stands, and nothing else tells of the error."""

    run: Any
    traceback: str


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
class AlertTurned(Event):
    """An alert fires, still does, or is well again: firing, reminder, recovered."""

    name: str
    kind: str
    says: str


@dataclass(frozen=True, slots=True)
class AlertUndelivered(Event):
    """A target of an alert has not taken a message; given_up says that it is tried no more."""

    name: str
    target: str
    error: BaseException
    given_up: bool


@dataclass(frozen=True, slots=True)
class Quieted(Event):
    """A worker claims no more and stays, because somebody has said so; or it claims again."""

    name: str
    quiet: bool


@dataclass(frozen=True, slots=True)
class Trouble(Event):
    """A service of the worker met an error that it does not know; it goes on."""

    service: str
    error: BaseException


Listener: TypeAlias = Callable[[Event], None]


class Audience:
    """Who listens to which kinds of events. Nobody makes an event of a kind that nobody wants.

    A listener that raises is logged, and disturbs neither the others nor what has happened.
    """

    def __init__(self) -> None:
        self._listeners: dict[type[Event], tuple[Listener, ...]] = {}

    def add(self, listener: Listener, kinds: Sequence[type[Event]]) -> None:
        """Has a listener told of some kinds; a kind stands for those that are derived from it, too."""
        for kind in dict.fromkeys(each for asked in kinds for each in _derived(asked)):
            self._listeners[kind] = (*self._listeners.get(kind, ()), listener)

    def wants(self, *kinds: type[Event]) -> bool:
        """Whether somebody listens to one of these."""
        return any(kind in self._listeners for kind in kinds)

    def __call__(self, event: Event) -> None:
        for listener in self._listeners.get(type(event), ()):
            try:
                listener(event)
            except BaseException:  # SystemExit too: it would end the thread that it is told on, and nobody would notice
                with unfailing():
                    logging.getLogger("pgjobs").exception("a listener to %s raised", type(event).__name__)


@contextlib.contextmanager
def unfailing() -> Generator[None]:
    """Lets no error of a logging handler or filter out, for those who go on without it; it stands on standard error."""
    try:
        yield
    except Exception:
        with contextlib.suppress(Exception):
            traceback.print_exc()


def _derived(kind: type[Event]) -> list[type[Event]]:
    return [kind, *(each for derived in kind.__subclasses__() for each in _derived(derived))]
