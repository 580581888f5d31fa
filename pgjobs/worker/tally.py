"""What a process of a worker counts for its supervisor: sums since the last time it told them, and no job by itself."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Final

import msgspec
import psycopg

from pgjobs.events import ClaimLost, DatabaseAway, Event, Reaped, Recorded, Released, Trouble
from pgjobs.running.outcome import Outcome

BUCKETS: Final = (
    0.001,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    300.0,
    900.0,
    3600.0,
)
"""Upper bounds of the histograms, in seconds; the last bucket, without one, follows them."""

MAX_NAMES: Final = 1_000
"""So many pairs of task and queue are told apart in a process; rows that SQL writes may have any name."""

OTHERS: Final = "(others)"


class Histogram(msgspec.Struct, array_like=True):
    """How many values fell into each bucket, and their sum."""

    counts: list[int]
    total: float

    def __post_init__(self) -> None:
        if len(self.counts) != len(BUCKETS) + 1:
            raise ValueError(f"{len(self.counts)} counts for {len(BUCKETS) + 1} buckets")

    @classmethod
    def empty(cls) -> Histogram:
        return cls([0] * (len(BUCKETS) + 1), 0.0)

    def add(self, values: Sequence[float]) -> None:
        """Counts some values."""
        counts = self.counts
        for value in values:
            counts[bisect_left(BUCKETS, value)] += 1
        self.total += sum(values)

    def merge(self, other: Histogram) -> None:
        """Adds another one's values."""
        self.counts = [mine + more for mine, more in zip(self.counts, other.counts, strict=True)]
        self.total += other.total


class Sums(msgspec.Struct):
    """What has happened. jobs: (task, queue, status, how many); counts: by the names of metrics; slots: now."""

    jobs: list[tuple[str, str, str, int]] = []
    runs: dict[str, Histogram] = {}
    waits: dict[str, Histogram] = {}
    counts: dict[str, int] = {}
    busy: int = 0
    slots: int = 0


class Tally:
    """Passes events on to a log, and counts them. ``take`` hands the sums over; both from any thread.

    A batch of outcomes costs one lock, and an outcome about half a microsecond.
    """

    def __init__(self, log: Callable[[Event], None]) -> None:
        self._log = log
        self._lock = threading.Lock()
        self._names: set[tuple[str, str]] = set()
        self._claims = 0
        self._clear()

    def _clear(self) -> None:
        self._jobs: Counter[tuple[str, str, str]] = Counter()
        self._runs: dict[str, Histogram] = {}
        self._waits: dict[str, Histogram] = {}
        self._counts: Counter[str] = Counter()

    def __call__(self, event: Event) -> None:
        self._log(event)
        with self._lock:
            match event:
                case Recorded():
                    self._recorded(event.outcomes)
                case Released():
                    self._counts["jobs_released"] += event.jobs
                case Reaped():
                    self._counts["jobs_reaped"] += event.jobs
                case ClaimLost():
                    self._counts["claims_lost"] += 1
                case DatabaseAway():
                    self._counts["database_errors"] += 1
                case Trouble() if isinstance(event.error, psycopg.Error):
                    self._counts["database_errors"] += 1
                case _:
                    pass

    def _recorded(self, outcomes: Sequence[Outcome]) -> None:
        clock = time.time() - time.perf_counter()
        for (name, place, status), alike in groupby(outcomes, _kind):
            ended = list(alike)
            task, queue = self._name(name, place)
            self._jobs[task, queue, status] += len(ended)
            ran = [outcome for outcome in ended if outcome.run.begun]
            _add(self._runs, task, [outcome.seconds for outcome in ran])
            first = [outcome.run for outcome in ran if outcome.run.attempt == 1]
            _add(self._waits, task, [max(0.0, run.begun + clock - run.created_at.timestamp()) for run in first])

    def _name(self, task: str, queue: str) -> tuple[str, str]:
        pair = (task, queue)
        if pair not in self._names:
            if len(self._names) >= MAX_NAMES:
                return OTHERS, OTHERS
            self._names.add(pair)
        return pair

    def take(self, busy: int = 0, slots: int = 0, claims: int = 0) -> Sums:
        """Hands over what has happened since the last time.

        Args:
            claims: how many there were in this life of the worker; a smaller number than before is another life's.
        """
        with self._lock:
            self._counts["claims"] += claims - self._claims if claims >= self._claims else claims
            self._claims = claims
            jobs = [(*names, count) for names, count in self._jobs.items()]
            sums = Sums(jobs, self._runs, self._waits, {k: n for k, n in self._counts.items() if n}, busy, slots)
            self._clear()
            return sums


def _kind(outcome: Outcome) -> tuple[str, str, str]:
    run = outcome.run
    return run.task_name, run.queue, outcome.status


def _add(histograms: dict[str, Histogram], task: str, values: Sequence[float]) -> None:
    if not values:
        return
    if (histogram := histograms.get(task)) is None:
        histogram = histograms[task] = Histogram.empty()
    histogram.add(values)
