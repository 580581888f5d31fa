"""A thin door to one queue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, Unpack, cast

from pgjobs import borrowed, source
from pgjobs.app import Door, PgJobs
from pgjobs.handle import Job
from pgjobs.task import Options, Task

R = TypeVar("R")


class Queue:
    """A thin door to one queue, for those who come from RQ: ``Queue(connection=…).enqueue(function, 'argument')``.

    Args:
        name: the queue.
        connection: a PgJobs, a URL, or a connection (whose transaction the jobs then share); None for the environment.
    """

    def __init__(self, name: str = "default", connection: object = None) -> None:
        self.name = name
        self._conn: object = None
        if isinstance(connection, PgJobs):
            self.jobs = connection
        elif connection is None or isinstance(connection, str) or source.kind_of(connection):
            self.jobs = PgJobs(connection)
        else:
            borrowed.kind_of(connection)
            self.jobs = PgJobs()
            self._conn = connection

    def using(self, conn: object = None, /, **options: Unpack[Options]) -> Door:
        """Says how the next jobs are enqueued; see ``Task.using``."""
        merged = cast("Options", {"queue": self.name, **options})
        return Door(self.jobs, self._conn if conn is None else conn, merged)

    def enqueue(self, function: Callable[..., R] | Task[..., Any, R] | str, /, *args: Any, **kwargs: Any) -> Job[R]:
        """Enqueues one call; see ``PgJobs.enqueue``."""
        return self.using().enqueue(function, *args, **kwargs)

    async def aenqueue(
        self, function: Callable[..., R] | Task[..., Any, R] | str, /, *args: Any, **kwargs: Any
    ) -> Job[R]:
        """The async twin of ``enqueue``."""
        return await self.using().aenqueue(function, *args, **kwargs)
