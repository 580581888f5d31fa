"""The jobs that ran inline: what is read of them, and what they can be told, without a database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from uuid import UUID

from pgjobs.arguments.codec import Json
from pgjobs.config import Duration
from pgjobs.errors import JobFileNotFoundError, JobNotFoundError, ResultTimeoutError
from pgjobs.insight.explain import Reason
from pgjobs.job import Draft, FailureRow, FileRow, JobRow, LogRow, Status, Template
from pgjobs.ledger import Ledger

if TYPE_CHECKING:
    from pgjobs.app import PgJobs
    from pgjobs.running.inline import Inline
    from pgjobs.statements import Statement


@dataclass(slots=True)
class Traces:
    """What a job leaves behind beside its row."""

    failures: list[FailureRow] = field(default_factory=list[FailureRow])
    lines: list[LogRow] = field(default_factory=list[LogRow])
    files: dict[str, tuple[FileRow, bytes]] = field(default_factory=dict[str, tuple[FileRow, bytes]])


class Memory(Ledger):
    """The jobs that ran inline, beside those of the database. What waits in no queue cannot be moved in one.

    Args:
        inline: what runs a job again.
    """

    def __init__(self, jobs: PgJobs, inline: Inline) -> None:
        super().__init__(jobs.database, jobs.cipher, jobs.result_of, jobs.signature_of)
        self._inline = inline
        self._rows: dict[UUID, JobRow] = {}
        self._traces: dict[UUID, Traces] = {}
        self._calls: dict[UUID, tuple[Template, Draft]] = {}

    def keep(self, row: JobRow, traces: Traces, call: tuple[Template, Draft]) -> None:
        """Takes a job as it stands at the end of its run; call is what runs it once more."""
        self._rows[row.id] = row
        self._traces[row.id] = traces
        self._calls[row.id] = call

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

    def _of(self, ids: Sequence[UUID]) -> tuple[list[UUID], list[UUID]]:
        """Those that ran here, and the others."""
        ours = [job_id for job_id in ids if job_id in self._rows]
        return ours, [job_id for job_id in ids if job_id not in self._rows]

    def cancel(self, ids: Sequence[UUID], reason: str) -> dict[UUID, str]:
        ours, others = self._of(ids)
        waiting = [job_id for job_id in ours if not self._rows[job_id].status.ended]
        for job_id in waiting:
            self._rows[job_id] = replace(self._rows[job_id], status=Status.CANCELLED, reason=reason)
        return dict.fromkeys(waiting, "cancelled") | (super().cancel(others, reason) if others else {})

    async def acancel(self, ids: Sequence[UUID], reason: str) -> dict[UUID, str]:
        ours, others = self._of(ids)
        return self.cancel(ours, reason) | (await super().acancel(others, reason) if others else {})

    def delete(self, ids: Sequence[UUID]) -> list[UUID]:
        ours, others = self._of(ids)
        for job_id in ours:
            del self._rows[job_id], self._traces[job_id], self._calls[job_id]
        return ours + (super().delete(others) if others else [])

    async def adelete(self, ids: Sequence[UUID]) -> list[UUID]:
        ours, others = self._of(ids)
        return self.delete(ours) + (await super().adelete(others) if others else [])

    def retry(self, ids: Sequence[UUID]) -> list[UUID]:
        ours, others = self._of(ids)
        ended = [job_id for job_id in ours if self._rows[job_id].status.ended]
        for job_id in ended:
            self._inline.run(*self._calls[job_id], self._traces[job_id])
        return ended + (super().retry(others) if others else [])

    async def aretry(self, ids: Sequence[UUID]) -> list[UUID]:
        ours, others = self._of(ids)
        ended = [job_id for job_id in ours if self._rows[job_id].status.ended]
        for job_id in ended:
            await self._inline.arun(*self._calls[job_id], self._traces[job_id])
        return ended + (await super().aretry(others) if others else [])

    def retry_with(self, job_id: UUID, args: Mapping[str, Json]) -> list[UUID]:
        if job_id not in self._rows:
            return super().retry_with(job_id, args)
        self._call_with(job_id, args)
        return self.retry([job_id])

    async def aretry_with(self, job_id: UUID, args: Mapping[str, Json]) -> list[UUID]:
        if job_id not in self._rows:
            return await super().aretry_with(job_id, args)
        self._call_with(job_id, args)
        return await self.aretry([job_id])

    def _call_with(self, job_id: UUID, args: Mapping[str, Json]) -> None:
        template, draft = self._calls[job_id]
        self._calls[job_id] = template, draft._replace(args=self._written_as(self._rows[job_id], args))

    def change(self, statement: Statement[list[UUID]]) -> bool:
        return not self._of_statement(statement) and super().change(statement)

    async def achange(self, statement: Statement[list[UUID]]) -> bool:
        return not self._of_statement(statement) and await super().achange(statement)

    def _of_statement(self, statement: Statement[list[UUID]]) -> bool:
        return UUID(statement.params["ids"][0]) in self._rows

    def explain(self, job_id: UUID) -> list[Reason]:
        return self._explained(job_id) if job_id in self._rows else super().explain(job_id)

    async def aexplain(self, job_id: UUID) -> list[Reason]:
        return self._explained(job_id) if job_id in self._rows else await super().aexplain(job_id)

    def _explained(self, job_id: UUID) -> list[Reason]:
        return [Reason("inline", f"it ran where it was enqueued, and is {self._rows[job_id].status.value}")]

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
