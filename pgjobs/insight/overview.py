"""How the queues and the workers stand, as a whole: what ``pgjobs info`` and ``pgjobs top`` show."""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

from pgjobs import statements
from pgjobs.statements import Arrivals, Mark, Pace, Pause, Steps
from pgjobs.wording import about, rate

SUSPECT_S: Final = 6.0
"""A worker that has not been heard of for longer than two beats is suspect."""

WAITING: Final = ("running", "queued", "scheduled", "blocked")
"""How jobs stand that have not ended, in the order of a queue's bar."""

ENDED: Final = frozenset({"succeeded", "failed", "cancelled", "expired"})
LEAST_WINDOW_S: Final = 10.0
"""A rate is that of so many seconds at least, so that one job that has just ended makes no high one."""

LEAST_SPAN_S: Final = 5.0
"""Arrivals that were seen over less than that, because they were many at once, say nothing of what will come."""

LEVEL: Final = 0.05
"""A backlog whose change is a smaller share of what passes through is level: the figures know it no better."""


@dataclass(frozen=True, slots=True)
class QueueLine:
    """How one queue stands; oldest_s is the age of its longest waiting job, in seconds."""

    queue: str
    queued: int
    running: int
    scheduled: int
    succeeded: int
    failed: int
    cancelled: int
    expired: int
    retried: int
    oldest_s: float | None


@dataclass(frozen=True, slots=True)
class WorkerLine:
    """One worker that counts as alive."""

    id: UUID
    name: str
    host: str
    pid: int
    queues: list[str]
    slots: int
    started_at: datetime
    silent_s: float
    stopping: bool
    running: int
    quiet: bool = False

    @property
    def state(self) -> str:
        """What it does; ``suspect`` where it has been silent for longer than two beats."""
        if self.silent_s > SUSPECT_S:
            return "suspect"
        if self.stopping:
            return "stopping"
        if self.quiet:
            return "quiet"
        return "busy" if self.running else "idle"

    def document(self) -> dict[str, Any]:
        """As JSON shows it."""
        return asdict(self) | {"state": self.state}


@dataclass(frozen=True, slots=True)
class Forecast:
    """What becomes of a backlog if things go on as in the last minutes; by per_s jobs a second, for seconds."""

    course: Literal["drains", "grows", "level"]
    per_s: float
    seconds: float | None = None

    def __str__(self) -> str:
        if self.course == "drains":
            return f"drains in {about(self.seconds or 0)} at {rate(self.per_s)}"
        return f"grows by {rate(self.per_s)}" if self.course == "grows" else f"level at {rate(self.per_s)}"


@dataclass(frozen=True, slots=True)
class QueueView:
    """One queue with all that is known of it.

    Attributes:
        line: what it holds and has handled.
        blocked: jobs that are held or wait for others; estimated beyond a thousand.
        wait_p50_s, wait_p95_s: how long jobs waited that began lately, in seconds.
        hour: what it has handled in the last hour, by status.
        per_s: jobs that end a second, of late.
        arrivals_per_s: jobs that come in a second, in the last minute; None where that cannot be said.
        pause: where it is paused.
        is_served: whether a worker lives that claims from it.
    """

    line: QueueLine
    blocked: int = 0
    wait_p50_s: float | None = None
    wait_p95_s: float | None = None
    hour: dict[str, int] = field(default_factory=dict[str, int])
    per_s: float = 0.0
    arrivals_per_s: float | None = 0.0
    pause: Pause | None = None
    is_served: bool = True

    @property
    def name(self) -> str:
        """The name of the queue."""
        return self.line.queue

    @property
    def handled(self) -> int:
        """How many of its jobs have succeeded or failed."""
        return self.line.succeeded + self.line.failed

    @property
    def handled_hour(self) -> int:
        """How many of its jobs have succeeded or failed in the last hour."""
        return self.hour.get("succeeded", 0) + self.hour.get("failed", 0)

    @property
    def failed_hour(self) -> int:
        """How many of its jobs have failed in the last hour."""
        return self.hour.get("failed", 0)

    @property
    def waiting(self) -> tuple[int, ...]:
        """Its jobs that have not ended, in the order of WAITING."""
        return self.line.running, self.line.queued, self.line.scheduled, self.blocked

    @property
    def forecast(self) -> Forecast | None:
        """What becomes of its backlog; None where nothing can be said of that.

        A paused queue does not drain; where more is scheduled than waits, what comes next is not known; and so it is
        where nothing moves.
        """
        arriving = self.arrivals_per_s
        if self.pause or not self.line.queued or arriving is None or self.line.scheduled > self.line.queued:
            return None
        net, most = self.per_s - arriving, max(self.per_s, arriving)
        if not most:
            return None
        if abs(net) < LEVEL * most:
            return Forecast("level", self.per_s)
        return Forecast("grows", -net) if net < 0 else Forecast("drains", net, self.line.queued / net)

    def document(self) -> dict[str, Any]:
        """As JSON shows it."""
        forecast, pause = self.forecast, self.pause
        return asdict(self.line) | {
            "blocked": self.blocked,
            "wait_p50_s": self.wait_p50_s,
            "wait_p95_s": self.wait_p95_s,
            "handled": self.handled,
            "last_hour": {"handled": self.handled_hour, "failed": self.failed_hour},
            "per_s": round(self.per_s, 4),
            "arrivals_per_s": None if self.arrivals_per_s is None else round(self.arrivals_per_s, 4),
            "forecast": None if forecast is None else asdict(forecast),
            "paused": None
            if pause is None
            else {"reason": pause.reason, "since": pause.paused_at, "until": pause.until},
            "served": self.is_served,
        }


@dataclass(frozen=True, slots=True)
class Overview:
    """All of it at one moment."""

    queues: list[QueueView]
    workers: list[WorkerLine]
    hour: dict[str, int]
    unrunnable: list[tuple[str, str, int]]
    pauses: list[Pause]
    mark: Mark | None

    @property
    def states(self) -> Counter[str]:
        """How many workers there are in each state."""
        return Counter(worker.state for worker in self.workers)

    def document(self) -> dict[str, Any]:
        """As JSON shows it."""
        states = self.states
        return {
            "queues": [queue.document() for queue in self.queues],
            "workers": [worker.document() for worker in self.workers],
            "worker_states": {state: states[state] for state in ("busy", "idle", "quiet", "suspect", "stopping")},
            "last_hour": self.hour,
            "per_s": round(sum(queue.per_s for queue in self.queues), 4),
            "unrunnable": [{"task": task, "reason": reason, "jobs": jobs} for task, reason, jobs in self.unrunnable],
            "pauses": [pause._asdict() for pause in self.pauses],
            "last_mark": None if self.mark is None else asdict(self.mark),
        }


def overview() -> Steps[Overview]:
    """Reads it, in nine statements, none of which reads a large table as a whole."""
    lines = [QueueLine(*row) for row in (yield statements.queue_stats())]
    blocked: dict[str, int] = yield statements.blocked()
    waits = {each.queue: each for each in (yield statements.waits())}
    paces: list[Pace] = yield statements.pace()
    arrivals = {each.queue: each for each in (yield statements.arrivals())}
    workers = [WorkerLine(*row) for row in (yield statements.workers())]
    pauses: list[Pause] = yield statements.pauses()
    unrunnable: list[tuple[str, str, int]] = yield statements.unrunnable()
    mark: Mark | None = yield statements.last_mark()

    known = {line.queue: line for line in lines}
    paused = {pause.name: pause for pause in pauses if pause.kind == "queue"}
    for name in sorted((blocked.keys() | paused) - known.keys()):
        if not name.startswith("@"):
            known[name] = QueueLine(name, 0, 0, 0, 0, 0, 0, 0, 0, None)
    hour: Counter[str] = Counter()
    for pace in paces:
        hour[pace.status] += pace.hour
    queues: list[QueueView] = []
    for name, line in sorted(known.items()):
        own = [pace for pace in paces if pace.queue == name]
        wait = waits.get(name)
        queues.append(
            QueueView(
                replace(line, oldest_s=wait.oldest_s) if wait is not None else line,
                blocked.get(name, 0),
                wait and wait.p50_s,
                wait and wait.p95_s,
                {pace.status: pace.hour for pace in own},
                ends_per_s(own),
                per_s_of(arrivals.get(name)),
                paused.get(name),
                serves(workers, name),
            )
        )
    return Overview(queues, workers, dict(hour), unrunnable, pauses, mark)


def ends_per_s(paces: Iterable[Pace]) -> float:
    """How many jobs of a queue end a second, from what it has handled in the last minutes.

    The seconds count from the first of these minutes in which there was anything.
    """
    lately = [pace for pace in paces if pace.status in ENDED and pace.lately and pace.since_s is not None]
    if not lately:
        return 0.0
    return sum(pace.lately for pace in lately) / max(LEAST_WINDOW_S, *(pace.since_s or 0.0 for pace in lately))


def per_s_of(arrivals: Arrivals | None) -> float | None:
    """How many jobs come in a second; None where they came so many at once that nothing can be said of that."""
    if arrivals is None:
        return 0.0
    return None if arrivals.span_s < LEAST_SPAN_S else arrivals.jobs / arrivals.span_s


def serves(workers: Sequence[WorkerLine], queue: str) -> bool:
    """Whether one of some workers claims from a queue."""
    return any(
        fnmatch.fnmatchcase(queue, pattern)
        for worker in workers
        if worker.state in ("busy", "idle")
        for pattern in worker.queues
    )
