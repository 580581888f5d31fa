"""Sentry: a transaction for each run, and the jobs that have failed for good. Needs ``pgjobs-queue[sentry]``.

::

    sentry_sdk.init(dsn=…, traces_sample_rate=0.1)
    jobs = PgJobs()
    instrument(jobs)

Both calls belong into the module that ``-A`` names, so that processes of a pool make them too. A process that was
forked for a run ends with it, so the run waits until Sentry has what is to be sent, two seconds at most; one of the
pool waits so for errors alone, and a worker when it stops.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, cast
from uuid import UUID

import sentry_sdk
from sentry_sdk.integrations.logging import ignore_logger

from pgjobs.app import PgJobs
from pgjobs.arguments.privacy import masked
from pgjobs.events import WorkerStopped
from pgjobs.running.outcome import Outcome, outcome_of
from pgjobs.running.run import CURRENT, Run
from pgjobs.terms.callbacks import Ended

if TYPE_CHECKING:
    from sentry_sdk.types import Event, Hint

_FLUSH_S: Final = 2.0
_MAX_SENT: Final = 10_000
_TOLD_BY_CODE: Final = ("error", "soft timeout", "retried for too long")
"""Reasons of failures that the job's own code has raised, in this process or in one of the pool."""


def instrument(jobs: PgJobs, *, retries: bool = False, args: bool = False) -> None:
    """Has Sentry told of the runs of all tasks, with the job's id, task, queue and attempt as tags.

    Exceptions that a task ``throws`` are not sent. Nor are arguments, and so no variables of stack frames either.

    Args:
        retries: send attempts that are followed by another one, too.
        args: send arguments, without private ones, and the variables of stack frames as Sentry's own settings say.
    """
    ignore_logger("pgjobs.worker")  # it logs each failure, which would arrive twice
    watch = _Watch(retries=retries, args=args)
    jobs.wrap(watch.wrapped)
    jobs.on_dead(watch.died)
    jobs.subscribe(_flush, WorkerStopped)  # a worker's process ends without waiting for other threads


class _Watch:
    """What is sent of a run. Failures that no code of the job has raised are sent when they are recorded."""

    def __init__(self, *, retries: bool, args: bool) -> None:
        self._retries = retries
        self._args = args
        self._sent: dict[UUID, None] = {}
        self._pid = os.getpid()

    def wrapped(self, function: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def arun(*args: Any, **kwargs: Any) -> Any:
                if (run := CURRENT.get(None)) is None:
                    return await function(*args, **kwargs)
                with self._watched(run):
                    return await function(*args, **kwargs)

            return arun

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            if (run := CURRENT.get(None)) is None:
                return function(*args, **kwargs)
            with self._watched(run):
                return function(*args, **kwargs)

        return run

    @contextmanager
    def _watched(self, run: Run) -> Generator[None]:
        try:
            with self._traced(run):
                yield
        finally:
            forked, pooled = os.getpid() != self._pid, run.task.executor == "process"
            if forked or (pooled and run.id in self._sent):  # it may be killed at any time, or ends now
                _flush()

    @contextmanager
    def _traced(self, run: Run) -> Generator[None]:
        with (
            sentry_sdk.isolation_scope() as scope,
            sentry_sdk.start_transaction(op="queue.process", name=run.task_name) as transaction,
        ):
            _tag(scope, run.id, run.task_name, run.queue, run.attempt)
            if self._args:
                scope.set_context("pgjobs", {"args": masked(_opened(run), run.task.signature.private)})
            else:
                scope.add_event_processor(_without_variables)
            try:
                yield
            except BaseException as error:
                outcome = outcome_of(run, error)
                if outcome is not None and outcome.failure is not None:
                    transaction.set_status("internal_error")
                    self._send(outcome, error)
                raise

    def _send(self, outcome: Outcome, error: BaseException) -> None:
        assert outcome.failure is not None  # noqa: S101 - it was looked at
        if outcome.failure.expected or not (self._retries or outcome.ending == "failed"):
            return
        sentry_sdk.capture_exception(error)
        self._sent[outcome.run.id] = None
        if len(self._sent) > _MAX_SENT:
            self._sent.pop(next(iter(self._sent)))

    def died(self, ended: Ended) -> None:
        """Sends what no exception in the job's code has told of: a crash, a kill, a ttl, a result that is no JSON."""
        told = ended.job_id in self._sent or ended.reason in _TOLD_BY_CODE
        self._sent.pop(ended.job_id, None)
        if told or ended.expected:
            return
        with sentry_sdk.isolation_scope() as scope:
            _tag(scope, ended.job_id, ended.task, ended.queue, ended.attempt)
            scope.fingerprint = ["pgjobs", ended.task, str(ended.reason)]
            sentry_sdk.capture_message(f"{ended.task} failed: {ended.reason}", level="error")


def _flush(event: object = None) -> None:
    sentry_sdk.flush(_FLUSH_S)


def _opened(run: Run) -> dict[str, Any]:
    return run.task.signature.opened(run.args)


def _tag(scope: sentry_sdk.Scope, job_id: UUID, task: str, queue: str, attempt: int) -> None:
    for name, value in (("job_id", job_id), ("task", task), ("queue", queue), ("attempt", attempt)):
        scope.set_tag(f"pgjobs.{name}", str(value))


def _without_variables(event: Event, hint: Hint) -> Event:
    """Takes the variables out of stack frames, among which the arguments are."""
    _strip(event)
    return event


def _strip(document: Any) -> None:
    if isinstance(document, dict):
        known = cast("dict[str, Any]", document)
        if "frames" in known:
            for frame in known["frames"]:
                frame.pop("vars", None)
            return
        for name in ("exception", "threads", "values", "stacktrace"):
            _strip(known.get(name))
    for value in document if isinstance(document, list) else ():  # pyright: ignore[reportUnknownVariableType] - a document
        _strip(value)
