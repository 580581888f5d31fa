"""What a run says of itself while it runs, kept in memory until its worker writes it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pgjobs.arguments.codec import Json

if TYPE_CHECKING:
    from pgjobs.running.run import Run

FLUSH_S: Final = 0.5
"""How often a worker writes what its runs have said."""

SOON_S: Final = 0.05
"""How soon after a silence."""

MAX_LINE: Final = 4_000
"""Characters of a log line that are kept."""

MAX_LINES: Final = 10_000
"""Lines of an attempt that are kept."""

MAX_FILE_BYTES: Final = 10_000_000


class Line(NamedTuple):
    """A log line; at is of time.time."""

    at: float
    level: str
    text: str


class Child(NamedTuple):
    """A job that is enqueued when another succeeds: its columns, as JSON has them; durations in seconds."""

    id: str
    task: str
    queue: str
    priority: int
    max_attempts: int
    timeout_s: float | None
    delay_s: float | None
    run_at: str | None
    ttl_s: float | None
    args: str
    options: str | None
    meta: str | None
    lifo: bool


@dataclass(slots=True)
class Said:
    """What a run has said since it was last written; None for nothing."""

    run: Run
    progress: dict[str, Json] | None = None
    meta: dict[str, Json] | None = None
    timeout_s: float | None = None
    lines: list[Line] = field(default_factory=list[Line])

    def before(self, later: Said) -> None:
        """Adds what was said later."""
        self.progress = later.progress or self.progress
        self.meta = {**(self.meta or {}), **(later.meta or {})} or None
        self.timeout_s = later.timeout_s or self.timeout_s
        self.lines += later.lines


class Report:
    """What a worker keeps of a run that has said something."""

    __slots__ = ("children", "closed", "lines", "meta", "pending", "progress", "timeout_s")

    def __init__(self) -> None:
        self.pending: Said | None = None
        self.progress: dict[str, Json] | None = None
        self.meta: dict[str, Json] | None = None
        self.lines = 0
        self.children: list[Child] = []
        self.timeout_s: float | None = None
        self.closed = False


class Desk:
    """Where the runs of a worker say something; ``take`` hands it over to be written.

    Attributes:
        jobs: the application's PgJobs.
        parents: runs that enqueue others when they succeed.
        resources: what the application's lifespan has given.
        max_file_bytes: the largest file that a job may attach.

    Args:
        wake: called when there is something to write, and there was not.
        extended: called when the timeout of a run has become longer.
        every_s: how often something is written.
    """

    def __init__(
        self,
        wake: Callable[[], None] = lambda: None,
        extended: Callable[[Run], None] = lambda run: None,
        every_s: float = FLUSH_S,
    ) -> None:
        self.jobs: Any = None
        self.parents: set[Run] = set()
        self.resources: Any = None
        self.max_file_bytes = MAX_FILE_BYTES
        self._wake = wake
        self._extended = extended
        self._every_s = every_s
        self._lock = threading.Lock()
        self._dirty: set[Run] = set()
        self._longer: set[Run] = set()
        self._due_at = float("inf")
        self._taken_at = 0.0

    # -- the job's side

    def progress(self, run: Run, value: dict[str, Json]) -> None:
        """Says how far a run has come."""
        report_of(run).progress = value
        self.hear(Said(run, progress=value))

    def meta(self, run: Run, changes: dict[str, Json]) -> None:
        """Changes a run's meta."""
        report = report_of(run)
        report.meta = {**(report.meta or {}), **changes}
        run.meta = {**(run.meta or {}), **changes}
        self.hear(Said(run, meta=changes))

    def line(self, run: Run, level: str, text: str) -> None:
        """Logs a line, sealed where the task encrypts; a long one is cut, and what comes after many is left out."""
        report = report_of(run)
        report.lines += 1
        if report.lines > MAX_LINES + 1:
            return
        if report.lines > MAX_LINES:
            level, text = "warning", f"[no more is kept: {MAX_LINES:,} lines of one attempt]"
        elif len(text) > MAX_LINE:
            text = f"{text[:MAX_LINE]} [… {len(text) - MAX_LINE:,} characters more]"
        self.hear(Said(run, lines=[Line(time.time(), level, run.task.signature.seal(text))]))

    def extend(self, run: Run, more_s: float) -> None:
        """Gives a run more time; without a timeout it has all of it."""
        if run.timeout_s is not None:
            self.hear(Said(run, timeout_s=run.timeout_s + more_s))

    def follow(self, run: Run, child: Child) -> None:
        """Has a job enqueued when a run succeeds."""
        report_of(run).children.append(child)
        self.parents.add(run)

    def hear(self, said: Said) -> None:
        """Takes what a run has said."""
        run = said.run
        report = report_of(run)
        if report.closed:
            return  # it goes on beside its own retry
        with self._lock:
            if report.pending is None:
                report.pending = said
            else:
                report.pending.before(said)
            fresh = not self._dirty
            self._dirty.add(run)
            if fresh:
                self._due_at = max(time.monotonic() + SOON_S, self._taken_at + self._every_s)
        if said.timeout_s is not None:
            if report.timeout_s is None:
                report.timeout_s = run.timeout_s
                self._longer.add(run)
            run.timeout_s = said.timeout_s
            self._extended(run)
        if fresh:
            self._wake()

    # -- the worker's side

    @property
    def due_in_s(self) -> float:
        """Seconds until something is to be written; infinite if nothing is."""
        return self._due_at - time.monotonic()

    @property
    def is_empty(self) -> bool:
        """Whether nothing is to be written, now or when a run ends."""
        return not (self._dirty or self._longer)

    def take(self, now: Collection[Run] = (), *, ended: bool = True) -> list[Said]:
        """Hands over what is to be written: of all runs if it is due, else of some, which have ended as a rule."""
        if self.is_empty:
            return []
        with self._lock:
            due = time.monotonic() >= self._due_at
            taken = list(self._dirty) if due else [run for run in now if run in self._dirty]
            if ended and self._longer:
                taken += [run for run in now if run in self._longer and run not in taken]
                self._longer.difference_update(now)
            self._dirty.difference_update(taken)
            if due:
                self._taken_at = time.monotonic()
            if not self._dirty:
                self._due_at = float("inf")
            return [said for run in taken if (said := _emptied(run, ended=ended and run in now)) is not None]

    def state(self, run: Run) -> Said | None:
        """The last progress of a run and all changes of its meta, written or not, for its own transaction."""
        report = run.report
        if report is None or not (report.progress or report.meta):
            return None
        return Said(run, progress=report.progress, meta=report.meta)

    def put_back(self, unwritten: Iterable[Said]) -> None:
        """Takes back what could not be written, below what was said since."""
        with self._lock:
            for said in unwritten:
                report = report_of(said.run)
                if report.closed:
                    continue
                if report.pending is not None:
                    said.before(report.pending)
                report.pending = said
                self._dirty.add(said.run)
                self._due_at = min(self._due_at, time.monotonic() + self._every_s)

    def close(self, run: Run) -> None:
        """Forgets a run whose end is recorded."""
        report_of(run).closed = True
        with self._lock:
            self.parents.discard(run)
            self._dirty.discard(run)
            self._longer.discard(run)


def report_of(run: Run) -> Report:
    """A run's report, which begins with the first word."""
    if run.report is None:
        run.report = Report()
    return run.report


def _emptied(run: Run, *, ended: bool) -> Said | None:
    """Takes what is pending. A later attempt has its own timeout again; a job that has completed is let alone."""
    report = report_of(run)
    said, report.pending = report.pending or Said(run), None
    if run.completed:
        return Said(run, lines=said.lines) if said.lines else None
    if ended and report.timeout_s is not None:
        said.timeout_s = report.timeout_s
    return said
