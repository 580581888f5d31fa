"""The schema's revisions: brings a database up to this release, says where it stands, or writes the SQL for it.

Alembic runs them, on a history of its own: the version table lies in pgjobs's schema and never meets the application's.
Its module-level ``alembic.op`` and ``alembic.context`` are left alone, and each revision is handed its ``Operations``:
``up`` is called from applications' own revisions, which have those two in use, and from several threads at once.
"""

from __future__ import annotations

import io
import logging
import re
import threading
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pgjobs.config import DEFAULT_SCHEMA, Duration, schema_name, seconds
from pgjobs.errors import ConfigurationError, SchemaError

if TYPE_CHECKING:
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext, RevisionStep
    from sqlalchemy import Connection

__all__ = ["current", "down", "head", "migrate", "pending", "sql", "up"]

logger = logging.getLogger("pgjobs.migrations")

LOCK_WAIT_S: Final = 60.0
_LOCK_TIMEOUT: Final = "1200ms"
"""All that uses a table queues behind an ALTER TABLE that waits for it. Above deadlock_timeout, whose default is 1 s:
only who has waited for so long makes an autovacuum step aside."""

_MAX_REST_S: Final = 5.0
_TAKE_TURN: Final = "SELECT pg_advisory_xact_lock(hashtextextended('pgjobs.migrations:' || CAST(:schema AS text), 0))"
_TOKEN: Final = re.compile(r"\bpgjobs\.")
_STATEMENT: Final = re.compile(r"((?:\$\$.*?\$\$|'[^']*'|--[^\n]*|[^;])++);", re.DOTALL)
"""A statement of a script; a semicolon in a ``$$`` body, a string or a ``--`` comment does not end it."""


def migrate(
    url: str, *, schema: str = DEFAULT_SCHEMA, to: str = "head", lock_wait: Duration = LOCK_WAIT_S
) -> list[str]:
    """Applies the revisions that a database lacks, all or none, and returns them, oldest first.

    The schema is made if it is missing. Processes that migrate at the same time take turns: one applies, and the others
    find nothing to do. A revision that cannot lock a table within a second undoes all, lets those pass who have queued
    behind it, and tries again after a rest that grows to five seconds.

    Args:
        url: as libpq takes it: ``postgresql://…``, or ``host=… dbname=…``.
        to: the last revision to apply. A database that is past it stays where it is.
        lock_wait: how long to go on trying while a table is locked.

    Raises:
        ConfigurationError: the schema's name cannot be one; nothing was sent.
        OptionError: lock_wait is no duration.
        SchemaError: the database is newer than this release, there is no such revision, or a table stayed locked.
        psycopg.Error: the database is out of reach, or refuses.
    """
    from psycopg.errors import DeadlockDetected, LockNotAvailable

    _check(schema)
    lock_wait_s = seconds(lock_wait, what="lock_wait")
    began, rest_s = time.monotonic(), 0.5
    while True:
        try:
            return _try_to_migrate(url, schema, to)
        except (LockNotAvailable, DeadlockDetected) as error:
            if time.monotonic() - began + rest_s > lock_wait_s:
                raise SchemaError(
                    f"a table of the schema {schema} stayed locked for {lock_wait_s:g} s, and nothing was changed; end "
                    "the oldest transactions (pg_stat_activity, xact_start), or try again when they have ended"
                ) from error
            logger.warning(
                "a table of the schema %s is locked by a long transaction; trying again for up to %.0f s",
                schema,
                lock_wait_s - (time.monotonic() - began),
            )
            time.sleep(rest_s)
            rest_s = min(_MAX_REST_S, 1.5 * rest_s)


def _try_to_migrate(url: str, schema: str, to: str) -> list[str]:
    from sqlalchemy import text

    with connect(url) as connection, connection.begin():
        prepare(connection, schema)
        # Only now: it would limit the wait for one's turn as well.
        connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'"))
        return up(connection, schema=schema, to=to)


def up(connection: Connection, *, schema: str = DEFAULT_SCHEMA, to: str = "head") -> list[str]:
    """Does what ``migrate`` does, but in the caller's transaction: for a revision of the application's own history.

    ::

        def upgrade() -> None:
            pgjobs.migrations.up(op.get_bind(), to="0001")

        def downgrade() -> None:
            pgjobs.migrations.down(op.get_bind())

    Raises:
        ConfigurationError: the schema's name cannot be one.
        SchemaError: the database is newer than this release, or there is no such revision.
        TypeError: Alembic writes a script (``--sql``), so there is no database to look at.
    """
    _check(schema)
    prepare(connection, schema)
    history = _History()
    revisions = _without(history.up_to(to), history.applied(_revision(connection, schema), schema))
    _run(connection, schema, history.steps(revisions, upward=True))
    return revisions


def down(connection: Connection, *, schema: str = DEFAULT_SCHEMA, to: str = "base") -> list[str]:
    """Takes revisions back in the caller's transaction, **with all that their tables hold**; returns the revisions.

    At ``base`` nothing is left but the schema itself, which may have been there before.

    Raises:
        ConfigurationError, SchemaError, TypeError: as ``up`` does.
    """
    from sqlalchemy import MetaData, Table

    _check(schema)
    _take_turn(connection, schema)
    history = _History()
    kept = history.up_to(to)
    revisions = _without(history.applied(_revision(connection, schema), schema), kept)[::-1]
    _run(connection, schema, history.steps(revisions, upward=False))
    if not kept:
        Table("alembic_version", MetaData(), schema=schema).drop(connection, checkfirst=True)
    return revisions


def sql(*, schema: str = DEFAULT_SCHEMA, to: str = "head") -> str:
    """Returns the script, one transaction, that makes the schema and brings it from nothing to a revision.

    Raises:
        ConfigurationError, SchemaError: as ``up`` does.
    """
    from alembic.runtime.migration import MigrationContext
    from sqlalchemy.schema import CreateSchema

    _check(schema)
    history, script = _History(), io.StringIO()
    steps = history.steps(history.up_to(to), upward=True)
    with _quiet():
        context = MigrationContext.configure(
            dialect_name="postgresql",
            dialect_opts={"paramstyle": "named"},  # psycopg's own would double every %
            opts={**_options(schema, steps), "as_sql": True, "output_buffer": script},
        )
        with context.begin_transaction():
            context.execute(CreateSchema(schema, if_not_exists=True))
            run(context, schema)
    return script.getvalue()


def current(url: str, schema: str = DEFAULT_SCHEMA) -> str | None:
    """Returns the revision that a database is at, known to this release or not; None where nothing was applied.

    Raises:
        ConfigurationError: the schema's name cannot be one.
        psycopg.Error: the database is out of reach, or refuses.
    """
    _check(schema)
    with connect(url) as connection:
        return _revision(connection, schema)


def pending(url: str, schema: str = DEFAULT_SCHEMA) -> list[str]:
    """Returns the revisions that ``migrate`` would apply, oldest first.

    Raises:
        ConfigurationError, psycopg.Error: as ``current`` does.
        SchemaError: the database is newer than this release.
    """
    history = _History()
    return _without(history.up_to("head"), history.applied(current(url, schema), schema))


def head() -> str:
    """Returns the newest revision of this release."""
    return _History().up_to("head")[-1]


# -- for revisions and for Alembic's commands (migrations/env.py)


@contextmanager
def connect(url: str) -> Generator[Connection]:
    """Opens a connection that does not depend on the database's defaults; its errors are psycopg's own, not wrapped."""
    import psycopg
    from sqlalchemy import NullPool, create_engine
    from sqlalchemy.exc import DBAPIError

    with closing(psycopg.connect(url, application_name="pgjobs migrate")) as raw:
        # Whoever waited for its turn must see what the one before has done.
        raw.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        raw.read_only = False
        raw.prepare_threshold = None  # through a pooler nothing may be
        engine = create_engine("postgresql+psycopg://", creator=lambda: raw, poolclass=NullPool)
        try:
            with engine.connect() as connection:
                yield connection
        except DBAPIError as error:
            raise (error.orig or error) from error


def prepare(connection: Connection, schema: str) -> None:
    """Waits until no other process migrates this schema, until the transaction ends, and makes the schema."""
    from sqlalchemy import inspect
    from sqlalchemy.schema import CreateSchema

    _take_turn(connection, schema)
    # IF NOT EXISTS demands the right to create schemas even where there is nothing to create.
    if not inspect(connection).has_schema(schema):
        connection.execute(CreateSchema(schema))


def run(context: MigrationContext, schema: str) -> None:
    """Runs the steps that a context was configured with."""
    from alembic.operations import Operations

    context.run_migrations(op=Operations(context), schema=schema)


def execute(op: Operations, script: Path, schema: str) -> None:
    """Executes an SQL script written for the schema ``pgjobs`` in another one, statement by statement.

    asyncpg takes one statement at a time.
    """
    from sqlalchemy import DDL

    for statement in _STATEMENT.findall(_TOKEN.sub(f"{schema}.", script.read_text())):
        # Unlike text(), DDL reads no parameters out of colons.
        op.execute(DDL(statement.strip().replace("%", "%%")))  # type: ignore[no-untyped-call] # SQLAlchemy leaves it untyped


class _History:
    """The revisions of this release, one after the other."""

    def __init__(self) -> None:
        with _quiet():
            from alembic.script import ScriptDirectory

        directory = ScriptDirectory(str(_location()))
        self._map = directory.revision_map
        self._scripts = {script.revision: script for script in reversed(list(directory.walk_revisions()))}

    def up_to(self, revision: str) -> list[str]:
        """Every revision up to this one, oldest first."""
        names = list(self._scripts)
        if revision == "head":
            return names
        if revision == "base":
            return []
        if revision not in names:
            raise SchemaError(f"there is no revision {revision!r}; name one of {', '.join(names)}, or 'head'")
        return names[: names.index(revision) + 1]

    def applied(self, revision: str | None, schema: str) -> list[str]:
        """Every revision that a database at this one has had, oldest first."""
        if revision is not None and revision not in self._scripts:
            raise SchemaError(
                f"the schema {schema} is at revision {revision}, and this release knows revisions up to "
                f"{list(self._scripts)[-1]}; upgrade pgjobs-queue to the release that the database was migrated with"
            )
        return [] if revision is None else self.up_to(revision)

    def steps(self, revisions: Iterable[str], *, upward: bool) -> list[RevisionStep]:
        from alembic.runtime.migration import RevisionStep

        return [RevisionStep(self._map, self._scripts[revision], upward) for revision in revisions]


def _location() -> Path:
    """The directory of the revisions: in the package where it was installed from a wheel, beside it in a checkout."""
    shipped = Path(__file__).with_name("_migrations")
    return shipped if shipped.is_dir() else Path(__file__).parents[1] / "migrations"


def _check(schema: str) -> None:
    """Refuses names that would have to be quoted: scripts and queries write the name as it is."""
    from sqlalchemy.dialects import postgresql

    name = schema_name(schema)
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call] # SQLAlchemy leaves it untyped
    if dialect.identifier_preparer.quote(name) != name:
        raise ConfigurationError(f"schema {name!r} is a reserved word of SQL; choose another name")


def _take_turn(connection: Connection, schema: str) -> None:
    from sqlalchemy import Connection, text

    if not isinstance(connection, Connection):  # pyright: ignore[reportUnnecessaryIsInstance] - op.get_bind() may be a mock
        raise TypeError(
            "there is no connection to a database; for a script, put what pgjobs.migrations.sql() returns in it"
        )
    connection.execute(text(_TAKE_TURN), {"schema": schema})


def _revision(connection: Connection, schema: str) -> str | None:
    with _quiet():
        from alembic.runtime.migration import MigrationContext

        return MigrationContext.configure(connection, opts=_options(schema, [])).get_current_revision()


def _run(connection: Connection, schema: str, steps: Sequence[RevisionStep]) -> None:
    from alembic.runtime.migration import MigrationContext

    if steps:
        with _quiet():
            run(MigrationContext.configure(connection, opts=_options(schema, steps)), schema)


def _options(schema: str, steps: Sequence[RevisionStep]) -> dict[str, Any]:
    def to_take(heads: object, context: object) -> Sequence[RevisionStep]:
        return steps

    return {"version_table_schema": schema, "fn": to_take}


def _without(revisions: Iterable[str], others: Iterable[str]) -> list[str]:
    taken = set(others)
    return [revision for revision in revisions if revision not in taken]


@contextmanager
def _quiet() -> Generator[None]:
    """Keeps what Alembic says of this thread's work out of the log, and nothing else: applications use it as well."""
    thread = threading.get_ident()

    def of_others(record: logging.LogRecord) -> bool:
        return record.thread != thread

    loggers = [logging.getLogger(f"alembic.runtime.{module}") for module in ("migration", "plugins")]
    for logger in loggers:
        logger.addFilter(of_others)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(of_others)
