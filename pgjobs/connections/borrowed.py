"""Runs statements on a connection that belongs to the application: nothing is SET on it, nothing is committed.

The kinds are told apart by where their classes come from, so that no driver is imported for it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from typing import Any, Final, Literal, TypeAlias

from pgjobs.errors import OptionError
from pgjobs.statements import Query, Rows, Statement, T

Kind: TypeAlias = Literal[
    "psycopg", "psycopg-cursor", "psycopg2", "sqlalchemy", "session",
    "async-psycopg", "async-psycopg-cursor", "async-sqlalchemy", "async-session", "asyncpg",
]  # fmt: skip

_KINDS: Final[dict[tuple[str, str], Kind]] = {
    ("psycopg", "Connection"): "psycopg",
    ("psycopg", "Cursor"): "psycopg-cursor",
    ("psycopg", "AsyncConnection"): "async-psycopg",
    ("psycopg", "AsyncCursor"): "async-psycopg-cursor",
    ("psycopg2", "connection"): "psycopg2",
    ("sqlalchemy", "Connection"): "sqlalchemy",
    ("sqlalchemy", "Session"): "session",
    ("sqlalchemy", "scoped_session"): "session",
    ("sqlalchemy", "AsyncConnection"): "async-sqlalchemy",
    ("sqlalchemy", "AsyncSession"): "async-session",
    ("sqlalchemy", "async_scoped_session"): "async-session",
    ("asyncpg", "Connection"): "asyncpg",
    ("asyncpg", "PoolConnectionProxy"): "asyncpg",
}


def kind_of(conn: object) -> Kind:
    """Returns what kind of connection this is.

    Raises:
        TypeError: none that a job can be enqueued on.
    """
    for cls in type(conn).__mro__:
        if kind := _KINDS.get((cls.__module__.split(".")[0], cls.__name__)):
            return kind
    raise TypeError(
        f"{type(conn).__module__}.{type(conn).__qualname__} is not a connection that pgjobs knows; pass a psycopg "
        "connection or cursor, a SQLAlchemy Connection or Session, the async ones of both, or an asyncpg connection"
    )


def is_connection_type(cls: type) -> bool:
    """Whether instances of a class are connections to enqueue on."""
    return any((base.__module__.split(".")[0], base.__name__) in _KINDS for base in cls.__mro__)


def run(conn: Any, statement: Statement[T], schema: str) -> T:
    """Runs a statement in the caller's transaction.

    Raises:
        TypeError: the connection is async, or is no connection.
    """
    with _discreet():
        return statement.read(_fetch(conn, kind_of(conn), statement.query.text(schema), dict(statement.params)))


@contextlib.contextmanager
def _discreet() -> Generator[None]:
    """Lets SQLAlchemy's errors quote no parameters, among which the arguments of jobs are."""
    try:
        yield
    except Exception as error:
        known: Any = error
        if hasattr(known, "hide_parameters"):
            known.hide_parameters = True
        raise


async def arun(conn: Any, statement: Statement[T], schema: str) -> T:
    """The async twin of ``run``; it takes sync connections too, whose calls are short.

    Raises:
        TypeError: it is no connection.
    """
    kind = kind_of(conn)
    params = dict(statement.params)
    if kind in ("async-psycopg", "async-psycopg-cursor"):
        owner = conn if kind == "async-psycopg" else conn.connection
        cursor = await owner.execute(statement.query.text(schema), params)
        return statement.read(_plain(await cursor.fetchall() if cursor.description else []))
    if kind in ("async-sqlalchemy", "async-session"):
        owner = conn if kind == "async-sqlalchemy" else await conn.connection()
        _check_dialect(owner)
        sql, values = _for_dialect(statement.query, params, schema, owner.dialect.driver)
        with _discreet():
            result = await owner.exec_driver_sql(sql, values)
        return statement.read(_plain(result.fetchall() if result.returns_rows else []))
    if kind == "asyncpg":
        sql, names = statement.query.numbered(schema)
        return statement.read(_plain(await conn.fetch(sql, *(params[name] for name in names))))
    with _discreet():
        return statement.read(_fetch(conn, kind, statement.query.text(schema), params))


def _fetch(conn: Any, kind: Kind, sql: str, params: dict[str, Any]) -> Rows:
    match kind:
        case "psycopg" | "psycopg-cursor":
            owner = conn if kind == "psycopg" else conn.connection
            cursor = owner.execute(sql, params)
            return _plain(cursor.fetchall() if cursor.description else [])
        case "psycopg2":
            with conn.cursor() as cursor:
                cursor.execute(sql, params)
                return _plain(cursor.fetchall() if cursor.description else [])
        case "sqlalchemy" | "session":
            owner = conn if kind == "sqlalchemy" else conn.connection()
            _check_dialect(owner)
            result = owner.exec_driver_sql(sql, params)
            return _plain(result.fetchall() if result.returns_rows else [])
        case _:
            raise TypeError(
                f"{type(conn).__name__} is async; await the async twin (aenqueue for enqueue, acomplete for complete)"
            )


def _check_dialect(owner: Any) -> None:
    if owner.dialect.name != "postgresql":
        raise OptionError(
            f"the session or connection is {owner.dialect.name}'s, and jobs are in PostgreSQL; give one of "
            "the database that has them, or leave it out: then the job is written in a transaction of its own"
        )


def _for_dialect(query: Query, params: dict[str, Any], schema: str, driver: str) -> tuple[str, Any]:
    if driver != "asyncpg":
        return query.text(schema), params
    sql, names = query.numbered(schema)
    return sql, tuple(params[name] for name in names)


def _plain(rows: Any) -> Rows:
    """Rows as tuples, whatever row factory the application has chosen."""
    return [tuple(row.values()) if hasattr(row, "values") else tuple(row) for row in rows]


def is_async(conn: object) -> bool:
    """Whether statements on this connection are awaited."""
    kind = kind_of(conn)
    return kind == "asyncpg" or kind.startswith("async-")


def after_commit(conn: Any, call: Callable[[], None]) -> None:
    """Makes a call when the caller's transaction has been committed, if that can be known: it may never be made.

    It is made too early, or for nothing, where a savepoint was rolled back: the call has to look.
    """
    if conn is None:
        call()
        return
    kind = kind_of(conn)
    if kind in ("psycopg", "async-psycopg") and conn.info.transaction_status == 0:
        call()
    elif kind in ("session", "async-session"):
        from sqlalchemy import event

        session = conn.registry() if hasattr(conn, "registry") else conn

        def committed(session: object) -> None:
            call()

        event.listen(getattr(session, "sync_session", session), "after_commit", committed, once=True)


def copier(conn: Any) -> Any:
    """The psycopg connection below, if there is one on which COPY can run; else None."""
    match kind_of(conn):
        case "psycopg" | "async-psycopg":
            owner = conn
        case "psycopg-cursor" | "async-psycopg-cursor":
            owner = conn.connection
        case _:
            return None
    return None if owner.pgconn.pipeline_status else owner
