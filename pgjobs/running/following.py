"""Jobs that follow the running one, in the transaction that records its success."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, cast
from uuid import UUID

from pgjobs.app import PgJobs
from pgjobs.errors import JobStateError, OptionError
from pgjobs.handle import Job
from pgjobs.job import Draft, Template
from pgjobs.options import Options
from pgjobs.report import Child
from pgjobs.running.run import Run


class Following:
    """Jobs that follow the running one: they are there exactly if it succeeds, however often it is tried before.

    Nothing is written until then; with ``complete(session)`` they are written in that transaction.
    """

    __slots__ = ("_options", "_run")

    def __init__(self, run: Run, options: Options) -> None:
        self._run = run
        self._options = options

    def enqueue(self, function: object, /, *args: Any, **kwargs: Any) -> Job[Any]:
        """Has a call of a task, of an importable function, or of what a name stands for, enqueued.

        Raises:
            ArgumentsError, EncodingError, TaskError: see ``PgJobs.enqueue``.
            OptionError: it is to be unique: then the end of this job would wait for whoever holds the key; or it is to
                start here.
            JobStateError: the job has completed.
        """
        run = self._run
        if run.completed:
            raise JobStateError(f"job {run.id} has completed; enqueue in your own transaction: task.using(session)")
        desk = run.claim.desk
        if desk.jobs is None:
            desk.jobs = PgJobs()
        row, draft, job = desk.jobs.using(**self._options).call(function).prepare(*args, **kwargs)
        if row.unique is not None:
            raise OptionError("a job that follows another cannot be unique; enqueue it with task.enqueue(…)")
        if row.here:
            raise OptionError("a job that follows another starts where a worker finds it; leave here=True out")
        desk.follow(run, _child(row, draft, job.id))
        return cast("Job[Any]", job)


def _child(row: Template, draft: Draft, job_id: UUID) -> Child:
    return Child(
        id=str(job_id),
        task=row.task,
        queue=row.queue,
        priority=row.priority,
        max_attempts=row.max_attempts,
        timeout_s=_seconds(row.timeout),
        delay_s=_seconds(row.delay),
        run_at=None if row.run_at is None else row.run_at.isoformat(),
        ttl_s=_seconds(row.ttl),
        args=draft.args,
        options=row.options,
        meta=row.meta,
        lifo=row.lifo,
    )


def _seconds(value: timedelta | None) -> float | None:
    return None if value is None else value.total_seconds()
