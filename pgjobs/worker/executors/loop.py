"""Where coroutine functions run: on an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
import time
from collections.abc import Coroutine
from typing import Any, Final

from pgjobs.running.outcome import Outcome, cancelled, raised, released, returned, timed_out, too_late, untold
from pgjobs.running.run import CURRENT, Run
from pgjobs.worker.claiming.slots import Slots
from pgjobs.worker.executors.eventloop import new_loop
from pgjobs.worker.executors.soft import Softly

SLICE_S: Final = 0.005
"""A coroutine slot that goes from job to job lets the loop's other coroutines run after this long."""

GRACE_S: Final = 1.0
"""How long a cancelled coroutine may take to unwind, before its slot is given to others."""

KIND: Final = "async"


class AsyncExecutor:
    """Runs coroutine functions on an event loop in a thread of its own.

    A slot is one asyncio task that goes from run to run, awaiting the function itself: a job costs no task. Whoever
    changes a context variable, or had to be cancelled, spoils the slot; then the next run gets a fresh one.
    """

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._loop = new_loop()
        self._thread = threading.Thread(target=self._main, name="pgjobs-async", daemon=True)
        self._active: set[_Slot] = set()
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = float("inf")
        self.stopping = False
        self._closing = False

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

    def cancel(self, run: Run) -> None:
        """Stops one run, because its job was cancelled; from any thread."""
        run.cancelled = True
        self._loop.call_soon_threadsafe(self._cancel, run)

    def _cancel(self, run: Run) -> None:
        for slot in self._active:
            if slot.run is run and not slot.spoilt:
                slot.stop(run, time.perf_counter())
                return

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Runs a coroutine on the loop, and waits for it; from another thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop."""
        return self._loop

    def running(self) -> dict[Any, Run]:
        """The runs, by their task; from any thread."""
        return {slot.task: slot.run for slot in list(self._active) if slot.run is not None}

    def close(self, timeout_s: float = 1.0) -> None:
        """Ends the loop, waiting a moment for it."""
        if self._thread.ident is None:
            self._loop.close()
            return
        self._closing = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout_s)

    def _main(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            while not self._closing:  # a job may stop the loop, which is not its own
                with contextlib.suppress(SystemExit, KeyboardInterrupt):  # of what a job has started, which has it too
                    self._loop.run_forever()
            _finish(self._loop)
        finally:
            asyncio.set_event_loop(None)
            self._loop.close()

    def _open_slot(self, run: Run) -> None:
        slot = _Slot(self, self._slots, run)
        self._active.add(slot)
        # Not by the loop, which would ask the factory that a job may have set.
        slot.task = asyncio.Task(slot.work(run), loop=self._loop, context=contextvars.Context())
        slot.task.add_done_callback(lambda task: self._ended(slot, task))

    def _ended(self, slot: _Slot, task: asyncio.Task[None]) -> None:
        """Takes leave of a slot, and sees to what it still owes.

        It does where somebody cancelled its task between two runs, and where no outcome could be made of one.
        """
        self._active.discard(slot)
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        following = slot.owed
        if following is None or error is None or self._closing:
            return
        if following.begun:
            outcome = untold(following, error, time.perf_counter() - following.begun)
            following = self._slots.finish(outcome, KIND)
        if following is not None:
            self.reopen(following)

    def forget(self, slot: _Slot) -> None:
        """Counts a slot no more: its task goes on, and nobody waits for it."""
        self._active.discard(slot)

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
        for slot in list(self._active):
            if slot.deadline <= now:
                slot.is_late(now)
        nearest = min((slot.deadline for slot in self._active), default=float("inf"))
        if nearest != float("inf"):
            self.watch(nearest)

    def _cancel_all(self) -> None:
        for slot in self._active:
            if slot.task is not None and slot.run is not None:  # what has not begun sees for itself that it need not
                slot.task.cancel()


class _Slot:
    """One asyncio task that runs jobs, one after the other.

    Attributes:
        run: the one whose code runs now, which a cancellation of the task is for.
        owed: the one that has no outcome yet, whether its code has begun or not.
    """

    __slots__ = ("__weakref__", "_executor", "_slots", "deadline", "owed", "run", "spoilt", "task")

    def __init__(self, executor: AsyncExecutor, slots: Slots, owed: Run) -> None:
        self._executor = executor
        self._slots = slots
        self.task: asyncio.Task[None] | None = None
        self.run: Run | None = None
        self.owed: Run | None = owed
        self.deadline = float("inf")
        self.spoilt = False

    def is_late(self, now: float) -> None:
        """Stops the run; one that was told a while ago and goes on is given up, and its slot with it."""
        run = self.run
        assert run is not None  # noqa: S101 - who has a deadline runs
        if not self.spoilt:
            if run.timeout_s is not None and now < run.begun + run.timeout_s:  # it was given more time
                self.deadline = run.begun + run.timeout_s
                return
            run.overdue = True
            self.stop(run, now)
            return
        self.deadline = float("inf")
        self._executor.forget(self)
        duration_s = now - run.begun
        following = self._slots.finish(timed_out(run, duration_s) if run.overdue else cancelled(run, duration_s), KIND)
        if following is not None:
            self._executor.reopen(following)

    def stop(self, run: Run, now: float) -> None:
        """Cancels the coroutine, which has a moment to unwind."""
        assert self.task is not None  # noqa: S101 - a slot has its task from the start
        self.spoilt = True
        self.deadline = now + GRACE_S
        self._executor.watch(self.deadline)
        self._slots.handled(run)
        self.task.cancel()

    async def work(self, run: Run) -> None:
        task = self.task
        assert task is not None  # noqa: S101 - a slot has its task from the start
        slice_ends = time.perf_counter() + SLICE_S
        while True:
            CURRENT.set(run)
            before = contextvars.copy_context()
            outcome = await self._attempt(run)
            clean = contextvars.copy_context() == before and not self.spoilt and not task.cancelling()
            following = self.owed = self._slots.finish(outcome, KIND)
            if following is None:
                return
            if not clean:
                self.owed = None
                self._executor.reopen(following)
                return
            run = following
            if time.perf_counter() > slice_ends:
                await asyncio.sleep(0)
                slice_ends = time.perf_counter() + SLICE_S

    async def _attempt(self, run: Run) -> Outcome:
        run.begun = time.perf_counter()
        if run.cancelled or self._executor.stopping:
            return cancelled(run, 0.0) if run.cancelled else released(run)
        if run.options is not None and (late := too_late(run)) is not None:
            return late
        self.run = run
        self._slots.began(run)
        if run.timeout_s is not None:
            self.deadline = run.begun + run.timeout_s
            self._executor.watch(self.deadline)
        try:
            if run.options is None or (soft_s := run.soft_s) is None:
                value = await run.task.body(*run.positional, **run.named)
            else:
                called = run.task.body(*run.positional, **run.named)
                value = await Softly(called, soft_s, lambda: self._is_stopped(run))
        except BaseException as error:
            return self._raised(run, error)
        finally:
            self.run = None
            self.deadline = float("inf")
        duration_s = time.perf_counter() - run.begun
        if run.overdue or (run.timeout_s is not None and duration_s > run.timeout_s):
            return timed_out(run, duration_s)  # also where it has blocked the loop, and nobody could tell it
        return returned(run, value, duration_s)

    def _is_stopped(self, run: Run) -> bool:
        return run.overdue or run.cancelled or self._executor.stopping

    def _raised(self, run: Run, error: BaseException) -> Outcome:
        """The outcome of code that raised; being stopped counts for more than what the code has made of it."""
        duration_s = time.perf_counter() - run.begun
        if run.overdue:
            return timed_out(run, duration_s, error)
        if run.cancelled and isinstance(error, asyncio.CancelledError):
            return cancelled(run, duration_s)
        if self._executor.stopping:
            self.spoilt = True
            return released(run)
        return raised(run, error, duration_s)


def _finish(loop: asyncio.AbstractEventLoop) -> None:
    """Lets what tasks have left behind on the loop end: background tasks, async generators."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_asyncgens())
