"""Writes jobs into the table, in a transaction of its own or the application's, and wakes a worker if one is idle."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Protocol, TypeAlias
from uuid import UUID

from psycopg import errors

from pgjobs import borrowed, statements
from pgjobs.database import Database
from pgjobs.errors import JobExistsError
from pgjobs.events import Audience, JobEnqueued
from pgjobs.handle import Job
from pgjobs.job import Draft, Template, new_id, new_ids
from pgjobs.ledger import Ledger
from pgjobs.newjob import NewJob, Prepared
from pgjobs.placing import Placed, place
from pgjobs.statements import Steps

Group: TypeAlias = tuple[Template, Iterable[Draft]]
"""Calls that share a template."""


class Around(Protocol):
    """Middleware, as far as tasks know it; see ``pgjobs.middleware.Middleware``."""

    @property
    def sees_enqueues(self) -> bool: ...
    def wrap_enqueue(self, call_next: Callable[[NewJob], Prepared]) -> Callable[[NewJob], Prepared]: ...
    def wrap_run(self, function: Callable[..., Any]) -> Callable[..., Any]: ...


CHUNK: Final = 1_000
"""Rows in one INSERT of a bulk enqueue; from this many on a psycopg connection takes them by COPY."""


class Producer:
    """Enqueues what is ready to be written: a template and drafts."""

    def __init__(self, database: Database, ledger: Ledger) -> None:
        self._database = database
        self._ledger = ledger
        self.middleware: tuple[Around, ...] = ()
        self.audience = Audience()
        self.attended = False

    def attend(self, middleware: Iterable[Around]) -> None:
        """Notes who wants to know of each enqueue: middleware, and listeners. Where nobody does, nothing is done."""
        self.middleware = tuple(each for each in middleware if each.sees_enqueues)
        self.attended = bool(self.middleware) or self.audience.wants(JobEnqueued)

    def prepare(self, job: NewJob, finish: Callable[[NewJob], Prepared]) -> Prepared:
        """Makes a row of a call, with middleware around it."""
        for each in reversed(self.middleware):
            finish = each.wrap_enqueue(finish)
        return finish(job)

    def tell(self, row: Template, ids: Iterable[UUID]) -> None:
        """Tells whoever listens of jobs that were enqueued."""
        if self.audience.wants(JobEnqueued):
            for job_id in ids:
                self.audience(JobEnqueued(job_id, row.task, row.queue))

    def insert(self, row: Template, draft: Draft, conn: object) -> Job[Any]:
        """Writes one row, and wakes a worker if one is idle."""
        new = draft.job_id or new_id()
        with _AlreadyThere(new, given=draft.job_id is not None, own=conn is None):
            if not row.is_plain:
                return self._handle(row, self._database.run_steps(place(row, [draft], [new]), conn), conn)
            if self._database.run(statements.enqueue(row, new, draft.args), conn):
                self._database.run(statements.tell_of(row), conn)
        return Job(self._ledger, new, row.task, conn=conn)

    async def ainsert(self, row: Template, draft: Draft, conn: object) -> Job[Any]:
        """The async twin of ``insert``."""
        new = draft.job_id or new_id()
        with _AlreadyThere(new, given=draft.job_id is not None, own=conn is None):
            if not row.is_plain:
                return self._handle(row, await self._database.arun_steps(place(row, [draft], [new]), conn), conn)
            if await self._database.arun(statements.enqueue(row, new, draft.args), conn):
                await self._database.arun(statements.tell_of(row), conn)
        return Job(self._ledger, new, row.task, conn=conn)

    def _handle(self, row: Template, placed: Placed, conn: object) -> Job[Any]:
        return Job(self._ledger, placed.ids[0], row.task, conn=conn, is_new=placed.new[0])

    def insert_many(self, groups: Iterable[Group], conn: object) -> list[UUID]:
        """Writes many rows, all or none, and wakes a worker if one is idle; returns their ids in order."""
        ids: list[UUID] = []
        if conn is None:
            with self._database.connection() as own, own.transaction():
                for row, drafts in groups:
                    self._fill(row, drafts, own, ids)
        else:
            for row, drafts in groups:
                self._fill(row, drafts, conn, ids)
        return ids

    def _fill(self, row: Template, drafts: Iterable[Draft], conn: object, ids: list[UUID]) -> None:
        rest = iter(drafts)
        first = list(itertools.islice(rest, CHUNK))
        target = borrowed.copier(conn)
        if target is not None and len(first) == CHUNK and _can_copy(row):
            with target.cursor() as cursor, cursor.copy(statements.copy().text(self._database.schema)) as stream:
                for chunk, new in _chunks(first, rest):
                    ids += new
                    stream.write(_copy_lines(row, new, chunk))
            self._database.run_steps(_tell_if_idle(row), conn)
            self.tell(row, ids)
            return
        for chunk, new in _chunks(first, rest):
            ids += self._those_that_count(row, self._database.run_steps(place(row, chunk, new), conn))

    async def ainsert_many(self, groups: Iterable[Group], conn: object) -> list[UUID]:
        """The async twin of ``insert_many``."""
        ids: list[UUID] = []
        if conn is None:
            async with self._database.aconnection() as own, own.transaction():
                for row, drafts in groups:
                    await self._afill(row, drafts, own, ids)
        elif borrowed.is_async(conn):
            for row, drafts in groups:
                await self._afill(row, drafts, conn, ids)
        else:
            return self.insert_many(groups, conn)
        return ids

    async def _afill(self, row: Template, drafts: Iterable[Draft], conn: object, ids: list[UUID]) -> None:
        rest = iter(drafts)
        first = list(itertools.islice(rest, CHUNK))
        target = borrowed.copier(conn)
        if target is not None and len(first) == CHUNK and _can_copy(row):
            async with target.cursor() as cursor, cursor.copy(statements.copy().text(self._database.schema)) as stream:
                for chunk, new in _chunks(first, rest):
                    ids += new
                    await stream.write(_copy_lines(row, new, chunk))
            await self._database.arun_steps(_tell_if_idle(row), conn)
            self.tell(row, ids)
            return
        for chunk, new in _chunks(first, rest):
            ids += self._those_that_count(row, await self._database.arun_steps(place(row, chunk, new), conn))

    def _those_that_count(self, row: Template, placed: Placed) -> list[UUID]:
        """The ids of the jobs that are there now, for each call; without those that were skipped, if they may be."""
        added = [job_id for job_id, new in zip(placed.ids, placed.new, strict=True) if new]
        self.tell(row, added)
        return added if row.unique is not None and row.unique.on_conflict == "skip" else placed.ids


def _tell_if_idle(row: Template) -> Steps[None]:
    if (yield statements.somebody_idle(row.queue)):
        yield statements.tell_of(row)


class _AlreadyThere:
    """Tells a re-sent INSERT, whose first reply was lost, from an id that the caller has used before."""

    def __init__(self, job_id: UUID, *, given: bool, own: bool) -> None:
        self._job_id = job_id
        self._given = given
        self._own = own

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, errors.UniqueViolation) or error.diag.constraint_name != "jobs_pkey":
            return False
        if self._given:
            raise JobExistsError(self._job_id) from error
        return self._own


def _can_copy(row: Template) -> bool:
    return row.is_plain and row.ttl is None


def _chunks(first: list[Draft], rest: Iterator[Draft]) -> Iterator[tuple[list[Draft], list[UUID]]]:
    chunk = first
    while chunk:
        yield chunk, new_ids(len(chunk))
        chunk = list(itertools.islice(rest, CHUNK))


def _copy_lines(row: Template, ids: list[UUID], drafts: list[Draft]) -> str:
    r"""Rows in COPY's text format: a tab between columns, backslashes doubled, \N for NULL."""
    timeout = r"\N" if row.timeout is None else f"{row.timeout.total_seconds()} seconds"
    options = r"\N" if row.options is None else row.options.replace("\\", "\\\\")
    before = f"\t{_copy_text(row.task)}\t{row.queue}\t{row.priority}\t{row.max_attempts}\t{timeout}\t"
    after = f"\t{options}\n"
    return "".join(
        f"{new}{before}{document.replace(chr(92), chr(92) * 2) if chr(92) in document else document}{after}"
        for new, (document, _, _) in zip(ids, drafts, strict=True)
    )


def _copy_text(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")
