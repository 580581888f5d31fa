"""Writes jobs into the table, in a transaction of its own or the application's, and wakes a worker if one is idle."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final, Protocol, TypeAlias
from uuid import UUID

from psycopg import errors

from pgjobs import statements
from pgjobs.connections import borrowed
from pgjobs.connections.database import Database
from pgjobs.errors import JobExistsError, OptionError
from pgjobs.events import Audience, JobEnqueued
from pgjobs.handle import Job
from pgjobs.here import Host, place_here
from pgjobs.job import Draft, Template, new_id, new_ids
from pgjobs.ledger import Ledger
from pgjobs.newjob import NewJob, Prepared
from pgjobs.placing import Placed, place
from pgjobs.statements import Statement, Steps

BROADCAST_TTL: Final = timedelta(seconds=60)
"""How long a job for every worker waits for a worker that is gone, unless its options say so."""

Group: TypeAlias = tuple[Template, Iterable[Draft]]
"""Calls that share a template."""


class Around(Protocol):
    """Middleware, as far as tasks know it; see ``pgjobs.running.middleware.Middleware``."""

    @property
    def sees_enqueues(self) -> bool: ...
    def wrap_enqueue(self, call_next: Callable[[NewJob], Prepared]) -> Callable[[NewJob], Prepared]: ...
    def wrap_run(self, function: Callable[..., Any]) -> Callable[..., Any]: ...


CHUNK: Final = 1_000
"""Rows in one INSERT of a bulk enqueue; from this many on a psycopg connection takes them by COPY."""


class Inline(Protocol):
    """Runs a job to its end where it is enqueued; see ``pgjobs.running.inline``."""

    @property
    def memory(self) -> Ledger: ...
    def run(self, row: Template, draft: Draft) -> Job[Any]: ...
    async def arun(self, row: Template, draft: Draft) -> Job[Any]: ...


class Producer:
    """Enqueues what is ready to be written: a template and drafts.

    Attributes:
        inline: what runs the jobs instead, here and now.
        hosts: the workers of this process, which start what is to run here.
        middleware, gates: what goes around enqueues and runs, the first one outermost; those of it that see enqueues.
        audience: who listens to what happens.
        attended: whether somebody wants to know of each enqueue. Where nobody does, nothing is done.
    """

    def __init__(self, database: Database, ledger: Ledger) -> None:
        self.inline: Inline | None = None
        self.hosts: list[Host] = []
        self.database = database
        self._ledger = ledger
        self.middleware: tuple[Around, ...] = ()
        self.gates: tuple[Around, ...] = ()
        self.audience = Audience()
        self.attended = False

    def attend(self, middleware: Iterable[Around] = ()) -> None:
        """Adds middleware, and notes whether it or a listener wants to know of each enqueue."""
        self.middleware = (*self.middleware, *middleware)
        self.gates = tuple(each for each in self.middleware if each.sees_enqueues)
        self.attended = bool(self.gates) or self.audience.wants(JobEnqueued)

    def prepare(self, job: NewJob, finish: Callable[[NewJob], Prepared]) -> Prepared:
        """Makes a row of a call, with middleware around it."""
        for each in reversed(self.gates):
            finish = each.wrap_enqueue(finish)
        return finish(job)

    def tell(self, row: Template, ids: Iterable[UUID]) -> None:
        """Tells whoever listens of jobs that were enqueued."""
        if self.audience.wants(JobEnqueued):
            for job_id in ids:
                self.audience(JobEnqueued(job_id, row.task, row.queue))

    def insert(self, row: Template, draft: Draft, conn: object) -> Job[Any]:
        """Writes one row, and wakes a worker if one is idle."""
        if self.inline is not None:
            return self.inline.run(row, draft)
        new = draft.job_id or new_id()
        with _AlreadyThere(new, given=draft.job_id is not None, own=conn is None):
            if not row.is_plain:
                return self._handle(row, self.database.run_steps(self._steps(row, draft, new, conn), conn), conn)
            if self.database.run(statements.enqueue(row, new, draft.args), conn):
                self.database.run(statements.tell_of(row), conn)
        return Job(self._ledger, new, row.task, conn=conn)

    async def ainsert(self, row: Template, draft: Draft, conn: object) -> Job[Any]:
        """The async twin of ``insert``."""
        if self.inline is not None:
            return await self.inline.arun(row, draft)
        new = draft.job_id or new_id()
        with _AlreadyThere(new, given=draft.job_id is not None, own=conn is None):
            if not row.is_plain:
                placed = await self.database.arun_steps(self._steps(row, draft, new, conn), conn)
                return self._handle(row, placed, conn)
            if await self.database.arun(statements.enqueue(row, new, draft.args), conn):
                await self.database.arun(statements.tell_of(row), conn)
        return Job(self._ledger, new, row.task, conn=conn)

    def broadcast(self, row: Template, draft: Draft, conn: object) -> list[Job[Any]]:
        """Writes a row for each worker that lives."""
        if self.inline is not None:
            return [self.inline.run(row, draft)]
        return self._handles(row, self.database.run(_for_all(row, draft), conn), conn)

    async def abroadcast(self, row: Template, draft: Draft, conn: object) -> list[Job[Any]]:
        """The async twin of ``broadcast``."""
        if self.inline is not None:
            return [await self.inline.arun(row, draft)]
        return self._handles(row, await self.database.arun(_for_all(row, draft), conn), conn)

    def _handles(self, row: Template, ids: list[UUID], conn: object) -> list[Job[Any]]:
        return [Job(self._ledger, job_id, row.task, conn=conn) for job_id in ids]

    def _steps(self, row: Template, draft: Draft, new: UUID, conn: object) -> Steps[Placed]:
        if row.here:
            return place_here(self.hosts, row, draft, new, conn)
        return place(row, [draft], [new])

    def handle(self, row: Template, job_id: UUID) -> Job[Any]:
        """The handle of a job that somebody else writes."""
        return Job(self._ledger if self.inline is None else self.inline.memory, job_id, row.task)

    def _handle(self, row: Template, placed: Placed, conn: object) -> Job[Any]:
        return Job(self._ledger, placed.ids[0], row.task, conn=conn, is_new=placed.new[0], is_dropped=placed.dropped)

    def insert_many(self, groups: Iterable[Group], conn: object) -> list[UUID]:
        """Writes many rows, all or none, and wakes a worker if one is idle; returns their ids in order."""
        if self.inline is not None:
            return [self.inline.run(row, draft).id for row, drafts in groups for draft in drafts]
        ids: list[UUID] = []
        if conn is None:
            with self.database.connection() as own, own.transaction():
                for row, drafts in groups:
                    self._fill(row, drafts, own, ids)
        else:
            for row, drafts in groups:
                self._fill(row, drafts, conn, ids)
        return ids

    def _fill(self, row: Template, drafts: Iterable[Draft], conn: object, ids: list[UUID]) -> None:
        _check_many(row)
        rest = iter(drafts)
        first = list(itertools.islice(rest, CHUNK))
        known = len(ids)
        target = borrowed.copier(conn)
        if target is not None and len(first) == CHUNK and _can_copy(row):
            with target.cursor() as cursor, cursor.copy(statements.copy().text(self.database.schema)) as stream:
                for chunk, new in _chunks(first, rest):
                    ids += new
                    stream.write(_copy_lines(row, new, chunk))
            self.database.run_steps(_tell_if_idle(row), conn)
            self.tell(row, ids[known:])
            return
        for chunk, new in _chunks(first, rest):
            ids += self._those_that_count(row, self.database.run_steps(place(row, chunk, new), conn))

    async def ainsert_many(self, groups: Iterable[Group], conn: object) -> list[UUID]:
        """The async twin of ``insert_many``."""
        if self.inline is not None:
            return [(await self.inline.arun(row, draft)).id for row, drafts in groups for draft in drafts]
        ids: list[UUID] = []
        if conn is None:
            async with self.database.aconnection() as own, own.transaction():
                for row, drafts in groups:
                    await self._afill(row, drafts, own, ids)
        elif borrowed.is_async(conn):
            for row, drafts in groups:
                await self._afill(row, drafts, conn, ids)
        else:
            return self.insert_many(groups, conn)
        return ids

    async def _afill(self, row: Template, drafts: Iterable[Draft], conn: object, ids: list[UUID]) -> None:
        _check_many(row)
        rest = iter(drafts)
        first = list(itertools.islice(rest, CHUNK))
        known = len(ids)
        target = borrowed.copier(conn)
        if target is not None and len(first) == CHUNK and _can_copy(row):
            async with target.cursor() as cursor, cursor.copy(statements.copy().text(self.database.schema)) as stream:
                for chunk, new in _chunks(first, rest):
                    ids += new
                    await stream.write(_copy_lines(row, new, chunk))
            await self.database.arun_steps(_tell_if_idle(row), conn)
            self.tell(row, ids[known:])
            return
        for chunk, new in _chunks(first, rest):
            ids += self._those_that_count(row, await self.database.arun_steps(place(row, chunk, new), conn))

    def _those_that_count(self, row: Template, placed: Placed) -> list[UUID]:
        """The ids of the jobs that are there now, for each call; without those that were skipped, if they may be."""
        if placed.dropped:
            return []
        added = [job_id for job_id, new in zip(placed.ids, placed.new, strict=True) if new]
        self.tell(row, added)
        return added if row.unique is not None and row.unique.on_conflict == "skip" else placed.ids


def _for_all(row: Template, draft: Draft) -> Statement[list[UUID]]:
    if row.waits or row.lifo or row.unique or row.here or row.depth or draft.job_id:
        raise OptionError(
            "a job for every worker starts at once, in a queue of its own; leave delay, run_at, lifo, unique, here, "
            "max_depth and job_id out"
        )
    return statements.broadcast(row if row.ttl else replace(row, ttl=BROADCAST_TTL), draft.args)


def _check_many(row: Template) -> None:
    if row.here:
        raise OptionError("here starts one job; leave it out of enqueue_many")


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
