"""Where plain functions run: on threads."""

from __future__ import annotations

import contextvars
import ctypes
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from pgjobs.errors import SoftTimeoutError, TimeoutExceededError
from pgjobs.running.outcome import Outcome, raised, released, returned, timed_out, too_late, unstarted, untold
from pgjobs.running.run import CURRENT, Run, StoppedError
from pgjobs.worker.claiming.slots import Slots

GRACE_S: Final = 1.0
"""How long code may take to unwind after it was told of its timeout, before its slot is given to others."""

KIND: Final = "thread"

_FROM_OUTSIDE: Final = (StoppedError, TimeoutExceededError, SoftTimeoutError)
"""What is raised in threads of jobs."""


class ThreadExecutor:
    """Runs plain functions on threads, as many as there are slots; each run gets a fresh context.

    A run that is over its timeout gets an exception raised in its thread. If it does not unwind, because it is deaf
    inside C code, its attempt has failed all the same, and another thread takes the slot.

    Invariant, under the lock: a thread that is in ``_busy`` runs that job's code and may be interrupted; one that is
    not has
    no exception pending.

    Args:
        lost: called when a thread was given up: it goes on beside the others until its code returns.
    """

    def __init__(self, slots: Slots, lost: Callable[[], None]) -> None:
        self._slots = slots
        self._lost = lost
        self._inbox: queue.SimpleQueue[Run | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._wanted = 0
        self._busy: dict[int, Run] = {}
        self._to_be_told: set[int] = set()
        self._bell = threading.Event()
        self._nearest = float("inf")
        self._watching = False
        self._closed = False
        self.stopping = False

    def start(self, run: Run) -> None:
        """Runs a job; from any thread.

        Raises:
            RuntimeError: no thread can be started.
        """
        with self._lock:
            if self._wanted >= self._threads:
                threading.Thread(target=self._main, name=f"pgjobs-{self._threads + 1}", daemon=True).start()
                self._threads += 1
            if (run.timeout_s is not None or run.options is not None) and not self._watching:
                threading.Thread(target=self._watch, name="pgjobs-deadlines", daemon=True).start()
                self._watching = True
            self._wanted += 1
        self._inbox.put(run)

    def interrupt(self) -> None:
        """Raises StoppedError in every thread that runs a job; one that is inside C code notices when it returns."""
        self.stopping = True
        with self._lock:
            for ident in self._busy:
                _raise_in(ident, StoppedError)

    def cancel(self, run: Run) -> None:
        """Asks one run to stop: its code reads ``current_job().is_cancelled``."""
        run.cancelled = True

    def running(self) -> dict[Any, Run]:
        """The runs, by the ident of their thread."""
        with self._lock:
            return dict(self._busy)

    def close(self) -> None:
        """Ends the threads that rest."""
        self._closed = True
        self._bell.set()
        for _ in range(self._threads):
            self._inbox.put(None)

    # -- a thread of jobs

    def _main(self) -> None:
        ident = threading.get_ident()
        while (run := self._inbox.get()) is not None:
            following: Run | None = run
            while following is not None:
                outcome = self._one(following, ident)
                if outcome is None:
                    return  # given up: another thread may take this one's place
                following = self._slots.finish(outcome, KIND)
            with self._lock:
                self._wanted -= 1

    def _one(self, run: Run, ident: int) -> Outcome | None:
        """Runs one job; returns None if it was given up meanwhile."""
        outcome: Outcome | None = None
        broken: BaseException | None = None
        run.begun = time.perf_counter()
        if run.options is not None and (late := too_late(run)) is not None:
            return late
        self._slots.began(run)
        try:
            self._enter(run, ident)
            outcome = contextvars.Context().run(_attempt, run, self)
        except _FROM_OUTSIDE:
            pass  # it came just when the code had ended
        except BaseException as error:  # no outcome could be made of what the code has raised
            broken = error
        self._leave(run, ident)
        if run.given_up:
            return None
        return outcome or self._interrupted(run, broken)

    def _interrupted(self, run: Run, broken: BaseException | None) -> Outcome:
        duration_s = time.perf_counter() - run.begun
        if run.overdue:
            return timed_out(run, duration_s)
        if self.stopping:
            return released(run)
        return untold(run, broken, duration_s) if broken else raised(run, SoftTimeoutError(run.soft_s), duration_s)

    def _enter(self, run: Run, ident: int) -> None:
        with self._lock:
            self._busy[ident] = run
            if run.timeout_s is not None:
                run.deadline = run.begun + run.timeout_s
            if run.options is not None and (soft_s := run.soft_s) is not None:
                run.deadline = min(run.deadline, run.begun + soft_s)
                self._to_be_told.add(ident)
            if run.deadline < self._nearest:
                self._nearest = run.deadline
                self._bell.set()

    def _leave(self, run: Run, ident: int) -> None:
        """From here on nobody raises anything in this thread, and what was raised too late is taken back."""
        while True:
            try:
                with self._lock:
                    self._busy.pop(ident, None)
                    if run.overdue or self.stopping or run.options is not None:
                        self._to_be_told.discard(ident)
                        _raise_in(ident, None)
                return
            except _FROM_OUTSIDE:
                continue

    # -- deadlines

    def _watch(self) -> None:
        while not self._closed:
            now = time.perf_counter()
            with self._lock:
                self._bell.clear()
                overdue = [(ident, run) for ident, run in self._busy.items() if run.deadline <= now]
                for ident, run in overdue:
                    self._tell(ident, run, now)
                self._nearest = min((run.deadline for run in self._busy.values()), default=float("inf"))
                rest_s = self._nearest - now
            for _, run in overdue:
                if run.given_up:
                    self._replace(run)
            self._bell.wait(None if rest_s == float("inf") else min(max(0.0, rest_s), threading.TIMEOUT_MAX))

    def _tell(self, ident: int, run: Run, now: float) -> None:
        """Tells an overdue run so; told before, it is given up. To be told softly before that counts for nothing."""
        if ident in self._to_be_told:
            self._to_be_told.discard(ident)
            run.deadline = float("inf") if run.timeout_s is None else run.begun + run.timeout_s
            if run.deadline > now:
                _raise_in(ident, SoftTimeoutError)
            return
        if not run.overdue and run.timeout_s is not None and now < run.begun + run.timeout_s:
            run.deadline = run.begun + run.timeout_s  # it was given more time
            return
        if run.overdue:
            run.given_up = True
            del self._busy[ident]
            self._threads -= 1
            self._wanted -= 1
            return
        run.overdue = True
        run.deadline = now + GRACE_S
        self._slots.handled(run)
        _raise_in(ident, TimeoutExceededError)

    def _replace(self, run: Run) -> None:
        outcome = timed_out(run, time.perf_counter() - run.begun)
        following = self._slots.finish(outcome, KIND)
        while following is not None:
            try:
                self.start(following)
                break
            except RuntimeError as error:
                following = self._slots.finish(unstarted(following, error), KIND)
        self._lost()


def _attempt(run: Run, executor: ThreadExecutor) -> Outcome:
    CURRENT.set(run)
    try:
        value = run.task.body(*run.positional, **run.named)
    except StoppedError:
        return released(run)
    except BaseException as error:
        if run.overdue:
            return timed_out(run, time.perf_counter() - run.begun, error)
        return released(run) if executor.stopping else raised(run, error, time.perf_counter() - run.begun)
    if run.overdue:
        return timed_out(run, time.perf_counter() - run.begun)
    return returned(run, value, time.perf_counter() - run.begun)


def _raise_in(ident: int, error: type[BaseException] | None) -> None:
    """Raises an exception in another thread, when it next runs Python code; None takes a late one back."""
    raiser = ctypes.pythonapi.PyThreadState_SetAsyncExc
    raiser(ctypes.c_ulong(ident), None if error is None else ctypes.py_object(error))
