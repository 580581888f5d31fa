"""The slots of a worker: jobs that wait for one, jobs that hold one, and outcomes that wait to be recorded."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Final, Protocol
from uuid import UUID

from pgjobs.running.outcome import Outcome, unstarted
from pgjobs.running.run import Run
from pgjobs.worker.board import Board

FLUSH_S: Final = 0.010
"""The longest that an outcome waits for others before it is recorded."""

BUFFER_S: Final = 0.100
"""How much work, in seconds, is claimed ahead of the free slots."""

MAX_BUFFER: Final = 2_000
STALE_S: Final = 0.5
"""A job that has waited this long for a slot goes back, for others to run."""

BREATH_S: Final = 1.0
"""So long nothing is claimed once a job could not be started: others may have threads to spare for it."""


class Executor(Protocol):
    """Runs jobs: ``start`` hands over a run that holds a slot; the executor calls ``finish`` with its outcome."""

    def start(self, run: Run) -> None: ...
    def cancel(self, run: Run) -> None: ...
    def interrupt(self) -> None: ...
    def close(self) -> None: ...


class Slots:
    """Hands claimed jobs to executors as slots become free, in the order of the claims.

    Invariant, under the lock: free and running slots together are all; a job is in exactly one of waiting, running,
    finished.
    An executor that finishes a run takes the next one of its kind in the same step, so that tiny jobs cost no
    hand-over.
    """

    def __init__(self, count: int, ready: Callable[[], None], board: Board | None = None) -> None:
        self.count = count
        self._board = board
        self._ready = ready
        self._lock = threading.Lock()
        self._free = list(range(count))
        self._waiting: deque[Run] = deque()
        self._running: set[Run] = set()
        self._finished: list[Outcome] = []
        self._finished_since = 0.0
        self._executors: Mapping[str, Executor] = {}
        self._flush_at = 1
        self._rate = 0.0
        self._cap = MAX_BUFFER
        self._measured_at = time.perf_counter()
        self._was_busy = False
        self._breathes_until = 0.0
        self.done = 0

    def serve(self, executors: Mapping[str, Executor]) -> None:
        """Names the executors, by the kinds that runs carry."""
        self._executors = executors

    # -- the executors' side

    def finish(self, outcome: Outcome, executor: str) -> Run | None:
        """Takes an outcome; returns the next run if it is for the same executor, else gives the slot back."""
        with self._lock:
            run = outcome.run
            if run not in self._running:
                return None  # given up, while the code went on: its job has been given back
            self._running.remove(run)
            if self._board is not None:
                self._board.end(run.slot)
            finished = self._finished
            finished.append(outcome)
            waiting = self._waiting
            if waiting and waiting[0].executor == executor:
                following = waiting.popleft()
                following.slot = run.slot
                self._running.add(following)
                tell = len(finished) == self._flush_at
            else:
                following = None
                self._free.append(run.slot)
                if waiting:
                    self._grant()
                tell = len(finished) >= self._flush_at or not self._running
            if len(finished) == 1:
                self._finished_since = time.perf_counter()
                tell = True
        if tell:
            self._ready()
        return following

    def _grant(self) -> None:
        while self._free and self._waiting:
            run = self._waiting.popleft()
            run.slot = self._free.pop()
            self._running.add(run)
            try:
                self._executors[run.executor].start(run)
            except Exception as error:  # the system has no thread, process or file for it
                self._send_back(run, error)

    def _send_back(self, run: Run, error: Exception) -> None:
        self._running.remove(run)
        self._vacate(run.slot)
        self._finished.append(unstarted(run, error))
        self._breathes_until = time.perf_counter() + BREATH_S
        self._ready()

    def _vacate(self, slot: int) -> None:
        self._free.append(slot)
        if self._board is not None:
            self._board.end(slot)

    def began(self, run: Run) -> None:
        """Says that a run's code begins now, for the supervisor to know if this process dies or hangs."""
        if self._board is not None and run in self._running:
            self._board.begin(run.slot, run.id, 0.0 if run.timeout_s is None else run.begun + run.timeout_s)

    def handled(self, run: Run) -> None:
        """Says that the end of an overdue run is being seen to, so that the supervisor need not."""
        if self._board is not None and run in self._running:
            self._board.begin(run.slot, run.id, 0.0)

    def cancel(self, stops: Container[tuple[UUID, UUID]]) -> list[Run]:
        """Has runs of these jobs and claims stopped; hands over those that wait, to be given back.

        By the job alone a new run would be stopped in place of a former one, which goes on after its end was recorded.
        """
        with self._lock:
            for run in self._running:
                if run.key in stops and not run.cancelled:
                    self._executors[run.executor].cancel(run)
            idle = [run for run in self._waiting if run.key in stops]
            self._waiting = deque(run for run in self._waiting if run.key not in stops)
            return idle

    # -- the claimer's side

    def add(self, runs: Iterable[Run]) -> None:
        """Takes claimed jobs, and starts what it can."""
        with self._lock:
            self._begin_measuring()
            self._waiting.extend(runs)
            self._grant()

    def add_first(self, runs: Sequence[Run]) -> None:
        """Takes jobs that have waited elsewhere for their turn: before those that wait here."""
        with self._lock:
            self._begin_measuring()
            self._waiting.extendleft(reversed(runs))
            self._grant()

    def _begin_measuring(self) -> None:
        if not self._was_busy:
            self._was_busy = True
            self._measured_at = time.perf_counter()

    def put_back(self, outcomes: Iterable[Outcome]) -> None:
        """Takes outcomes that could not be recorded yet."""
        with self._lock:
            self._finished[:0] = outcomes
            self._finished_since = time.perf_counter()

    def take_finished(self) -> list[Outcome]:
        """Hands over the outcomes so far."""
        with self._lock:
            outcomes, self._finished = self._finished, []
            self._measure(len(outcomes))
            self.done += sum(outcome.ending != "released" for outcome in outcomes)
            return outcomes

    def _measure(self, finished: int) -> None:
        """Learns how many jobs a second this worker gets through while it has work; the buffer follows."""
        now = time.perf_counter()
        busy = bool(self._waiting or self._running)
        if not self._waiting:
            self._cap = min(MAX_BUFFER, 2 * self._cap)
        if finished:
            rate = finished / max(now - self._measured_at, 0.0005)
            self._rate = rate if not self._rate else 0.6 * self._rate + 0.4 * rate
        elif self._was_busy and now - self._measured_at > STALE_S:
            self._rate = 0.0
        if finished or not self._was_busy or now - self._measured_at > STALE_S:
            self._measured_at = now
        self._was_busy = busy
        self._flush_at = max(1, self.buffer // 2)

    @property
    def buffer(self) -> int:
        """How many jobs are claimed beyond the slots.

        The rate alone misleads where short jobs come with long ones: a batch of short ones ends at once, and what was
        claimed after it waits behind the long ones. So the buffer shrinks when some of it had to go back, and may grow
        again when it has run dry.
        """
        return min(self._cap, int(self._rate * BUFFER_S))

    def room(self, arrived: int = 0) -> int:
        """How many more jobs can be claimed now; 0 while what is held keeps the slots busy for a while.

        No more than half of the buffer at once: one half runs while the other one is claimed.

        Args:
            arrived: so many are about to be added.
        """
        with self._lock:
            if self._breathes_until and time.perf_counter() < self._breathes_until:
                return 0
            buffer = self.buffer
            waiting = len(self._waiting) + arrived
            room = self.count + buffer - waiting - len(self._running)
            if not waiting or room >= max(1, buffer // 2):
                return max(0, min(room, self.count + buffer // 2))
            return 0

    def flush_in_s(self) -> float | None:
        """Seconds until outcomes should be recorded; None if there are none."""
        with self._lock:
            if not self._finished:
                return None
            if len(self._finished) >= self._flush_at or not self._running:
                return 0.0
            return max(0.0, self._finished_since + FLUSH_S - time.perf_counter())

    def take_stale(self) -> list[Run]:
        """Hands over all waiting jobs if the oldest has waited too long for a slot."""
        with self._lock:
            if not self._waiting or time.perf_counter() - self._waiting[0].ready < STALE_S:
                return []
            self._cap = max(1, min(self._cap, len(self._waiting)) // 4)
            self._rate = 0.0
            return self._take_waiting()

    def take_waiting(self) -> list[Run]:
        """Hands over every job that has not begun."""
        with self._lock:
            return self._take_waiting()

    def _take_waiting(self) -> list[Run]:
        runs = list(self._waiting)
        self._waiting.clear()
        return runs

    def holds(self, run: Run) -> bool:
        """Whether a run waits for a slot or has one."""
        with self._lock:
            return run in self._running or run in self._waiting

    def abandon(self) -> list[Run]:
        """Hands over the jobs that still run: nobody waits for their outcomes any more."""
        with self._lock:
            runs = list(self._running)
            for run in runs:
                self._vacate(run.slot)
            self._running.clear()
            return runs

    def drop(self) -> None:
        """Forgets everything that is held."""
        with self._lock:
            self._waiting.clear()
            for run in self._running:
                self._vacate(run.slot)
            self._running.clear()
            self._finished = []

    @property
    def waiting(self) -> int:
        """How many jobs wait for a slot."""
        return len(self._waiting)

    @property
    def running(self) -> list[Run]:
        """The jobs that hold a slot."""
        with self._lock:
            return list(self._running)

    @property
    def held(self) -> list[Run]:
        """The jobs that wait for a slot or hold one."""
        with self._lock:
            return [*self._waiting, *self._running]

    @property
    def owed(self) -> list[Run]:
        """The jobs that are held, and those whose outcomes wait to be recorded."""
        with self._lock:
            return [*self._waiting, *self._running, *(outcome.run for outcome in self._finished)]

    @property
    def empty(self) -> bool:
        """Whether nothing waits, runs or is to be recorded."""
        with self._lock:
            return not (self._waiting or self._running or self._finished)
