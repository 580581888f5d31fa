"""A job as the application holds it: what it was when last read, and the calls that ask or change it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Generic, TypeVar
from uuid import UUID

from pgjobs import statements
from pgjobs.arguments.codec import Json
from pgjobs.config import Duration, queue_name
from pgjobs.errors import JobNotFoundError, JobStateError
from pgjobs.insight.explain import Reason
from pgjobs.job import FailureRow, FileRow, JobRow, LogRow, Status
from pgjobs.ledger import Ledger
from pgjobs.options import priority_of
from pgjobs.statements import Statement

R_co = TypeVar("R_co", covariant=True)

HELD: Final = "put on hold; only one that is queued or scheduled can"
LET_GO: Final = "let go; only one that is on hold can"
MOVED: Final = "moved; only one that waits can"
QUEUED_NOW: Final = "queued now; only one that is scheduled can"
LEFT: Final = ": it was for a worker that has left; enqueue it anew"


class Job(Generic[R_co]):
    """A job. Its attributes are as last read; ``refresh()`` reads them again.

    A handle that ``enqueue`` returned knows id and task without a read, and reads the rest when it is first asked for
    it.

    Attributes:
        is_new: False where ``enqueue`` has found a job with the same unique key, and returned that one.
        is_dropped: True where the queue was full, and ``when_full="drop"`` said to write nothing: there is no such job.
    """

    __slots__ = ("_conn", "_id", "_ledger", "_row", "_settled", "_task", "is_dropped", "is_new")

    def __init__(
        self,
        ledger: Ledger,
        job_id: UUID,
        task: str,
        row: JobRow | None = None,
        conn: object = None,
        *,
        is_new: bool = True,
        settled: bool = False,
        is_dropped: bool = False,
    ) -> None:
        self._ledger = ledger
        self._id = job_id
        self._task = task
        self._row = row
        self._conn = conn
        self._settled = settled
        self.is_new = is_new
        self.is_dropped = is_dropped

    def __repr__(self) -> str:
        status = f" {self._row.status.value}" if self._row else ""
        return f"<Job {self._id} {self._task}{status}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and other.id == self._id

    def __hash__(self) -> int:
        return hash(self._id)

    @property
    def id(self) -> UUID:
        """The job's id, known before its row is committed."""
        return self._id

    @property
    def task(self) -> str:
        """The dotted name of its task."""
        return self._task

    @property
    def row(self) -> JobRow:
        """All columns, as last read.

        Raises:
            JobNotFoundError: the job was never read, and is not there.
        """
        if self._row is None:
            self.refresh()
        assert self._row is not None  # noqa: S101 - refresh raises or sets it
        return self._row

    @property
    def status(self) -> Status:
        """Where it stands."""
        return self.row.status

    @property
    def queue(self) -> str:
        """The name of its queue."""
        return self.row.queue

    @property
    def args(self) -> Mapping[str, Json]:
        """Its arguments by parameter name.

        Raises:
            DecryptionError: they are stored encrypted, and no key fits; so for its result.
        """
        args: Mapping[str, Json] = self._ledger.open(self.row.args)
        return args

    @property
    def result(self) -> Json:
        """What its task returned, as JSON; None before it has succeeded."""
        return self._ledger.open(self.row.result)

    @property
    def attempt(self) -> int:
        """How many times it has been tried."""
        return self.row.attempt

    @property
    def reason(self) -> str | None:
        """Why it stands where it stands, if that needs a reason."""
        return self.row.reason

    @property
    def progress(self) -> Json:
        """What it last reported of its progress."""
        return self.row.progress

    @property
    def created_at(self) -> datetime:
        """When it was enqueued, by the database's clock."""
        return self.row.created_at

    @property
    def started_at(self) -> datetime | None:
        """When its last attempt started."""
        return self.row.started_at

    @property
    def finished_at(self) -> datetime | None:
        """When it ended."""
        return self.row.finished_at

    def refresh(self) -> Job[R_co]:
        """Reads the job again; returns itself.

        Raises:
            JobNotFoundError: it is not there (any more, or yet).
        """
        self._row = self._ledger.fetch(self._id, self._conn)
        return self

    async def arefresh(self) -> Job[R_co]:
        """The async twin of ``refresh``."""
        self._row = await self._ledger.afetch(self._id, self._conn)
        return self

    def get(self, timeout: Duration | None = None) -> R_co:
        """Waits until the job has ended and returns its result, in the type of the task's return annotation.

        Args:
            timeout: how long to wait; None for as long as it takes.

        Raises:
            JobFailedError: it failed, was cancelled or expired; carries the remote traceback.
            BlockingError: a coroutine job has called it; ``aget`` is for those.
            ResultTimeoutError: it had not ended in time.
            JobNotFoundError: it is not there; one that your own open transaction enqueued is not there yet.
            DecryptionError: the result is stored encrypted, and no key fits.
            ResultTypeError: the result does not fit the annotation.
            ResultStorageError: it is kept elsewhere, and cannot be read.
        """
        if (row := self._take_settled()) is None:
            row = self._row = self._ledger.await_result(self._id, timeout)
        result: R_co = self._ledger.result_of(row)
        return result

    async def aget(self, timeout: Duration | None = None) -> R_co:
        """The async twin of ``get``."""
        if (row := self._take_settled()) is None:
            row = self._row = await self._ledger.aawait_result(self._id, timeout)
        result: R_co = await self._ledger.aresult_of(row)
        return result

    def _take_settled(self) -> JobRow | None:
        """The row of a job that was just waited for, once: then it need not be read again for its result."""
        settled, self._settled = self._settled, False
        return self._row if settled and self._row is not None and self._row.status is Status.SUCCEEDED else None

    @property
    def usage(self) -> dict[str, Any] | None:
        """What its last attempt has used: ``cpu_s`` and ``max_rss_bytes``; for one in a process of its own."""
        return self.row.usage

    def output(self) -> str | None:
        """Reads what its last attempt has written, the last 64 kB of it; None where that is not captured."""
        return self._ledger.output_of(self._id)

    async def aoutput(self) -> str | None:
        """The async twin of ``output``."""
        return await self._ledger.aoutput_of(self._id)

    def failures(self) -> list[FailureRow]:
        """Its failed attempts, first to last, with their tracebacks."""
        return self._ledger.failures_of(self._id)

    async def afailures(self) -> list[FailureRow]:
        """The async twin of ``failures``."""
        return await self._ledger.afailures_of(self._id)

    def logs(self, after: int = 0, limit: int = 10_000) -> list[LogRow]:
        """The lines that it has logged, in order: those after the one with that id, so many at most."""
        return self._ledger.logs_of(self._id, after, limit)

    async def alogs(self, after: int = 0, limit: int = 10_000) -> list[LogRow]:
        """The async twin of ``logs``."""
        return await self._ledger.alogs_of(self._id, after, limit)

    def files(self) -> list[FileRow]:
        """What it has attached, by name."""
        return self._ledger.files_of(self._id)

    async def afiles(self) -> list[FileRow]:
        """The async twin of ``files``."""
        return await self._ledger.afiles_of(self._id)

    def file(self, name: str) -> bytes:
        """The contents of a file that it has attached.

        Raises:
            JobFileNotFoundError: it has none of this name.
        """
        return self._ledger.file_of(self._id, name)

    async def afile(self, name: str) -> bytes:
        """The async twin of ``file``."""
        return await self._ledger.afile_of(self._id, name)

    def explain(self) -> list[Reason]:
        """Why it waits, runs or has ended, or may not be there: sentences, with the commands that change it.

        It takes a role that reads everything: reader, admin or worker.
        """
        return self._ledger.explain(self._id)

    async def aexplain(self) -> list[Reason]:
        """The async twin of ``explain``."""
        return await self._ledger.aexplain(self._id)

    def cancel(self, reason: str = "cancelled") -> Job[R_co]:
        """Cancels the job: at once if it waits; a running one is stopped, and is ``cancelled`` when it has.

        A coroutine or a process is stopped within three seconds; a thread is asked (``current_job().is_cancelled``).

        Raises:
            JobStateError: it has ended.
            JobNotFoundError: it is not there.
        """
        if not self._ledger.cancel([self._id], reason):
            raise _wrong_state(self.refresh(), "cancelled; it has ended")
        return self.refresh()

    async def acancel(self, reason: str = "cancelled") -> Job[R_co]:
        """The async twin of ``cancel``."""
        if not await self._ledger.acancel([self._id], reason):
            raise _wrong_state(await self.arefresh(), "cancelled; it has ended")
        return await self.arefresh()

    def retry(self, args: Mapping[str, Json] | None = None) -> Job[R_co]:
        """Queues the ended job again: same row, attempts counted anew, failures kept; without its ttl and deadline.

        Args:
            args: all arguments by name, instead of those that it had.

        Raises:
            ArgumentsError: they do not fit the task, as it is known here or as its workers have published it.
            EncodingError: they cannot be stored as JSON.
            JobStateError: it has not ended, or was for one worker, which has left.
            JobNotFoundError: it is not there.
        """
        if not (self._ledger.retry([self._id]) if args is None else self._ledger.retry_with(self._id, args)):
            raise _not_retried(self.refresh())
        return self.refresh()

    async def aretry(self, args: Mapping[str, Json] | None = None) -> Job[R_co]:
        """The async twin of ``retry``."""
        retried = self._ledger.aretry([self._id]) if args is None else self._ledger.aretry_with(self._id, args)
        if not await retried:
            raise _not_retried(await self.arefresh())
        return await self.arefresh()

    def delete(self) -> None:
        """Deletes the job and its failures, in any status; the run of a running one is stopped.

        Raises:
            JobNotFoundError: it is not there.
        """
        if not self._ledger.delete([self._id]):
            raise JobNotFoundError(self._id)

    async def adelete(self) -> None:
        """The async twin of ``delete``."""
        if not await self._ledger.adelete([self._id]):
            raise JobNotFoundError(self._id)

    def hold(self, reason: str | None = None) -> Job[R_co]:
        """Puts the waiting job on hold: ``blocked``, until ``unhold``; it can be cancelled, deleted, and expire.

        One that runs cannot be put on hold: cancel it, or wait until it rests between two attempts.

        Raises:
            JobStateError: it runs, has ended, or waits for something else.
            JobNotFoundError: it is not there.
        """
        return self._change(statements.hold([self._id], reason), HELD)

    async def ahold(self, reason: str | None = None) -> Job[R_co]:
        """The async twin of ``hold``."""
        return await self._achange(statements.hold([self._id], reason), HELD)

    def unhold(self) -> Job[R_co]:
        """Lets the job go: to the end of its queue, or to its time if that is still to come.

        Raises:
            JobStateError: it is not on hold.
            JobNotFoundError: it is not there.
        """
        return self._change(statements.unhold([self._id]), LET_GO)

    async def aunhold(self) -> Job[R_co]:
        """The async twin of ``unhold``."""
        return await self._achange(statements.unhold([self._id]), LET_GO)

    def move(self, queue: str) -> Job[R_co]:
        """Gives the waiting job another queue, where it goes to the end.

        Raises:
            JobStateError: it runs or has ended.
            JobNotFoundError: it is not there.
        """
        return self._change(statements.move([self._id], queue_name(queue), None), MOVED)

    async def amove(self, queue: str) -> Job[R_co]:
        """The async twin of ``move``."""
        return await self._achange(statements.move([self._id], queue_name(queue), None), MOVED)

    def prioritize(self, priority: int) -> Job[R_co]:
        """Gives the waiting job another priority, behind the jobs that have it.

        Raises:
            JobStateError: it runs or has ended.
            JobNotFoundError: it is not there.
        """
        return self._change(statements.move([self._id], None, priority_of(priority)), MOVED)

    async def aprioritize(self, priority: int) -> Job[R_co]:
        """The async twin of ``prioritize``."""
        return await self._achange(statements.move([self._id], None, priority_of(priority)), MOVED)

    def run_now(self) -> Job[R_co]:
        """Queues the scheduled job now.

        Raises:
            JobStateError: it is not scheduled.
            JobNotFoundError: it is not there.
        """
        return self._change(statements.run_now([self._id]), QUEUED_NOW)

    async def arun_now(self) -> Job[R_co]:
        """The async twin of ``run_now``."""
        return await self._achange(statements.run_now([self._id]), QUEUED_NOW)

    def _change(self, statement: Statement[list[UUID]], what: str) -> Job[R_co]:
        if not self._ledger.change(statement):
            raise _wrong_state(self.refresh(), what)
        return self.refresh()

    async def _achange(self, statement: Statement[list[UUID]], what: str) -> Job[R_co]:
        if not await self._ledger.achange(statement):
            raise _wrong_state(await self.arefresh(), what)
        return await self.arefresh()


def _wrong_state(job: Job[Any], what: str) -> JobStateError:
    return JobStateError(f"job {job.id} is {job.status.value} and cannot be {what}")


def _not_retried(job: Job[Any]) -> JobStateError:
    return _wrong_state(job, f"retried{LEFT}" if was_for_one(job) else "retried; only one that has ended can")


def was_for_one(job: Job[Any]) -> bool:
    """Whether a job that cannot be retried was for one worker alone; that one has left."""
    return job.status.ended and job.queue.startswith("@")
