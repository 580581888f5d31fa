"""Runs jobs where they are enqueued, without a database: for tests of the code that enqueues them.

A call goes through what any other goes through: its arguments are checked, stored as JSON and fitted to the signature,
its result is stored as JSON; ``RetryLater``, ``Snooze`` and ``Cancel`` steer it.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pgjobs.arguments import codec
from pgjobs.arguments.codec import Json
from pgjobs.config import Duration
from pgjobs.errors import JobFileNotFoundError, JobNotFoundError, ResultTimeoutError, TaskNotFoundError
from pgjobs.handle import Job
from pgjobs.job import Draft, FailureRow, FileRow, JobRow, LogRow, Status, Template, new_id
from pgjobs.ledger import Ledger
from pgjobs.report import Child, Desk
from pgjobs.running.bodies import body_of
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


@dataclass(slots=True)
class Traces:
    """What a job leaves behind beside its row."""

    failures: list[FailureRow] = field(default_factory=list[FailureRow])
    lines: list[LogRow] = field(default_factory=list[LogRow])
    files: dict[str, tuple[FileRow, bytes]] = field(default_factory=dict[str, tuple[FileRow, bytes]])


class Memory(Ledger):
    """The jobs that ran inline, beside those of the database."""

    def __init__(self, jobs: PgJobs) -> None:
        super().__init__(jobs.database, jobs.cipher, jobs.result_of, jobs.signature_of)
        self._rows: dict[UUID, JobRow] = {}
        self._traces: dict[UUID, Traces] = {}

    def keep(self, row: JobRow, traces: Traces) -> None:
        """Takes a job as it stands at the end of its run."""
        self._rows[row.id] = row
        self._traces[row.id] = traces

    def fetch(self, job_id: UUID, conn: object = None) -> JobRow:
        return self._rows[job_id] if job_id in self._rows else super().fetch(job_id, conn)

    async def afetch(self, job_id: UUID, conn: object = None) -> JobRow:
        return self._rows[job_id] if job_id in self._rows else await super().afetch(job_id, conn)

    def failures_of(self, job_id: UUID) -> list[FailureRow]:
        return self._traces[job_id].failures if job_id in self._traces else super().failures_of(job_id)

    async def afailures_of(self, job_id: UUID) -> list[FailureRow]:
        return self._traces[job_id].failures if job_id in self._traces else await super().afailures_of(job_id)

    def logs_of(self, job_id: UUID, after: int, limit: int) -> list[LogRow]:
        if job_id not in self._traces:
            return super().logs_of(job_id, after, limit)
        return self._opened(self._traces[job_id].lines[after : after + limit])

    async def alogs_of(self, job_id: UUID, after: int, limit: int) -> list[LogRow]:
        if job_id not in self._traces:
            return await super().alogs_of(job_id, after, limit)
        return self.logs_of(job_id, after, limit)

    def files_of(self, job_id: UUID) -> list[FileRow]:
        if job_id not in self._traces:
            return super().files_of(job_id)
        return [file for _, (file, _) in sorted(self._traces[job_id].files.items())]

    async def afiles_of(self, job_id: UUID) -> list[FileRow]:
        return self.files_of(job_id) if job_id in self._traces else await super().afiles_of(job_id)

    def file_of(self, job_id: UUID, name: str) -> bytes:
        if job_id not in self._traces:
            return super().file_of(job_id, name)
        if name not in self._traces[job_id].files:
            raise JobFileNotFoundError(job_id, name)
        return self._traces[job_id].files[name][1]

    async def afile_of(self, job_id: UUID, name: str) -> bytes:
        return self.file_of(job_id, name) if job_id in self._traces else await super().afile_of(job_id, name)

    def await_all(self, ids: Sequence[UUID], timeout: Duration | None) -> list[JobRow]:
        """Returns the jobs: nothing that runs inline ends later.

        Raises:
            ResultTimeoutError: one of them has snoozed.
        """
        for job_id in ids:
            if job_id not in self._rows:
                raise JobNotFoundError(job_id)
            if not self._rows[job_id].status.ended:
                raise ResultTimeoutError(job_id, self._rows[job_id].status.value, 0.0)
        return [self._rows[job_id] for job_id in ids]

    async def aawait_all(self, ids: Sequence[UUID], timeout: Duration | None) -> list[JobRow]:
        return self.await_all(ids, timeout)

    def as_completed(self, ids: Sequence[UUID], timeout: Duration | None) -> Iterator[JobRow]:
        yield from self.await_all(list(dict.fromkeys(ids)), timeout)

    async def aas_completed(self, ids: Sequence[UUID], timeout: Duration | None) -> AsyncIterator[JobRow]:
        for row in self.as_completed(ids, timeout):
            yield row


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
        self.memory = Memory(jobs)

    def run(self, row: Template, draft: Draft) -> Job[Any]:
        """Runs a job, attempt after attempt, without rests between them."""
        job = _InlineJob(self._jobs, self._desk, row, draft)
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

    async def arun(self, row: Template, draft: Draft) -> Job[Any]:
        """The async twin of ``run``: coroutines run on this loop, functions on a thread."""
        job = _InlineJob(self._jobs, self._desk, row, draft)
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
        self.memory.keep(job.row, job.traces)
        return Job(self.memory, job.row.id, job.row.task, job.row)


class _InlineJob:
    """A job from its enqueue to its end: ``run`` is the attempt to be made, None when there is none left.

    Attributes:
        following: the jobs that it has enqueued, once it has succeeded.
    """

    def __init__(self, jobs: PgJobs, desk: Desk, template: Template, draft: Draft) -> None:
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
        self.traces = Traces()
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
