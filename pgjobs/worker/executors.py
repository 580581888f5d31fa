"""Where tasks run: coroutines on a loop of their own, functions on threads. They make outcomes and know no SQL."""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import queue
import threading
import time
from typing import Final

from pgjobs.run import CURRENT, Outcome, Run, failed, raised, released, returned
from pgjobs.worker.slots import Slots

SLICE_S: Final = 0.005
"""A coroutine slot that goes from job to job lets the loop's other coroutines run after this long."""


class TimeoutExceededError(TimeoutError):
    """The attempt ran longer than its timeout allows."""

    def __init__(self, timeout_s: float) -> None:
        super().__init__(f"the attempt ran longer than its timeout of {timeout_s:g} s")


class StoppedError(BaseException):
    """Raised in a thread whose worker stops and will not wait for it; the job goes back."""


class AsyncExecutor:
    """Runs coroutine functions on an event loop in a thread of its own.

    A slot is one asyncio task that goes from run to run, awaiting the function itself: a job costs no task. Whoever
    changes a
    context variable spoils the slot's context; then the next run gets a fresh slot.
    """

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._main, name="pgjobs-async", daemon=True)
        self._active: set[_Slot] = set()
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = float("inf")
        self.stopping = False

    def open(self) -> None:
        """Starts the loop's thread."""
        self._thread.start()

    def start(self, run: Run) -> None:
        """Runs a job; from any thread."""
        self._loop.call_soon_threadsafe(self._open_slot, run)

    def interrupt(self) -> None:
        """Cancels what runs; the jobs go back."""
        self.stopping = True
        self._loop.call_soon_threadsafe(self._cancel_all)

    def close(self, timeout_s: float = 1.0) -> None:
        """Ends the loop, waiting a moment for it."""
        if self._thread.ident is None:
            self._loop.close()
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout_s)

    def _main(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            _finish(self._loop)
        finally:
            asyncio.set_event_loop(None)
            self._loop.close()

    def _open_slot(self, run: Run) -> None:
        slot = _Slot(self, self._slots)
        self._active.add(slot)
        slot.task = self._loop.create_task(slot.work(run), context=contextvars.Context())
        slot.task.add_done_callback(lambda _: self._active.discard(slot))

    def reopen(self, run: Run) -> None:
        """Gives a run a fresh slot."""
        self._open_slot(run)

    def watch(self, deadline: float) -> None:
        """Makes sure that somebody looks at the slots when a deadline passes."""
        if deadline < self._alarm_at:
            if self._alarm is not None:
                self._alarm.cancel()
            self._alarm_at = deadline
            self._alarm = self._loop.call_later(max(0.0, deadline - time.perf_counter()), self._look)

    def _look(self) -> None:
        now = time.perf_counter()
        self._alarm = None
        self._alarm_at = float("inf")
        for slot in self._active:
            if slot.deadline <= now:
                slot.overdue = True
                slot.deadline = float("inf")
                assert slot.task is not None  # noqa: S101 - a slot has its task from the start
                slot.task.cancel()
        nearest = min((slot.deadline for slot in self._active), default=float("inf"))
        if nearest != float("inf"):
            self.watch(nearest)

    def _cancel_all(self) -> None:
        for slot in self._active:
            if slot.task is not None:
                slot.task.cancel()


class _Slot:
    """One asyncio task that runs jobs, one after the other."""

    __slots__ = ("__weakref__", "_executor", "_slots", "deadline", "overdue", "task")

    def __init__(self, executor: AsyncExecutor, slots: Slots) -> None:
        self._executor = executor
        self._slots = slots
        self.task: asyncio.Task[None] | None = None
        self.deadline = float("inf")
        self.overdue = False

    async def work(self, first: Run) -> None:
        run: Run | None = first
        slice_ends = time.perf_counter() + SLICE_S
        while run is not None:
            CURRENT.set(run)
            before = contextvars.copy_context()
            outcome = await self._attempt(run)
            clean = contextvars.copy_context() == before and not self.overdue
            run = self._slots.finish(outcome, "async")
            if run is not None and not clean:
                self._executor.reopen(run)
                return
            if time.perf_counter() > slice_ends:
                await asyncio.sleep(0)
                slice_ends = time.perf_counter() + SLICE_S

    async def _attempt(self, run: Run) -> Outcome:
        run.begun = time.perf_counter()
        if run.timeout_s is not None:
            self.deadline = run.begun + run.timeout_s
            self._executor.watch(self.deadline)
        try:
            value = await run.task.function(*run.positional, **run.named)
        except asyncio.CancelledError as error:
            return self._cancelled(run, error)
        except BaseException as error:
            return raised(run, error, time.perf_counter() - run.begun)
        finally:
            self.deadline = float("inf")
        duration_s = time.perf_counter() - run.begun
        if self.overdue:
            return _timed_out(run, duration_s)
        return returned(run, value, duration_s)

    def _cancelled(self, run: Run, error: asyncio.CancelledError) -> Outcome:
        duration_s = time.perf_counter() - run.begun
        if self.overdue:
            return _timed_out(run, duration_s, error)
        if self._executor.stopping:
            self.overdue = True  # this slot's task has been cancelled: it must not go on
            return released(run)
        return raised(run, error, duration_s)


def _timed_out(run: Run, duration_s: float, cause: BaseException | None = None) -> Outcome:
    error = TimeoutExceededError(run.timeout_s or 0.0)
    error.__cause__ = cause
    return failed(run, error, duration_s, reason="timeout")


def _finish(loop: asyncio.AbstractEventLoop) -> None:
    """Lets what tasks have left behind on the loop end: background tasks, async generators."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_asyncgens())


class ThreadExecutor:
    """Runs plain functions on threads, as many as there are slots; each run gets a fresh context."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._inbox: queue.SimpleQueue[Run | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._wanted = 0
        self._busy: dict[int, Run] = {}
        self.stopping = False

    def start(self, run: Run) -> None:
        """Runs a job; from any thread."""
        with self._lock:
            self._wanted += 1
            if self._wanted > len(self._threads):
                thread = threading.Thread(target=self._main, name=f"pgjobs-{len(self._threads) + 1}", daemon=True)
                self._threads.append(thread)
                thread.start()
        self._inbox.put(run)

    def interrupt(self) -> None:
        """Raises StoppedError in every thread that runs a job; one that is inside C code notices when it returns."""
        self.stopping = True
        for ident in list(self._busy):
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(StoppedError))

    def close(self) -> None:
        """Ends the threads that rest."""
        for _ in self._threads:
            self._inbox.put(None)

    def _main(self) -> None:
        ident = threading.get_ident()
        while (run := self._inbox.get()) is not None:
            following: Run | None = run
            while following is not None:
                self._busy[ident] = following
                outcome = contextvars.Context().run(_attempt, following, self)
                del self._busy[ident]
                following = self._slots.finish(outcome, "thread")
            with self._lock:
                self._wanted -= 1


def _attempt(run: Run, executor: ThreadExecutor) -> Outcome:
    CURRENT.set(run)
    run.begun = time.perf_counter()
    try:
        value = run.task.function(*run.positional, **run.named)
    except StoppedError:
        return released(run)
    except BaseException as error:
        return released(run) if executor.stopping else raised(run, error, time.perf_counter() - run.begun)
    return returned(run, value, time.perf_counter() - run.begun)
