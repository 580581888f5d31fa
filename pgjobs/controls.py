"""Steering from outside: pauses of queues and tasks, holds, moving jobs that wait; and marks on the time axis."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast
from uuid import UUID

from pgjobs import statements
from pgjobs.arguments.reference import reference
from pgjobs.config import Duration, queue_name, seconds
from pgjobs.connections.database import Database
from pgjobs.errors import OptionError
from pgjobs.handle import Job
from pgjobs.job import as_id
from pgjobs.options import priority_of
from pgjobs.registered import named
from pgjobs.statements import Mark, Pause, Statement
from pgjobs.statements.steering import Kind
from pgjobs.task import Task
from pgjobs.wording import given

FIRST: Final = datetime(1, 1, 2, tzinfo=UTC)
LAST: Final = datetime(9999, 12, 31, tzinfo=UTC)
"""Moments between these have a date in Python wherever they are read."""

MAX_MARK: Final = 200
"""Characters of a mark's text."""


class Controls:
    """What ``PgJobs`` can do to queues, tasks and waiting jobs."""

    database: Database

    # -- pauses

    def pause(
        self,
        queue: str | None = None,
        task: str | Callable[..., Any] | None = None,
        *,
        for_: Duration | None = None,
        until: datetime | None = None,
        reason: str | None = None,
    ) -> None:
        """Pauses a queue or a task, for all workers: what runs goes on to its end, nothing else of it starts.

        Enqueueing goes on. Workers hear of it within a second, or three where notifications do not reach them.

        Args:
            for_, until: when it is to be resumed, the time being an aware one; else somebody calls ``resume``.

        Raises:
            OptionError: not exactly one of queue and task is given, or both for_ and until are.
            TaskError: what is given as a task is none, and no function that a worker finds, nor a name.
        """
        self.database.run(_pause(queue, task, for_, until, reason))

    async def apause(
        self,
        queue: str | None = None,
        task: str | Callable[..., Any] | None = None,
        *,
        for_: Duration | None = None,
        until: datetime | None = None,
        reason: str | None = None,
    ) -> None:
        """The async twin of ``pause``."""
        await self.database.arun(_pause(queue, task, for_, until, reason))

    def resume(self, queue: str | None = None, task: str | Callable[..., Any] | None = None) -> bool:
        """Ends a pause: jobs start at once, those of a task in their old order. Returns whether there was one."""
        kind, names = _what(queue, task)
        names = self.database.run(statements.resume(kind, names))
        left = int(kind == "task")
        while left:
            left = self.database.run(statements.unpark())
        return bool(names)

    async def aresume(self, queue: str | None = None, task: str | Callable[..., Any] | None = None) -> bool:
        """The async twin of ``resume``."""
        kind, names = _what(queue, task)
        names = await self.database.arun(statements.resume(kind, names))
        left = int(kind == "task")
        while left:
            left = await self.database.arun(statements.unpark())
        return bool(names)

    def pauses(self) -> list[Pause]:
        """What is paused."""
        return self.database.run(statements.pauses())

    async def apauses(self) -> list[Pause]:
        """The async twin of ``pauses``."""
        return await self.database.arun(statements.pauses())

    # -- marks

    def mark(self, text: str, at: datetime | None = None) -> Mark:
        """Marks a moment, such as a deploy, with who says so and on which host; reports show it beside their figures.

        Args:
            at: the moment, aware; now, by the database's clock, by default.

        Raises:
            OptionError: the text is empty or has more than 200 characters, or at has no time zone.
        """
        return self.database.run(_mark(text, at))

    async def amark(self, text: str, at: datetime | None = None) -> Mark:
        """The async twin of ``mark``."""
        return await self.database.arun(_mark(text, at))

    def marks(self, limit: int = 20) -> list[Mark]:
        """The last marks, the latest first."""
        return self.database.run(statements.marks(limit))

    async def amarks(self, limit: int = 20) -> list[Mark]:
        """The async twin of ``marks``."""
        return await self.database.arun(statements.marks(limit))

    # -- jobs that wait

    def hold(self, jobs: Iterable[UUID | str | Job[Any]], reason: str | None = None) -> list[UUID]:
        """Puts many waiting jobs on hold; see ``Job.hold``. Returns those that waited."""
        return self.database.run(statements.hold(ids_of(jobs), reason))

    async def ahold(self, jobs: Iterable[UUID | str | Job[Any]], reason: str | None = None) -> list[UUID]:
        """The async twin of ``hold``."""
        return await self.database.arun(statements.hold(ids_of(jobs), reason))

    def unhold(self, jobs: Iterable[UUID | str | Job[Any]]) -> list[UUID]:
        """Lets many jobs go; see ``Job.unhold``. Returns those that were on hold."""
        return self.database.run(statements.unhold(ids_of(jobs)))

    async def aunhold(self, jobs: Iterable[UUID | str | Job[Any]]) -> list[UUID]:
        """The async twin of ``unhold``."""
        return await self.database.arun(statements.unhold(ids_of(jobs)))

    def move(self, jobs: Iterable[UUID | str | Job[Any]], queue: str) -> list[UUID]:
        """Gives many waiting jobs another queue; see ``Job.move``. Returns those that waited."""
        return self.database.run(statements.move(ids_of(jobs), queue_name(queue), None))

    async def amove(self, jobs: Iterable[UUID | str | Job[Any]], queue: str) -> list[UUID]:
        """The async twin of ``move``."""
        return await self.database.arun(statements.move(ids_of(jobs), queue_name(queue), None))

    def prioritize(self, jobs: Iterable[UUID | str | Job[Any]], priority: int) -> list[UUID]:
        """Gives many waiting jobs another priority; see ``Job.prioritize``. Returns those that waited."""
        return self.database.run(statements.move(ids_of(jobs), None, priority_of(priority)))

    async def aprioritize(self, jobs: Iterable[UUID | str | Job[Any]], priority: int) -> list[UUID]:
        """The async twin of ``prioritize``."""
        return await self.database.arun(statements.move(ids_of(jobs), None, priority_of(priority)))

    def run_now(self, jobs: Iterable[UUID | str | Job[Any]]) -> list[UUID]:
        """Queues many scheduled jobs now; see ``Job.run_now``. Returns those that were scheduled."""
        return self.database.run(statements.run_now(ids_of(jobs)))

    async def arun_now(self, jobs: Iterable[UUID | str | Job[Any]]) -> list[UUID]:
        """The async twin of ``run_now``."""
        return await self.database.arun(statements.run_now(ids_of(jobs)))


def ids_of(jobs: Iterable[UUID | str | Job[Any]]) -> list[UUID]:
    """The ids of jobs that are given as handles or ids."""
    if isinstance(jobs, str | UUID | Job) or not isinstance(jobs, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise OptionError(f"{given(jobs)} is no list of jobs; write [job] for one")
    return [job.id if isinstance(job, Job) else as_id(job) for job in jobs]


def _what(queue: str | None, task: str | Callable[..., Any] | None) -> tuple[Kind, list[str]]:
    if (queue is None) == (task is None):
        raise OptionError("give one of queue= and task=")
    if queue is not None:
        return "queue", [queue_name(queue)]
    if isinstance(task, Task):
        return "task", [task.name, *task.aliases]
    return "task", [named(task) if isinstance(task, str) else reference(cast("Callable[..., Any]", task))]


def _pause(
    queue: str | None,
    task: str | Callable[..., Any] | None,
    for_: Duration | None,
    until: datetime | None,
    reason: str | None,
) -> Statement[None]:
    kind, names = _what(queue, task)
    if for_ is not None and until is not None:
        raise OptionError("for_ and until are both given; give one of them")
    _check_moment(until, "until")
    length = None if for_ is None else timedelta(seconds=seconds(for_, what="for_"))
    return statements.pause(kind, names, reason, until, length)


def _check_moment(value: object, what: str) -> None:
    if value is not None and (not isinstance(value, datetime) or value.utcoffset() is None):
        raise OptionError(
            f"{what} is {given(value)}, without a time zone; pass an aware datetime, such as datetime.now(UTC)"
        )


def _mark(text: str, at: datetime | None) -> Statement[Mark]:
    text = text.strip()
    if not text or len(text) > MAX_MARK:
        raise OptionError(f"the mark has {len(text)} characters; give it from 1 to {MAX_MARK}, such as 'v1.2.3'")
    _check_moment(at, "at")
    if at is not None and not FIRST <= at < LAST:
        raise OptionError(f"at is {at.isoformat()}, for which not every zone has a date; give a moment of this age")
    return statements.add_mark(at, text, user(), socket.gethostname())


def user() -> str:
    """Who runs this process, as far as the system knows a name for them."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's number that is nobody's
        return "unknown"
