"""What stands in the table: reads jobs, waits for their ends, cancels, retries and deletes them."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final
from uuid import UUID

from pgjobs import statements
from pgjobs.arguments import codec
from pgjobs.arguments.cipher import Cipher, sealed
from pgjobs.arguments.codec import Json
from pgjobs.arguments.signature import Signature
from pgjobs.blocking import refuse_on_the_loop
from pgjobs.completions import GATHER_S, Race
from pgjobs.config import Duration, seconds
from pgjobs.connections.database import Database
from pgjobs.errors import (
    ArgumentsError,
    JobFailedError,
    JobFileNotFoundError,
    JobNotFoundError,
    ResultTimeoutError,
)
from pgjobs.insight.explain import Reason, explain
from pgjobs.job import FailureRow, FileRow, JobRow, LogRow, Status
from pgjobs.statements import Statement
from pgjobs.terms.results import is_reference
from pgjobs.waiting import Waiting

_LOOK_S: Final = 1.0
"""How often whoever waits looks, heard of or not."""

_BLIND_S: Final = 0.05
"""How often where ends of jobs cannot be heard."""

_NEXT_S: Final = 0.005
"""How soon where the last look has found some, and there may be more."""

_RAMP_S: Final = (0.002, 0.005, 0.01, 0.02, 0.05)
_AT_ONCE: Final = 500


class Ledger:
    """The jobs of a database, by their ids.

    Args:
        result_of: makes of a row what its task has returned.
        signature_of: what the arguments of a task must fit; None where it is not known here.

    Attributes:
        open: makes of arguments or a result what the application gave, where they are stored encrypted.
    """

    def __init__(
        self,
        database: Database,
        cipher: Cipher,
        result_of: Callable[[JobRow], Any],
        signature_of: Callable[[str], Signature | None],
    ) -> None:
        self._database = database
        self._cipher = cipher
        self.open = cipher.loads
        self._result_of = result_of
        self._signature_of = signature_of
        self._waiting = Waiting(database)

    def fetch(self, job_id: UUID, conn: object = None) -> JobRow:
        """Reads a row."""
        return _found(job_id, self._database.run(statements.job(job_id), _usable(conn)))

    async def afetch(self, job_id: UUID, conn: object = None) -> JobRow:
        """The async twin of ``fetch``."""
        return _found(job_id, await self._database.arun(statements.job(job_id), _usable(conn)))

    def failures_of(self, job_id: UUID) -> list[FailureRow]:
        """Reads the failed attempts of a job."""
        return self._database.run(statements.failures(job_id))

    async def afailures_of(self, job_id: UUID) -> list[FailureRow]:
        """The async twin of ``failures_of``."""
        return await self._database.arun(statements.failures(job_id))

    def logs_of(self, job_id: UUID, after: int, limit: int) -> list[LogRow]:
        """Reads the log lines of a job."""
        return self._opened(self._database.run(statements.logs(job_id, after, limit)))

    async def alogs_of(self, job_id: UUID, after: int, limit: int) -> list[LogRow]:
        """The async twin of ``logs_of``."""
        return self._opened(await self._database.arun(statements.logs(job_id, after, limit)))

    def files_of(self, job_id: UUID) -> list[FileRow]:
        """Reads what a job has attached, without the contents."""
        return self._database.run(statements.files(job_id))

    async def afiles_of(self, job_id: UUID) -> list[FileRow]:
        """The async twin of ``files_of``."""
        return await self._database.arun(statements.files(job_id))

    def file_of(self, job_id: UUID, name: str) -> bytes:
        """Reads the contents of a file."""
        return _contents(job_id, name, self._database.run(statements.file(job_id, name)))

    async def afile_of(self, job_id: UUID, name: str) -> bytes:
        """The async twin of ``file_of``."""
        return _contents(job_id, name, await self._database.arun(statements.file(job_id, name)))

    def output_of(self, job_id: UUID) -> str | None:
        """Reads what a job has written."""
        return self._unseal(self._database.run(statements.output(job_id)))

    async def aoutput_of(self, job_id: UUID) -> str | None:
        """The async twin of ``output_of``."""
        return self._unseal(await self._database.arun(statements.output(job_id)))

    def _opened(self, lines: list[LogRow]) -> list[LogRow]:
        return [replace(line, line=self._cipher.unseal(line.line)) for line in lines]

    def _unseal(self, text: str | None) -> str | None:
        return None if text is None else self._cipher.unseal(text)

    def await_result(self, job_id: UUID, timeout: Duration | None) -> JobRow:
        """Waits until a job has ended; see ``Job.get``."""
        (row,) = self.await_all([job_id], timeout)
        if row.status is not Status.SUCCEEDED:
            raise _failed(row, self.failures_of(job_id))
        return row

    async def aawait_result(self, job_id: UUID, timeout: Duration | None) -> JobRow:
        """The async twin of ``await_result``."""
        (row,) = await self.aawait_all([job_id], timeout)
        if row.status is not Status.SUCCEEDED:
            raise _failed(row, await self.afailures_of(job_id))
        return row

    def result_of(self, row: JobRow) -> Any:
        """What the job of a row has returned; see ``Job.get``."""
        return self._result_of(row)

    async def aresult_of(self, row: JobRow) -> Any:
        """The async twin of ``result_of``."""
        return (
            await asyncio.to_thread(self._result_of, row)
            if is_reference(self.open(row.result))
            else self._result_of(row)
        )

    def await_all(self, ids: Sequence[UUID], timeout: Duration | None) -> list[JobRow]:
        """Waits until jobs have ended; see ``PgJobs.wait``."""
        refuse_on_the_loop()
        wait = _Wait(ids, timeout)
        if not self._waiting.hears and wait.done(self._database.run(wait.read())):
            return wait.rows
        woken = threading.Event()
        with self._waiting.expect(wait.left, lambda _: woken.set()) as ear:
            while not wait.done(self._database.run(wait.read())):
                woken.wait(wait.rest_s(ear.heard_for_s))
                woken.clear()
        return wait.rows

    async def aawait_all(self, ids: Sequence[UUID], timeout: Duration | None) -> list[JobRow]:
        """The async twin of ``await_all``."""
        wait = _Wait(ids, timeout)
        if not self._waiting.hears and wait.done(await self._database.arun(wait.read())):
            return wait.rows
        woken, loop = asyncio.Event(), asyncio.get_running_loop()

        def wake(name: str) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(woken.set)

        with self._waiting.expect(wait.left, wake) as ear:
            while not wait.done(await self._database.arun(wait.read())):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(woken.wait(), wait.rest_s(ear.heard_for_s))
                woken.clear()
        return wait.rows

    def as_completed(self, ids: Sequence[UUID], timeout: Duration | None) -> Iterator[JobRow]:
        """Waits for jobs in the order of their ends; see ``PgJobs.as_completed``."""
        refuse_on_the_loop()
        woken = threading.Event()
        race = Race(ids, timeout, woken.set)
        with self._waiting.expect(race.left, race.hear) as ear:
            while race.left:
                woken.clear()
                for asked in race.due(ear.heard_for_s):
                    yield from race.ended(asked, self._database.run(statements.ended(asked)))
                if race.left and race.is_late:
                    raise _late(race, self._database.run(statements.statuses([next(iter(race.left))])))
                woken.wait(race.rest_s() if race.left else 0)
                time.sleep(GATHER_S if race.left else 0)

    async def aas_completed(self, ids: Sequence[UUID], timeout: Duration | None) -> AsyncIterator[JobRow]:
        """The async twin of ``as_completed``."""
        woken, loop = asyncio.Event(), asyncio.get_running_loop()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(woken.set)

        race = Race(ids, timeout, wake)
        with self._waiting.expect(race.left, race.hear) as ear:
            while race.left:
                woken.clear()
                for asked in race.due(ear.heard_for_s):
                    for row in race.ended(asked, await self._database.arun(statements.ended(asked))):
                        yield row
                if race.left and race.is_late:
                    raise _late(race, await self._database.arun(statements.statuses([next(iter(race.left))])))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(woken.wait(), race.rest_s() if race.left else 0)
                await asyncio.sleep(GATHER_S if race.left else 0)

    def close(self) -> None:
        """Closes the connection on which ends of jobs are heard."""
        self._waiting.close()

    def cancel(self, ids: Sequence[UUID], reason: str) -> dict[UUID, str]:
        """Cancels jobs; see ``PgJobs.cancel``."""
        return self._database.run(statements.cancel(ids, reason))

    async def acancel(self, ids: Sequence[UUID], reason: str) -> dict[UUID, str]:
        """The async twin of ``cancel``."""
        return await self._database.arun(statements.cancel(ids, reason))

    def retry(self, ids: Sequence[UUID]) -> list[UUID]:
        """Queues ended jobs again; see ``PgJobs.retry``."""
        return self._database.run(statements.retry(ids))

    async def aretry(self, ids: Sequence[UUID]) -> list[UUID]:
        """The async twin of ``retry``."""
        return await self._database.arun(statements.retry(ids))

    def retry_with(self, job_id: UUID, args: Mapping[str, Json]) -> list[UUID]:
        """Queues an ended job again with other arguments; see ``Job.retry``."""
        row = self.fetch(job_id)
        text = self._written_as(row, args)
        if (asked := self._published(row, text)) is not None:
            _refuse(row.task, self._database.run(asked))
        return self._database.run(statements.retry_with(job_id, text))

    async def aretry_with(self, job_id: UUID, args: Mapping[str, Json]) -> list[UUID]:
        """The async twin of ``retry_with``."""
        row = await self.afetch(job_id)
        text = self._written_as(row, args)
        if (asked := self._published(row, text)) is not None:
            _refuse(row.task, await self._database.arun(asked))
        return await self._database.arun(statements.retry_with(job_id, text))

    def _written_as(self, row: JobRow, args: Mapping[str, Json]) -> str:
        """Arguments as the row has its own: sealed, if those are. They fit the task, where it is known here."""
        if not isinstance(args, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentsError("args are no mapping; give all arguments by name, as in args={'user_id': 42}")
        signature = self._signature_of(row.task)
        bound = dict(args) if signature is None else signature.rebind(dict(args))
        if sealed(row.args) is not None:
            return self._cipher.dumps(bound, what="arguments")
        return codec.dumps(bound, what="arguments") if signature is None else signature.encode(bound)

    def _published(self, row: JobRow, text: str) -> Statement[str | None] | None:
        """What asks whether arguments fit the task as workers have published it, where it is not known here."""
        if sealed(row.args) is not None or self._signature_of(row.task) is not None:
            return None
        return statements.misfit(row.task, text)

    def explain(self, job_id: UUID) -> list[Reason]:
        """Reads why a job stands where it stands."""
        return self._database.run_steps(explain(job_id))

    async def aexplain(self, job_id: UUID) -> list[Reason]:
        """The async twin of ``explain``."""
        return await self._database.arun_steps(explain(job_id))

    def change(self, statement: Statement[list[UUID]]) -> bool:
        """Runs what steers one job; returns whether it stood as it had to."""
        return bool(self._database.run(statement))

    async def achange(self, statement: Statement[list[UUID]]) -> bool:
        """The async twin of ``change``."""
        changed = await self._database.arun(statement)
        return bool(changed)

    def delete(self, ids: Sequence[UUID]) -> list[UUID]:
        """Deletes jobs; see ``PgJobs.delete``."""
        return self._database.run(statements.delete(ids))

    async def adelete(self, ids: Sequence[UUID]) -> list[UUID]:
        """The async twin of ``delete``."""
        return await self._database.arun(statements.delete(ids))


class _Wait:
    """What is still waited for, and how long until somebody looks again; the same for threads and coroutines."""

    def __init__(self, ids: Sequence[UUID], timeout: Duration | None) -> None:
        self._ids = list(ids)
        self._found: dict[UUID, JobRow] = {}
        self._timeout = timeout
        self._deadline = None if timeout is None else time.monotonic() + seconds(timeout, what="timeout")
        self._ramp = iter(_RAMP_S)
        self._got_on = False
        self.left = list(dict.fromkeys(self._ids))

    @property
    def rows(self) -> list[JobRow]:
        """The jobs in the order in which they were asked for."""
        return [self._found[job_id] for job_id in self._ids]

    def read(self) -> Statement[dict[UUID, JobRow]]:
        """What reads those that are left, some at a time."""
        return statements.jobs_by_id(self.left[:_AT_ONCE])

    def done(self, rows: dict[UUID, JobRow]) -> bool:
        """Takes what was read; returns whether all have ended.

        Raises:
            JobNotFoundError: one of them is not there.
            ResultTimeoutError: the time is over.
        """
        asked, rest = self.left[:_AT_ONCE], self.left[_AT_ONCE:]
        for job_id in asked:
            if job_id not in rows:
                raise JobNotFoundError(job_id)
        ended = {job_id: row for job_id, row in rows.items() if row.status.ended}
        self._found |= ended
        self._got_on = bool(ended)
        unended = [job_id for job_id in asked if job_id not in self._found]
        self.left = [*unended, *rest] if len(unended) == len(asked) else [*rest, *unended]
        if self.left and self._deadline is not None and time.monotonic() >= self._deadline:
            first = rows.get(self.left[0], rows[asked[0]])
            raise ResultTimeoutError(first.id, first.status.value, seconds(self._timeout or 0.0))
        return not self.left

    def rest_s(self, heard_for_s: float | None) -> float:
        """Seconds until the next look, if nobody wakes us.

        Args:
            heard_for_s: how long ends of jobs have been heard; None if they are not. What ends just when it begins may
                be missed.
        """
        rest_s = _LOOK_S
        if self._got_on:
            rest_s = _NEXT_S
        elif heard_for_s is None or heard_for_s < 0.2:
            rest_s = next(self._ramp, _BLIND_S)
        if self._deadline is not None:
            rest_s = min(rest_s, self._deadline - time.monotonic())
        return max(0.0, rest_s)


def _usable(conn: object) -> object:
    """A handle's connection while its transaction may be open; another one once it is closed."""
    if conn is None or getattr(conn, "closed", False) or getattr(conn, "is_active", True) is False:
        return None
    return conn


def _found(job_id: UUID, row: JobRow | None) -> JobRow:
    if row is None:
        raise JobNotFoundError(job_id)
    return row


def _late(race: Race, statuses: dict[UUID, Status]) -> ResultTimeoutError:
    first = next(iter(race.left))
    return ResultTimeoutError(first, statuses[first].value if first in statuses else "gone", race.timeout_s or 0.0)


def _refuse(task: str, problem: str | None) -> None:
    if problem is not None:
        raise ArgumentsError(f"task {task!r}: {problem}; pgjobs.tasks has the schema of its arguments")


def _contents(job_id: UUID, name: str, data: bytes | None) -> bytes:
    if data is None:
        raise JobFileNotFoundError(job_id, name)
    return data


def _failed(row: JobRow, failures: list[FailureRow]) -> JobFailedError:
    last = failures[-1] if failures and row.status is Status.FAILED else None
    if last is None:
        return JobFailedError(row.id, row.status.value, row.reason)
    return JobFailedError(row.id, row.status.value, row.reason, last.exception, last.message, last.traceback)
