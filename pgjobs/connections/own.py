"""The connections of our own pools: in autocommit, with a cursor for single statements, lent and returned as they are.

psycopg makes a cursor for each statement, and its pool ends each loan with a commit: 7 % of what an enqueue takes.
"""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, TypeAlias

import psycopg

if TYPE_CHECKING:
    from psycopg_pool import ConnectionPool

Row: TypeAlias = tuple[Any, ...]


class Own(psycopg.Connection[Row]):
    """A connection of ``Database``'s pool."""

    @functools.cached_property
    def single(self) -> psycopg.Cursor[Row]:
        """The cursor of statements whose rows are read before the next."""
        return self.cursor()


class AsyncOwn(psycopg.AsyncConnection[Row]):
    """The async twin of ``Own``."""

    @functools.cached_property
    def single(self) -> psycopg.AsyncCursor[Row]:
        """The cursor of statements whose rows are read before the next."""
        return self.cursor()


class Lent(AbstractContextManager[Own]):
    """A connection of our pool, for as long as a block lasts."""

    __slots__ = ("_conn", "_pool")

    def __init__(self, pool: ConnectionPool[Own]) -> None:
        self._pool = pool

    def __enter__(self) -> Own:
        self._conn = self._pool.getconn()
        return self._conn

    def __exit__(self, *_: object) -> None:
        self._pool.putconn(self._conn)
