"""The database: pools that open when needed, dedicated connections for the worker's services, run and arun."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import os
import re
import threading
import time
import weakref
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgjobs import statements
from pgjobs.config import UNREADABLE
from pgjobs.connections import borrowed, documents, source
from pgjobs.connections.own import AsyncOwn, Lent, Own
from pgjobs.connections.source import Source
from pgjobs.errors import ConfigurationError, SchemaError
from pgjobs.statements import Rest, Statement, Steps, T

if TYPE_CHECKING:
    from psycopg_pool import AsyncConnectionPool, ConnectionPool

RESEND: Final = (errors.SerializationFailure, errors.DeadlockDetected, errors.LockNotAvailable)
"""After these the same statements are sent again: the claim's fence and the client's ids make them idempotent."""

RECONNECT_S: Final = 1.0
"""How long a pool's attempt to connect goes on before it begins anew, if anybody waits."""

_BACKEND: Final = "SELECT pg_backend_pid()"
_KEEPALIVE: Final = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3, "tcp_user_timeout": 15_000}


def has_rows(cursor: psycopg.Cursor[Any] | psycopg.AsyncCursor[Any]) -> bool:
    """Whether a statement returns rows. (``description`` would build an object for each column.)"""
    return cursor.pgresult is not None and cursor.pgresult.nfields > 0


def _misread(url: str, said: str) -> str:
    """Why libpq cannot read a URL. What it says itself may quote the URL, password and all."""
    scheme, colon, rest = url.partition("://")
    if colon and scheme != "postgresql":
        name = scheme if re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme, re.IGNORECASE) else "another database"
        return (
            f"the database's URL is one of {name}; pgjobs needs PostgreSQL: write postgresql://user:password@host/name"
        )
    unknown = re.search(r'invalid (?:URI query parameter:|connection option) "(\w+)"', said)
    if unknown and "@" not in rest.partition("?")[2]:  # else it may be a part of the password
        return (
            f"the database's URL has a parameter {unknown[1]!r}, which PostgreSQL's library does not know; leave it "
            "out, or write the one that it knows, such as sslmode"
        )
    return UNREADABLE


class Database:
    """A database and a schema in it, found and opened when first used; safe across threads and after fork.

    Args:
        given: a URL, an Engine or a pool; None for what the environment says.
    """

    def __init__(self, given: object, schema: str, max_size: int = 10) -> None:
        self.schema = schema
        self._given = given
        self._max_size = max_size
        self._pooled: bool | None = None
        self._lock = threading.Lock()
        self._pools: dict[int, ConnectionPool[Any]] = {}
        self._async_pools: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncConnectionPool[Any]] = (
            weakref.WeakKeyDictionary()
        )

    def __repr__(self) -> str:
        return f"<Database {self.where}>"

    @functools.cached_property
    def _source(self) -> Source:
        url = ""
        try:
            found = source.find(self._given)
            known = conninfo_to_dict(url := found.url)
        except psycopg.Error as error:  # its text quotes the URL, password and all
            raise ConfigurationError(_misread(url, str(error))) from None
        if not _is_plain(known):
            raise ConfigurationError(UNREADABLE)
        return found

    @property
    def url(self) -> str:
        """The connection string, password included: for opening connections, never for showing."""
        return self._source.url

    @property
    def where(self) -> str:
        """Where the database is, without the password, as logs and errors may say it."""
        known = conninfo_to_dict(self.url)
        host = str(known.get("host") or os.environ.get("PGHOST") or "local socket")
        name = known.get("dbname") or os.environ.get("PGDATABASE") or known.get("user") or ""
        hosts, ports = host.split(","), str(known.get("port") or os.environ.get("PGPORT") or "").split(",")
        if len(hosts) > 1:  # often one name with two ports
            host = ",".join(":".join(filter(None, pair)) for pair in zip(hosts, ports * len(hosts), strict=False))
        return f"{name}@{host}"

    def connect(self, name: str) -> psycopg.Connection[tuple[Any, ...]]:
        """Opens a connection of its own, in autocommit, that notices a peer which is gone."""
        conn = psycopg.connect(self._conninfo(name), autocommit=True)
        documents.register(conn)
        if self._pooled is None:
            self._pooled = _is_pooled(conn, conn.execute(_BACKEND).fetchone())
        if self._pooled:
            conn.prepare_threshold = None
        return conn

    @property
    def pooled(self) -> bool:
        """Whether a pooler such as PgBouncer sits before the server: then no statement is prepared."""
        if self._pooled is None:
            self.connect("pgjobs").close()
        return bool(self._pooled)

    def for_listening(self) -> Database:
        """The database on which LISTEN works: PGJOBS_LISTEN_URL where a pooler sits between, else this one."""
        url = os.environ.get("PGJOBS_LISTEN_URL")
        return Database(url, self.schema) if url else self

    def _conninfo(self, name: str) -> str:
        known = conninfo_to_dict(self.url)
        more: dict[str, Any] = {"application_name": name} | _KEEPALIVE
        if not known.get("connect_timeout") and "PGCONNECT_TIMEOUT" not in os.environ:
            # A host that is gone, tried first, holds up every connection to the one that has taken over.
            more["connect_timeout"] = 3 if "," in str(known.get("host") or os.environ.get("PGHOST")) else 10
        return make_conninfo(self.url, **more)

    # -- short statements of the application's processes

    def run(self, statement: Statement[T], conn: object = None) -> T:
        """Runs a statement in the caller's transaction, or in one of its own where conn is None.

        Raises:
            SchemaError: the tables are not there.
        """
        if conn is not None:
            return borrowed.run(conn, statement, self.schema)
        with explained(self.schema):
            try:
                return self._run_once(statement)
            except (psycopg.OperationalError, *RESEND):
                self._pool().check()  # after a restart every connection in it is dead, not this one alone
            except errors.ReadOnlySqlTransaction:
                self._pool().drain()  # they live, and lead to a server that was demoted
            return self._run_once(statement)

    def _run_once(self, statement: Statement[T]) -> T:
        with self.connection() as own:
            cursor = own.single if isinstance(own, Own) else _reader(own.cursor())
            cursor.execute(
                statement.query.text(self.schema), statement.params, prepare=None if statement.keeps_plan else False
            )
            return statement.read(cursor.fetchall() if has_rows(cursor) else [])

    def stream(self, statement: Statement[T], conn: psycopg.Connection[Any], size: int = 1_000) -> Iterator[T]:
        """Reads a statement's rows some at a time, in the caller's transaction: never more of them are in memory."""
        with conn.cursor(name="pgjobs_stream") as cursor:
            documents.register(cursor)
            cursor.execute(statement.query.text(self.schema), statement.params)
            while rows := cursor.fetchmany(size):
                yield statement.read(rows)

    async def arun(self, statement: Statement[T], conn: object = None) -> T:
        """The async twin of ``run``."""
        if conn is not None:
            return await borrowed.arun(conn, statement, self.schema)
        with explained(self.schema):
            try:
                return await self._arun_once(statement)
            except (psycopg.OperationalError, *RESEND):
                await (await self._async_pool()).check()
            except errors.ReadOnlySqlTransaction:
                await (await self._async_pool()).drain()
            return await self._arun_once(statement)

    async def _arun_once(self, statement: Statement[T]) -> T:
        async with self.aconnection() as own:
            cursor = own.single if isinstance(own, AsyncOwn) else _reader(own.cursor())
            await cursor.execute(
                statement.query.text(self.schema), statement.params, prepare=None if statement.keeps_plan else False
            )
            return statement.read(await cursor.fetchall() if has_rows(cursor) else [])

    def run_steps(self, steps: Steps[T], conn: object = None) -> T:
        """Runs statements that depend on each other; see ``run``."""
        answer: Any = None
        while True:
            try:
                step = steps.send(answer)
            except StopIteration as end:
                result: T = end.value
                return result
            if isinstance(step, Rest):
                time.sleep(step.seconds)
            else:
                answer = self.run(step, conn)

    async def arun_steps(self, steps: Steps[T], conn: object = None) -> T:
        """The async twin of ``run_steps``."""
        answer: Any = None
        while True:
            try:
                step = steps.send(answer)
            except StopIteration as end:
                result: T = end.value
                return result
            if isinstance(step, Rest):
                await asyncio.sleep(step.seconds)
            else:
                answer = await self.arun(step, conn)

    def look(self, steps: Steps[T], *, once: bool = False) -> T:
        """Runs reads for people, in one transaction of their own. Nothing is tried again: whoever looks, looks again.

        Args:
            once: nobody will look again; on a connection of its own, since a pool is slow to begin with.

        Raises:
            SchemaError: the tables are not there.
        """
        lent = contextlib.closing(self.connect("pgjobs")) if once else self.connection()
        with explained(self.schema), lent as own, own.transaction():
            self.run(statements.without_jit(), own)
            return self.run_steps(steps, own)

    async def alook(self, steps: Steps[T]) -> T:
        """The async twin of ``look``."""
        with explained(self.schema):
            async with self.aconnection() as own, own.transaction():
                await self.arun(statements.without_jit(), own)
                return await self.arun_steps(steps, own)

    def connection(self) -> AbstractContextManager[psycopg.Connection[tuple[Any, ...]]]:
        """Lends a connection of the pool, in autocommit where the pool is ours."""
        pool = self._pool()
        return Lent(pool) if self._source.pool is None else pool.connection()

    @contextlib.asynccontextmanager
    async def aconnection(self) -> AsyncGenerator[psycopg.AsyncConnection[tuple[Any, ...]]]:
        """The async twin of ``connection``."""
        async with (await self._async_pool()).connection() as own:
            yield own

    def _pool(self) -> ConnectionPool[Any]:
        if self._source.pool is not None:
            return self._source.pool
        pool = self._pools.get(os.getpid())
        if pool is None:
            with self._lock:
                pool = self._pools.get(os.getpid()) or self._open_pool()
        return pool

    def _open_pool(self) -> ConnectionPool[Any]:
        """Opens this process's pool. A parent's is kept, unused: closing it would hang up the parent's connections."""
        from psycopg_pool import ConnectionPool

        self.connect("pgjobs").close()  # the pool would try for ten seconds, and then not say what is wrong
        pool = ConnectionPool(
            self._conninfo("pgjobs"),
            connection_class=Own,
            configure=documents.register,
            open=True,
            reconnect_failed=_try_again,
            **self._settings,
        )
        self._pools[os.getpid()] = pool
        atexit.register(_close_at_exit, weakref.ref(self), os.getpid())
        return pool

    async def _async_pool(self) -> AsyncConnectionPool[Any]:
        if self._source.async_pool is not None:
            return self._source.async_pool
        loop = asyncio.get_running_loop()
        pool = self._async_pools.get(loop)
        if pool is None:
            from psycopg_pool import AsyncConnectionPool

            probe = await psycopg.AsyncConnection.connect(self._conninfo("pgjobs"))
            self._pooled = _is_pooled(probe, await (await probe.execute(_BACKEND)).fetchone())
            await probe.close()
            pool = self._async_pools.get(loop)
            if pool is None:
                pool = AsyncConnectionPool(
                    self._conninfo("pgjobs"),
                    connection_class=AsyncOwn,
                    configure=_aregister,
                    open=False,
                    reconnect_failed=_atry_again,
                    **self._settings,
                )
                self._async_pools[loop] = pool
                await pool.open()
        return pool

    @property
    def _settings(self) -> dict[str, Any]:
        return {
            "kwargs": {"autocommit": True} | ({"prepare_threshold": None} if self._pooled else {}),
            "min_size": 0,
            "max_size": self._max_size,
            "timeout": 10,
            "max_idle": 60,
            "reconnect_timeout": RECONNECT_S,
        }

    def close(self) -> None:
        """Closes this process's pool; the next use opens another one."""
        if pool := self._pools.pop(os.getpid(), None):
            pool.close()

    async def aclose(self) -> None:
        """Closes the pools of this process and of the running loop."""
        self.close()
        if pool := self._async_pools.pop(asyncio.get_running_loop(), None):
            await pool.close()


_Cursor = TypeVar("_Cursor", psycopg.Cursor[Any], psycopg.AsyncCursor[Any])


def _reader(cursor: _Cursor) -> _Cursor:
    """A cursor on a connection of the application's, whose own way to read documents is left as it is."""
    documents.register(cursor)
    return cursor


async def _aregister(conn: psycopg.AsyncConnection[Any]) -> None:
    documents.register(conn)


def _is_plain(known: dict[str, Any]) -> bool:
    """Whether host and port are what they can be: a password with an unescaped @ or / has its end read as one of them.

    A host that begins with @ is an abstract socket.
    """
    hosts, ports = str(known.get("host") or "").split(","), str(known.get("port") or "").split(",")
    return not any("@" in host[1:] for host in hosts) and all(not port or port.strip().isdigit() for port in ports)


def _is_pooled(conn: psycopg.Connection[Any] | psycopg.AsyncConnection[Any], row: tuple[Any, ...] | None) -> bool:
    """Whether the process that answers is another than the one that was greeted: a pooler gives a number of its own."""
    return row is not None and row[0] != conn.info.backend_pid


def _try_again(pool: ConnectionPool[Any]) -> None:
    """Has a pool try anew at once: left alone it doubles its rests, and sleeps on when the database is back."""
    if pool.get_stats().get("requests_waiting"):
        pool.check()


async def _atry_again(pool: AsyncConnectionPool[Any]) -> None:
    """The async twin of ``_try_again``."""
    if pool.get_stats().get("requests_waiting"):
        await pool.check()


def _close_at_exit(database: weakref.ref[Database], pid: int) -> None:
    """Ends the pool's threads while the interpreter still can; since Python 3.13 it waits in vain for them later."""
    own = database()
    if own is not None and os.getpid() == pid:
        own.close()


@contextlib.contextmanager
def explained(schema: str) -> Generator[None]:
    """Turns errors about missing tables into one that says what to do."""
    try:
        yield
    except (errors.UndefinedTable, errors.InvalidSchemaName, errors.UndefinedColumn, errors.UndefinedFunction) as error:
        remedy = f"run `pgjobs migrate{f' --schema {schema}' if schema != 'pgjobs' else ''}`"
        raise SchemaError(
            f"the database does not have this release's schema ({error.diag.message_primary}); {remedy}"
        ) from error


def refused(error: errors.InsufficientPrivilege) -> str:
    """What the server refuses to the role that asks, in words, and what remedies it."""
    return (
        f"{error.diag.message_primary}; give the role one of those that `pgjobs roles create` makes: the reader looks, "
        "the producer enqueues, the worker runs jobs, the admin steers them; only the schema's owner changes it"
    )


def is_away(error: BaseException) -> bool:
    """Whether an error says that the primary is gone or not yet there, so that another connection is the remedy."""
    if isinstance(error, errors.FeatureNotSupported):
        # A standby's answer to BEGIN READ WRITE; its message may be in any language.
        return error.diag.source_function == "call_bool_check_hook"
    return isinstance(
        error, psycopg.OperationalError | psycopg.InterfaceError | errors.ReadOnlySqlTransaction
    ) and not (isinstance(error, RESEND) or (error.sqlstate or "").startswith("54"))  # a limit is exceeded
