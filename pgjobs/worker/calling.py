"""Calls the application's functions for runs that have ended, apart from all that must not wait for them."""

from __future__ import annotations

import asyncio
import inspect
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, cast

from pgjobs.app import PgJobs
from pgjobs.events import Event, Recorded, Trouble
from pgjobs.running.outcome import Outcome
from pgjobs.task import Task
from pgjobs.terms.callbacks import Callback, Ended, Moment

_LAST_CALLS_S: Final = 10.0
"""How long a worker that stops waits for the calls that are still to be made."""


def wanted(jobs: PgJobs) -> bool:
    """Whether anything is to be called at all."""
    return bool(jobs.callbacks) or any(task.callbacks for task in jobs.tasks.values())


class Calls:
    """Passes events on, and makes the calls for outcomes that were recorded, on a thread of its own."""

    def __init__(self, jobs: PgJobs, emit: Callable[[Event], None]) -> None:
        self._jobs = jobs
        self._emit = emit
        self._inbox: queue.SimpleQueue[Sequence[Outcome] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def __call__(self, event: Event) -> None:
        self._emit(event)
        if isinstance(event, Recorded):
            self._inbox.put(event.outcomes)

    def start(self) -> None:
        """Starts the thread."""
        self._thread = threading.Thread(target=self._main, name="pgjobs-callbacks", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Lets it make the calls that are left, for a while, and end."""
        if self._thread is not None:
            self._inbox.put(None)
            self._thread.join(_LAST_CALLS_S)

    def _main(self) -> None:
        with asyncio.Runner() as runner:
            while (outcomes := self._inbox.get()) is not None:
                for outcome in outcomes:
                    self._call_for(outcome, runner)

    def _call_for(self, outcome: Outcome, runner: asyncio.Runner) -> None:
        task = self._jobs.tasks.get(outcome.run.task_name)
        ended: Ended | None = None
        for callback in self._of(outcome, task):
            try:
                ended = ended or _ended(outcome, task)
                made: Any = callback(ended)
                if inspect.iscoroutine(made):
                    runner.run(cast("Any", made))
            except BaseException as error:
                self._emit(Trouble(f"{getattr(callback, '__qualname__', callback)} of {outcome.run!r}", error))

    def _of(self, outcome: Outcome, task: Task[..., Any, Any] | None) -> Iterator[Callback]:
        for moment in _moments(outcome):
            if task is not None:
                yield from task.callbacks.get(moment, ())
            yield from self._jobs.callbacks.get(moment, ())


def _moments(outcome: Outcome) -> tuple[Moment, ...]:
    match outcome.ending:
        case "succeeded":
            return ("success",)
        case "cancelled":
            return ("cancel",)
        case "failed":
            return ("failure", "dead")
        case "scheduled" if outcome.failure is not None:
            return ("failure", "retry")
        case _:
            return ()


def _ended(outcome: Outcome, task: Task[..., Any, Any] | None) -> Ended:
    run, failure = outcome.run, outcome.failure
    return Ended(
        job_id=run.id,
        task=run.task_name,
        queue=run.queue,
        args=run.args if task is None else task.signature.opened(run.args),
        attempt=run.attempt,
        max_attempts=run.max_attempts,
        status=outcome.ending,
        reason=outcome.reason,
        seconds=outcome.seconds,
        rest_s=outcome.delay_s,
        exception=failure.exception if failure else None,
        message=failure.message if failure else None,
        traceback=failure.traceback if failure else None,
        fingerprint=failure.fingerprint if failure else None,
        expected=failure is not None and failure.expected,
    )
