"""The database: pools that open when needed, dedicated connections for the worker's services, run and arun."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import weakref
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgjobs import borrowed, statements
from pgjobs.config import SCHEMA_REVISION
from pgjobs.errors import SchemaError
from pgjobs.statements import Statement, T

if TYPE_CHECKING:
    from psycopg_pool import AsyncConnectionPool, ConnectionPool

logger = logging.getLogger("pgjobs")

RESEND: Final = (errors.SerializationFailure, errors.DeadlockDetected, errors.LockNotAvailable)
"""After these the same statements are sent again: the claim's fence and the client's ids make them idempotent."""

_KEEPALIVE: Final = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3, "tcp_user_timeout": 15_000}
_BEGIN: Final = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"
_PLANNING: Final = (
    "SELECT set_config('plan_cache_mode', 'force_custom_plan', true), set_config('enable_seqscan', 'off', true),"
    " set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true)"
)


class Database:
    """A database and a schema in it. Nothing is opened before it is used; safe across threads and after fork.

    Args:
        url: as libpq takes it; empty for libpq's own environment variables.
        pool, async_pool: the application's own pools, used instead of ours.
    """

    def __init__(
        self,
        url: str,
        schema: str,
        pool: ConnectionPool[Any] | None = None,
        async_pool: AsyncConnectionPool[Any] | None = None,
        max_size: int = 10,
    ) -> None:
        self.schema = schema
        self._url = url
        self._given = pool
        self._given_async = async_pool
        self._max_size = max_size
        self._lock = threading.Lock()
        self._pools: dict[int, ConnectionPool[Any]] = {}
        self._async_pools: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncConnectionPool[Any]] = (
            weakref.WeakKeyDictionary()
        )

    def __repr__(self) -> str:
        return f"<Database {self.where}>"

    @property
    def url(self) -> str:
        """The connection string, password included: for opening connections, never for showing."""
        return self._url

    @property
    def where(self) -> str:
        """Where the database is, without the password, as logs and errors may say it."""
        known = conninfo_to_dict(self._url)
        host = known.get("host") or os.environ.get("PGHOST") or "local socket"
        name = known.get("dbname") or os.environ.get("PGDATABASE") or known.get("user") or ""
        return f"{name}@{host}"

    def connect(self, name: str) -> psycopg.Connection[tuple[Any, ...]]:
        """Opens a connection of its own, in autocommit, that notices a peer which is gone."""
        return psycopg.connect(self._conninfo(name), autocommit=True, connect_timeout=10)

    def _conninfo(self, name: str) -> str:
        return make_conninfo(self._url, **({"application_name": name} | _KEEPALIVE))

    def check_schema(self, link: Link) -> None:
        """Makes sure that the tables are those of this release.

        Raises:
            SchemaError: they are absent, older, or newer; says what to do.
        """
        try:
            with _explained(self.schema):
                revision = link.peek(statements.schema_revision())
        except psycopg.errors.InsufficientPrivilege:
            return
        if revision != SCHEMA_REVISION:
            raise SchemaError(
                f"the schema {self.schema} is at revision {revision}, and this release needs {SCHEMA_REVISION}; "
                + ("upgrade pgjobs-queue" if str(revision) > SCHEMA_REVISION else "run `pgjobs migrate`")
            )

    # -- short statements of the application's processes

    def run(self, statement: Statement[T], conn: object = None) -> T:
        """Runs a statement in the caller's transaction, or in one of its own where conn is None.

        Raises:
            SchemaError: the tables are not there.
        """
        if conn is not None:
            return borrowed.run(conn, statement, self.schema)
        with _explained(self.schema):
            try:
                return self._run_once(statement)
            except (psycopg.OperationalError, *RESEND):
                return self._run_once(statement)

    def _run_once(self, statement: Statement[T]) -> T:
        with self.connection() as own:
            cursor = own.execute(statement.query.text(self.schema), statement.params)
            return statement.read(cursor.fetchall() if cursor.description else [])

    async def arun(self, statement: Statement[T], conn: object = None) -> T:
        """The async twin of ``run``."""
        if conn is not None:
            return await borrowed.arun(conn, statement, self.schema)
        with _explained(self.schema):
            try:
                return await self._arun_once(statement)
            except (psycopg.OperationalError, *RESEND):
                return await self._arun_once(statement)

    async def _arun_once(self, statement: Statement[T]) -> T:
        async with self.aconnection() as own:
            cursor = await own.execute(statement.query.text(self.schema), statement.params)
            return statement.read(await cursor.fetchall() if cursor.description else [])

    @contextlib.contextmanager
    def connection(self) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
        """Lends a connection of the pool, in autocommit where the pool is ours."""
        with self._pool().connection() as own:
            yield own

    @contextlib.asynccontextmanager
    async def aconnection(self) -> AsyncIterator[psycopg.AsyncConnection[tuple[Any, ...]]]:
        """The async twin of ``connection``."""
        async with (await self._async_pool()).connection() as own:
            yield own

    def _pool(self) -> ConnectionPool[Any]:
        if self._given is not None:
            return self._given
        pool = self._pools.get(os.getpid())
        if pool is None:
            with self._lock:
                pool = self._pools.get(os.getpid()) or self._open_pool()
        return pool

    def _open_pool(self) -> ConnectionPool[Any]:
        """Opens this process's pool. A parent's one is kept, unused: closing it would hang up the parent's connections."""
        from psycopg_pool import ConnectionPool

        pool = ConnectionPool(
            self._conninfo("pgjobs"),
            kwargs={"autocommit": True},
            min_size=0,
            max_size=self._max_size,
            timeout=10,
            max_idle=60,
            open=True,
        )
        self._pools[os.getpid()] = pool
        return pool

    async def _async_pool(self) -> AsyncConnectionPool[Any]:
        if self._given_async is not None:
            return self._given_async
        loop = asyncio.get_running_loop()
        pool = self._async_pools.get(loop)
        if pool is None:
            from psycopg_pool import AsyncConnectionPool

            pool = self._async_pools[loop] = AsyncConnectionPool(
                self._conninfo("pgjobs"),
                kwargs={"autocommit": True},
                min_size=0,
                max_size=self._max_size,
                timeout=10,
                max_idle=60,
                open=False,
            )
            await pool.open()
        return pool

    def close(self) -> None:
        """Closes this process's pool; the next use opens another one."""
        if pool := self._pools.pop(os.getpid(), None):
            pool.close()

    async def aclose(self) -> None:
        """Closes the pools of this process and of the running loop."""
        self.close()
        if pool := self._async_pools.pop(asyncio.get_running_loop(), None):
            await pool.close()


@contextlib.contextmanager
def _explained(schema: str) -> Iterator[None]:
    try:
        yield
    except (errors.UndefinedTable, errors.InvalidSchemaName, errors.UndefinedColumn, errors.UndefinedFunction) as error:
        remedy = "run `pgjobs migrate`" + (f" --schema {schema}" if schema != "pgjobs" else "")
        raise SchemaError(f"the database does not have this release's schema ({error.diag.message_primary}); {remedy}") from error


class Link:
    """A service's own connection: opened when needed, and every transaction on it is one round trip.

    Not thread-safe; a service has one each.
    """

    def __init__(self, database: Database, name: str) -> None:
        self._database = database
        self._name = name
        self._conn: psycopg.Connection[tuple[Any, ...]] | None = None

    @property
    def conn(self) -> psycopg.Connection[tuple[Any, ...]]:
        """The connection, opened anew where it is closed or broken."""
        if self._conn is None or self._conn.closed:
            self._conn = self._database.connect(self._name)
        return self._conn

    def batch(self, *statements: Statement[Any]) -> list[Any]:
        """Runs statements in one transaction and one round trip; returns what each reads.

        READ COMMITTED whatever the database's default. Plans are made for the values at hand, because one cached while the
        table was empty made a claim 150 times slower; and by index and nested loop alone, because every statement of a worker
        finds few rows by key, and the planner, told by old statistics that a table is small or a status rare, scans it.

        Raises:
            StatementError: one of them failed, and all were rolled back; it says which.
        """
        conn = self.conn
        cursors: list[psycopg.Cursor[tuple[Any, ...]]] = []
        try:
            with conn.pipeline():
                conn.execute(_BEGIN)
                conn.execute(_PLANNING)
                for statement in statements:
                    cursor = conn.cursor(binary=True)
                    cursors.append(cursor)
                    cursor.execute(statement.query.text(self._database.schema), statement.params)
                conn.execute("COMMIT")
        except psycopg.Error:
            self._rollback()
            raise
        return [
            statement.read(cursor.fetchall() if cursor.description else [])
            for statement, cursor in zip(statements, cursors, strict=True)
        ]

    def one(self, statement: Statement[T]) -> T:
        """Runs one statement in a transaction."""
        result: T = self.batch(statement)[0]
        return result

    def peek(self, statement: Statement[T]) -> T:
        """Runs one cheap read outside any transaction of ours."""
        cursor = self.conn.cursor(binary=True)
        cursor.execute(statement.query.text(self._database.schema), statement.params)
        return statement.read(cursor.fetchall())

    def begin(self) -> None:
        """Opens a transaction for statements that depend on each other; ``commit`` ends it."""
        self.conn.execute(_BEGIN)
        self.conn.execute(_PLANNING)

    def step(self, statement: Statement[T]) -> T:
        """Runs one statement of the open transaction."""
        try:
            cursor = self.conn.cursor(binary=True)
            cursor.execute(statement.query.text(self._database.schema), statement.params)
            return statement.read(cursor.fetchall() if cursor.description else [])
        except psycopg.Error:
            self._rollback()
            raise

    def commit(self) -> None:
        """Commits the open transaction."""
        self.conn.execute("COMMIT")

    def _rollback(self) -> None:
        """Leaves the connection clean, or closes it."""
        if self._conn is None or self._conn.closed:
            return
        try:
            self._conn.execute("ROLLBACK")
        except psycopg.Error:
            self.close()

    def close(self) -> None:
        """Closes the connection; the next use opens another one."""
        conn, self._conn = self._conn, None
        if conn is not None:
            with contextlib.suppress(psycopg.Error):
                conn.close()


def is_away(error: BaseException) -> bool:
    """Whether an error says that the server is gone or not yet there, so that trying again is the remedy."""
    return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError) and not isinstance(error, RESEND)


def batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Cuts a sequence into pieces of a size."""
    return (items[start : start + size] for start in range(0, len(items), size))
