"""What stands in the table: reads jobs, waits for their ends, cancels, retries and deletes them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from typing import Final
from uuid import UUID

from pgjobs import statements
from pgjobs.config import Duration, seconds
from pgjobs.database import Database
from pgjobs.errors import JobFailedError, JobNotFoundError, ResultTimeoutError
from pgjobs.job import FailureRow, JobRow, Status

_POLLS_S: Final = (0.002, 0.005, 0.01, 0.02, 0.05)


class Ledger:
    """The jobs of a database, by their ids."""

    def __init__(self, database: Database) -> None:
        self._database = database

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

    def await_result(self, job_id: UUID, timeout: Duration | None) -> JobRow:
        """Waits until a job has ended; see ``Job.get``."""
        deadline = _deadline(timeout)
        rests_s = _rests_s()
        while not (row := self.fetch(job_id)).status.ended:
            _check_time(row, timeout, deadline)
            time.sleep(next(rests_s))
        if row.status is not Status.SUCCEEDED:
            raise _failed(row, self.failures_of(job_id))
        return row

    async def aawait_result(self, job_id: UUID, timeout: Duration | None) -> JobRow:
        """The async twin of ``await_result``."""
        deadline = _deadline(timeout)
        rests_s = _rests_s()
        while not (row := await self.afetch(job_id)).status.ended:
            _check_time(row, timeout, deadline)
            await asyncio.sleep(next(rests_s))
        if row.status is not Status.SUCCEEDED:
            raise _failed(row, await self.afailures_of(job_id))
        return row

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

    def delete(self, ids: Sequence[UUID]) -> list[UUID]:
        """Deletes jobs; see ``PgJobs.delete``."""
        return self._database.run(statements.delete(ids))

    async def adelete(self, ids: Sequence[UUID]) -> list[UUID]:
        """The async twin of ``delete``."""
        return await self._database.arun(statements.delete(ids))


def _rests_s() -> Iterator[float]:
    yield from _POLLS_S
    while True:
        yield _POLLS_S[-1]


def _usable(conn: object) -> object:
    """A handle's connection while its transaction may be open; another one once it is closed."""
    if conn is None or getattr(conn, "closed", False) or getattr(conn, "is_active", True) is False:
        return None
    return conn


def _found(job_id: UUID, row: JobRow | None) -> JobRow:
    if row is None:
        raise JobNotFoundError(job_id)
    return row


def _deadline(timeout: Duration | None) -> float | None:
    return None if timeout is None else time.monotonic() + seconds(timeout, what="timeout")


def _check_time(row: JobRow, timeout: Duration | None, deadline: float | None) -> None:
    if deadline is not None and timeout is not None and time.monotonic() >= deadline:
        raise ResultTimeoutError(row.id, row.status.value, seconds(timeout))


def _failed(row: JobRow, failures: list[FailureRow]) -> JobFailedError:
    last = failures[-1] if failures and row.status is Status.FAILED else None
    if last is None:
        return JobFailedError(row.id, row.status.value, row.reason)
    return JobFailedError(row.id, row.status.value, row.reason, last.exception, last.message, last.traceback)
