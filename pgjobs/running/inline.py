"""Runs jobs where they are enqueued, without a database: for tests of the code that enqueues them.

A call goes through what any other goes through: its arguments are checked, stored as JSON and fitted to the signature,
its result is stored as JSON; ``RetryLater``, ``Snooze`` and ``Cancel`` steer it.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pgjobs.arguments import codec
from pgjobs.arguments.codec import Json
from pgjobs.errors import TaskNotFoundError
from pgjobs.handle import Job
from pgjobs.job import Draft, FailureRow, FileRow, JobRow, LogRow, Status, Template, new_id
from pgjobs.report import Child, Desk
from pgjobs.running.bodies import body_of
from pgjobs.running.memory import Memory, Traces
from pgjobs.running.outcome import Outcome, raised, returned
from pgjobs.running.registry import Registry
from pgjobs.running.run import CURRENT, Claim, Run

if TYPE_CHECKING:
    from pgjobs.app import PgJobs


class InlineRun(Run):
    """One attempt of a job that runs where it was enqueued: ``complete`` and ``attach`` record here."""

    __slots__ = ()
    is_inline = True

    def __init__(self, row: tuple[Any, ...], claim: Claim, received: float, schema: str) -> None:
        super().__init__(row, claim, received, schema)
        self.files = {}


class Inline:
    """Takes the place of the table and of the workers: ``run`` runs a job to its end and returns its handle.

    Args:
        given: the resources of tasks that want some, as the lifespan would yield them.
    """

    def __init__(self, jobs: PgJobs, given: object = None) -> None:
        self._jobs = jobs
        self._desk = Desk()
        self._desk.jobs = jobs
        self._desk.resources = given
        self.memory = Memory(jobs, self)

    def run(self, row: Template, draft: Draft, traces: Traces | None = None) -> Job[Any]:
        """Runs a job, attempt after attempt, without rests between them; traces are those of its runs before."""
        job = _InlineJob(self._jobs, self._desk, row, draft, traces)
        while job.run is not None:
            token = CURRENT.set(job.run)
            try:
                value = job.body(*job.run.positional, **job.run.named)
                job.returned(_await(value) if inspect.iscoroutine(value) else value)
            except Exception as error:
                job.raised(error)
            finally:
                CURRENT.reset(token)
        kept = self._kept(job)
        for child in job.following:
            self.run(*_call_of(child))
        return kept

    async def arun(self, row: Template, draft: Draft, traces: Traces | None = None) -> Job[Any]:
        """The async twin of ``run``: coroutines run on this loop, functions on a thread."""
        job = _InlineJob(self._jobs, self._desk, row, draft, traces)
        while job.run is not None:
            token = CURRENT.set(job.run)
            try:
                if inspect.iscoroutinefunction(job.body):
                    job.returned(await job.body(*job.run.positional, **job.run.named))
                else:
                    job.returned(await asyncio.to_thread(job.body, *job.run.positional, **job.run.named))
            except Exception as error:
                job.raised(error)
            finally:
                CURRENT.reset(token)
        kept = self._kept(job)
        for child in job.following:
            await self.arun(*_call_of(child))
        return kept

    def _kept(self, job: _InlineJob) -> Job[Any]:
        self.memory.keep(job.row, job.traces, job.call)
        return Job(self.memory, job.row.id, job.row.task, job.row)


class _InlineJob:
    """A job from its enqueue to its end: ``run`` is the attempt to be made, None when there is none left.

    Attributes:
        call: what runs it once more.
        following: the jobs that it has enqueued, once it has succeeded.
    """

    def __init__(
        self, jobs: PgJobs, desk: Desk, template: Template, draft: Draft, traces: Traces | None = None
    ) -> None:
        self._desk = desk
        self._template = template
        self._draft = draft
        self._id = draft.job_id or new_id()
        self._created_at = datetime.now(UTC)
        self._schema = jobs.schema
        task = Registry(jobs, [template.task.partition(":")[0]]).find(template.task)
        if task is None:
            raise TaskNotFoundError(
                f"task {template.task!r} is not registered here, so it cannot run inline; import it"
            )
        self._task = task
        self.body = body_of(task)
        self.traces = traces or Traces()
        self.call = template, draft._replace(job_id=self._id)
        self.following: list[Child] = []
        self._meta = None if template.meta is None else codec.loads(template.meta)
        self._progress: Json = None
        self.row: JobRow
        self.run: InlineRun | None = self._attempt(1)

    def _attempt(self, number: int) -> InlineRun:
        template = self._template
        row = (
            self._id, template.task, template.queue, template.priority, number, template.max_attempts, 0,
            None if template.timeout is None else template.timeout.total_seconds(),
            self._created_at, codec.loads(self._draft.args),
            self._meta,
            None if template.options is None else codec.loads(template.options),
        )  # fmt: skip
        run = InlineRun(row, Claim(new_id(), 1, self._desk), time.perf_counter(), self._schema)
        run.task = self._task
        run.positional, run.named = self._task.signature.unbind(run.args)
        run.begun = time.perf_counter()
        return run

    def returned(self, value: object) -> None:
        """Takes what the function returned; what it has completed before goes first."""
        run = self._now()
        if run.completed:
            self._end(Outcome(run, "succeeded", 0.0, result=run.completion))
        else:
            self._end(returned(run, value, time.perf_counter() - run.begun))

    def raised(self, error: Exception) -> None:
        """Takes what it raised."""
        run = self._now()
        self._end(raised(run, error, time.perf_counter() - run.begun))

    def _now(self) -> InlineRun:
        assert self.run is not None  # noqa: S101 - somebody has just run it
        return self.run

    def _end(self, outcome: Outcome) -> None:
        run, failure = self._now(), outcome.failure
        if failure is not None:
            self.traces.failures.append(
                FailureRow(
                    run.attempt, datetime.now(UTC), outcome.reason or "error", failure.exception, failure.message,
                    failure.traceback, failure.fingerprint,
                )
            )  # fmt: skip
        self._note(run)
        self.following = [] if outcome.ending != "succeeded" or run.report is None else run.report.children
        again = outcome.ending == "scheduled" and failure is not None
        self.run = self._attempt(run.attempt + 1) if again else None
        self.row = self._as_row(outcome)

    def _note(self, run: InlineRun) -> None:
        """Keeps what an attempt has said and attached."""
        self._meta = run.meta
        self._progress = run.report.progress if run.report and run.report.progress else self._progress
        for said in self._desk.take([run]):
            for line in said.lines:
                at = datetime.fromtimestamp(line.at, UTC)
                self.traces.lines.append(LogRow(len(self.traces.lines) + 1, run.attempt, at, line.level, line.text))
        for name, (kind, data) in run.files.items():
            self.traces.files[name] = FileRow(name, datetime.now(UTC), kind, len(data)), data

    def _as_row(self, outcome: Outcome) -> JobRow:
        template, run, now = self._template, outcome.run, datetime.now(UTC)
        return JobRow(
            id=self._id, task=template.task, queue=template.queue, status=Status(outcome.ending),
            priority=template.priority, attempt=run.attempt - outcome.refund, max_attempts=template.max_attempts,
            crashes=0, run_at=template.run_at, due_at=None, expires_at=None, cancel_at=None,
            created_at=self._created_at, started_at=now, finished_at=now, timeout=template.timeout,
            reason=outcome.reason, args=run.args, progress=self._progress,
            result=None if outcome.result is None else codec.loads(outcome.result),
            meta=self._meta, options=run.options,
        )  # fmt: skip


def _call_of(child: Child) -> tuple[Template, Draft]:
    timeout = None if child.timeout_s is None else timedelta(seconds=child.timeout_s)
    row = Template(
        child.task, child.queue, child.priority, child.max_attempts, timeout, options=child.options, meta=child.meta
    )
    return row, Draft(child.args, UUID(child.id))


def _await(coroutine: Any) -> Any:
    """Runs a coroutine to its end: on a thread of its own where a loop runs on this one."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    with ThreadPoolExecutor(1, "pgjobs-inline") as thread:
        return thread.submit(contextvars.copy_context().run, asyncio.run, coroutine).result()
