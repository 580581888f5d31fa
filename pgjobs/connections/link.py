"""A service's own connection, on which every transaction is one round trip."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Final, LiteralString, overload

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.pq.abc import PGresult
from psycopg.types.json import set_json_loads

from pgjobs import statements
from pgjobs.arguments import codec
from pgjobs.config import SCHEMA_REVISION, SYNCHRONOUS_COMMIT
from pgjobs.connections import arrays
from pgjobs.connections.database import Database, explained, has_rows, is_away
from pgjobs.connections.pipeline import Pipeline
from pgjobs.errors import SchemaError
from pgjobs.statements import Statement, T

_BEGIN: Final = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"
_PLANNING: Final = (
    ", set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),"
    " set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true),"
    " set_config('jit', 'off', true)"
)
PLANNED_ANEW: Final[LiteralString] = "SELECT set_config('plan_cache_mode', 'force_custom_plan', true)" + _PLANNING
PLANNED_ONCE: Final[LiteralString] = "SELECT set_config('plan_cache_mode', 'force_generic_plan', true)" + _PLANNING

_DURABILITY: Final[dict[str, LiteralString]] = {
    value: ", set_config('synchronous_commit', '" + value + "', true)" for value in SYNCHRONOUS_COMMIT
}


ABANDONED_S: Final = 5
"""A transaction of several round trips whose process stands still for so long is given up by the server."""

_GIVES_UP: Final[LiteralString] = ", set_config('idle_in_transaction_session_timeout', '5s', true)"  # ABANDONED_S


class Results(Sequence[Any]):
    """What statements have returned, each read when somebody asks for it: until then its rows are bytes."""

    def __init__(self, statements: Sequence[Statement[Any]], pipeline: Pipeline, replies: Sequence[PGresult]) -> None:
        self._statements = statements
        self._pipeline = pipeline
        self._replies = replies
        self._read: dict[int, Any] = {}

    def __len__(self) -> int:
        return len(self._statements)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        if place not in self._read:
            self._read[place] = self._statements[place].read(self._pipeline.read(self._replies[place]))
        return self._read[place]

    def rows(self, index: int) -> int:
        """How many rows a statement has returned."""
        return self._replies[index].ntuples


class Link:
    """A service's own connection: opened when needed, and every transaction on it is one round trip.

    Not thread-safe; a service has one each.

    Args:
        synchronous_commit: PostgreSQL's setting of that name for these transactions; None leaves it to the server.
    """

    def __init__(self, database: Database, name: str, synchronous_commit: str | None = None) -> None:
        self._database = database
        self._name = name
        durability: LiteralString = "" if synchronous_commit is None else _DURABILITY[synchronous_commit]
        self._anew: LiteralString = PLANNED_ANEW + durability
        self._once: LiteralString = PLANNED_ONCE + durability
        self._conn: psycopg.Connection[tuple[Any, ...]] | None = None
        self._pipeline: Pipeline | None = None

    @property
    def conn(self) -> psycopg.Connection[tuple[Any, ...]]:
        """The connection, opened anew where it is closed or broken."""
        if self._conn is None or self._conn.closed:
            self._conn = self._database.connect(self._name)
            arrays.register(self._conn)
            set_json_loads(codec.loads, self._conn)
            self._pipeline = None
        return self._conn

    def batch(self, *statements: Statement[Any], meanwhile: Callable[[], None] | None = None) -> Results:
        """Runs statements in one transaction and one round trip; returns what each reads.

        READ COMMITTED whatever the database's default. Plans are by index and nested loop alone, because every
        statement of a worker finds few rows by key, and the planner, told by old statistics that a table is small or a
        status rare, scans it. They are made for the values at hand, since one that was made while the table was empty
        may read all of a huge one; but where all statements keep theirs, because to plan a claim takes thrice as
        long as to make it.

        Args:
            meanwhile: called while the server works, once all has been sent; not at all where that takes long. The
                transaction ends without us, unless its replies fill the connection's buffers: so it should be short.

        Raises:
            psycopg.Error: one of them failed, and all were rolled back.
        """
        conn = self.conn
        pipeline = self._pipeline = self._pipeline or Pipeline(conn)
        sent = [
            pipeline.dump(_BEGIN),
            pipeline.dump(self._once if all(each.keeps_plan for each in statements) else self._anew),
        ]
        for each in statements:
            text, names = each.query.numbered(self._database.schema)
            sent.append(pipeline.dump(text, [each.params[name] for name in names]))
        sent.append(pipeline.dump("COMMIT"))
        try:
            replies = pipeline.run(sent, meanwhile)
        except Exception:
            self.close()
            raise
        return Results(statements, pipeline, replies[2:-1])

    def one(self, statement: Statement[T]) -> T:
        """Runs one statement in a transaction."""
        result: T = self.batch(statement)[0]
        return result

    def peek(self, statement: Statement[T]) -> T:
        """Runs one cheap read outside any transaction of ours."""
        try:
            cursor = self.conn.cursor(binary=True)
            cursor.execute(statement.query.text(self._database.schema), statement.params)
            return statement.read(cursor.fetchall())
        except psycopg.Error as error:
            self._leave(error)
            raise

    def check_schema(self) -> None:
        """Makes sure that this release works on the tables: they are its own, or of a later release that says so.

        Raises:
            SchemaError: they are absent, older, or too new; says what to do.
        """
        try:
            with explained(self._database.schema):
                revision, oldest = self.peek(statements.schema_revision())
        except psycopg.errors.InsufficientPrivilege:
            return
        if not oldest <= SCHEMA_REVISION <= revision:
            raise SchemaError(
                f"the schema {self._database.schema} is at revision {revision}, this release needs {SCHEMA_REVISION}; "
                + ("upgrade pgjobs-queue" if oldest > SCHEMA_REVISION else "run `pgjobs migrate`")
            )

    def begin(self) -> None:
        """Opens a transaction for statements that depend on each other; ``commit`` ends it.

        What it locks is free again after ABANDONED_S if this process stands still meanwhile. It may be stopped, or a
        job may hold its interpreter; its connection lives all the same, with a duty that nobody else can do.
        """
        try:
            self.conn.execute(_BEGIN)
            self.conn.execute(self._anew + _GIVES_UP)
        except psycopg.Error as error:
            self._leave(error)
            raise

    def step(self, statement: Statement[T]) -> T:
        """Runs one statement of the open transaction."""
        try:
            cursor = self.conn.cursor(binary=True)
            cursor.execute(statement.query.text(self._database.schema), statement.params)
            return statement.read(cursor.fetchall() if has_rows(cursor) else [])
        except psycopg.Error as error:
            self._leave(error)
            raise

    def commit(self) -> None:
        """Commits the open transaction."""
        self.conn.execute("COMMIT")

    def _leave(self, error: psycopg.Error) -> None:
        """Leaves the connection clean, or closes it: one that lives may lead to a primary that was demoted."""
        if self._conn is None or self._conn.closed:
            return
        if is_away(error):
            self.close()
        elif self._conn.info.transaction_status != TransactionStatus.IDLE:
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
