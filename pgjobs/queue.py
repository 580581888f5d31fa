"""A thin door to one queue."""

from __future__ import annotations

from typing import Any, Unpack, cast

from pgjobs.app import PgJobs
from pgjobs.connections import borrowed, source
from pgjobs.door import Door, Doorway
from pgjobs.options import Options
from pgjobs.task import Call


class Queue(Doorway):
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
        return self.jobs.using(self._conn if conn is None else conn, **merged)

    def call(self, function: object) -> Call[..., Any]:
        return self.using().call(function)
