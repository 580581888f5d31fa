"""PostgreSQL roles with the least that each part of an application needs; grants and checks come from one table.

They are groups, ``NOLOGIN``: grant them to the roles that log in. All of a schema's roles begin with its name.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, LiteralString, TypeAlias

import psycopg
from psycopg import sql

from pgjobs.config import DEFAULT_SCHEMA, schema_name

READ: Final = frozenset({"SELECT"})
WRITE: Final = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE"})
PRIVILEGES: Final[tuple[LiteralString, ...]] = (
    "SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER",
)  # fmt: skip

NEW_JOB: Final = (
    "id", "task", "queue", "priority", "args", "status", "position", "run_at", "due_at", "expires_at", "timeout",
    "max_attempts", "options", "meta", "unique_key",
)  # fmt: skip
"""The columns of a job that its producer writes: none that says how a run went, or which claim holds it."""

VIEWS: Final[tuple[str, ...]] = (
    "running", "queue_stats", "failed_by_fingerprint", "task_stats", "worker_stats", "throughput_minute",
    "throughput_hour", "throughput_day", "waits", "history",
)  # fmt: skip

TABLES: Final[tuple[str, ...]] = (
    "alembic_version", "jobs", "claims", "workers", "idlers", "waiters", "lanes", "duties", "failures", "logs",
    "files", "rollups", "tasks", "audit", "marks", "pauses", "holds", "alerts", *VIEWS,
)  # fmt: skip

ROLES: Final[Mapping[str, str]] = {
    "producer": "enqueues jobs, and reads what becomes of them",
    "worker": "claims, runs and records jobs, keeps the tables in order; also for complete(session)",
    "reader": "reads everything",
    "admin": "reads everything, pauses queues and tasks, steers, cancels, retries and deletes jobs, commands workers",
}

_ALL_READ: Final[Mapping[str, frozenset[str]]] = dict.fromkeys(TABLES, READ)
_ALL_WRITE: Final[Mapping[str, frozenset[str]]] = dict.fromkeys(TABLES, WRITE)
_TABLES: Final[Mapping[str, Mapping[str, frozenset[str]]]] = {
    "producer": {
        "alembic_version": READ, "jobs": READ, "failures": READ, "logs": READ, "files": READ, "idlers": READ,
        "workers": READ, "running": READ, "queue_stats": READ, "tasks": READ, "waiters": WRITE,
        "marks": frozenset({"SELECT", "INSERT"}),
    },
    "worker": {**_ALL_WRITE, **dict.fromkeys(("alembic_version", "audit", *VIEWS), READ)},
    "reader": _ALL_READ,
    "admin": {**_ALL_READ, "jobs": frozenset({"SELECT", "UPDATE", "DELETE"}),
                          "rollups": frozenset({"SELECT", "INSERT"}), "waiters": WRITE,
                          "pauses": WRITE, "holds": WRITE,
                          "audit": frozenset({"SELECT", "INSERT", "UPDATE"}),
                          "marks": frozenset({"SELECT", "INSERT", "DELETE"}),
                          **dict.fromkeys(("failures", "logs", "files"), frozenset({"SELECT", "DELETE"}))},
}  # fmt: skip
_Columns: TypeAlias = Mapping[str, Mapping[str, Sequence[str]]]
_INSERTS: Final[_Columns] = {"producer": {"jobs": NEW_JOB}}
_UPDATES: Final[_Columns] = {
    "producer": {"jobs": ("unique_key", "args", "run_at", "due_at")},
    "admin": {"workers": ("quiet_at", "stopping_at", "asked", "told")},
}
"""What an enqueue may change of the job that has the same unique key; and what may be asked of workers."""

_ALSO_CHECKED: Final[Mapping[str, Sequence[str]]] = {
    "jobs": ("id", "args", "claim_id", "result"),
    "workers": ("quiet_at", "stopping_at", "beat", "dead_at"),
}
"""Columns whose privileges `check` looks at: some that are granted, and some that must not be."""

_NOT_GRANTED: Final = "01007"
"""The SQLSTATE of a GRANT that grants nothing, or not all: a warning."""

_DRAW: Final = frozenset({"producer", "worker", "admin"})
"""Who draws positions from the sequence: whoever makes a job queued."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A privilege that a role lacks, or has and should not."""

    role: str
    privilege: str
    missing: bool

    def __str__(self) -> str:
        return f"{self.role} {'lacks' if self.missing else 'has, and should not,'} {self.privilege}"


def role_name(role: str, schema: str = DEFAULT_SCHEMA) -> str:
    """The PostgreSQL role for one of ROLES."""
    return f"{schema_name(schema)}_{role}"


def grants(schema: str = DEFAULT_SCHEMA, roles: Iterable[str] = tuple(ROLES)) -> Iterator[sql.Composed]:
    """The statements that give the roles, which must exist, exactly their privileges; for the schema's owner to run."""
    space = sql.Identifier(schema)
    for role in roles:
        to = sql.Identifier(role_name(role, schema))
        yield sql.SQL("REVOKE ALL ON ALL TABLES IN SCHEMA {} FROM {}").format(space, to)
        yield sql.SQL("REVOKE ALL ON SEQUENCE {}.positions FROM {}").format(space, to)
        yield sql.SQL("REVOKE ALL ON SCHEMA {} FROM {}").format(space, to)
        yield sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(space, to)
        for table, privileges in _TABLES[role].items():
            words = sql.SQL(", ").join(sql.SQL(privilege) for privilege in PRIVILEGES if privilege in privileges)
            yield sql.SQL("GRANT {} ON {}.{} TO {}").format(words, space, sql.Identifier(table), to)
        by_column: tuple[tuple[LiteralString, Mapping[str, Sequence[str]]], ...] = (
            ("INSERT", _INSERTS.get(role, {})),
            ("UPDATE", _UPDATES.get(role, {})),
        )
        for word, tables in by_column:
            for table, columns in tables.items():
                names = sql.SQL(", ").join(map(sql.Identifier, columns))
                yield sql.SQL("GRANT {} ({}) ON {}.{} TO {}").format(
                    sql.SQL(word), names, space, sql.Identifier(table), to
                )
        if role in _DRAW:
            yield sql.SQL("GRANT USAGE, SELECT ON SEQUENCE {}.positions TO {}").format(space, to)


def create(conn: psycopg.Connection[Any], schema: str = DEFAULT_SCHEMA) -> list[str]:
    """Makes the roles that are missing, and gives all of them exactly their privileges; returns the new ones.

    Safe to repeat, after an upgrade for example. In one transaction.

    Raises:
        psycopg.errors.InsufficientPrivilege: the caller does not own the schema, or may not make roles.
    """
    new: list[str] = []
    with conn.transaction(), _heeding(conn):
        for role in ROLES:
            name = role_name(role, schema)
            if conn.execute("SELECT FROM pg_roles WHERE rolname = %s", [name]).fetchone() is None:
                conn.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(name)))
                new.append(name)
        for statement in grants(schema):
            conn.execute(statement)
    return new


def renew(conn: psycopg.Connection[Any], schema: str = DEFAULT_SCHEMA) -> list[str]:
    """Gives the roles that are there what the tables of this release need; returns them. In one transaction.

    Raises:
        psycopg.errors.InsufficientPrivilege: the caller does not own the schema.
    """
    there = _there(conn, schema)
    with conn.transaction(), _heeding(conn):
        for statement in grants(schema, there):
            conn.execute(statement)
    return list(there.values())


def _there(conn: psycopg.Connection[Any], schema: str) -> dict[str, str]:
    """The roles that exist, by what they are for."""
    names = {role: role_name(role, schema) for role in ROLES}
    rows = conn.execute("SELECT rolname FROM pg_roles WHERE rolname = ANY (%s)", [[*names.values()]]).fetchall()
    return {role: name for role, name in names.items() if (name,) in rows}


@contextmanager
def _heeding(conn: psycopg.Connection[Any]) -> Generator[None]:
    """Takes for an error what the server only warns of: that a role grants nothing, since it is not the owner."""

    def heed(diag: psycopg.errors.Diagnostic) -> None:
        if diag.sqlstate == _NOT_GRANTED:
            ignored.append(str(diag.message_primary))

    ignored: list[str] = []
    conn.add_notice_handler(heed)
    try:
        yield
    finally:
        conn.remove_notice_handler(heed)
    if ignored:
        raise psycopg.errors.InsufficientPrivilege(ignored[0])


def script(conn: psycopg.Connection[Any], schema: str = DEFAULT_SCHEMA) -> str:
    """What ``create`` would run, for somebody else to run."""
    made = [sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(role_name(role, schema))) for role in ROLES]
    return "".join(f"{statement.as_string(conn)};\n" for statement in (*made, *grants(schema)))


def check(conn: psycopg.Connection[Any], schema: str = DEFAULT_SCHEMA) -> list[Finding]:
    """Compares what the roles may do with what they should; returns the differences. In a few round trips."""
    conn.execute("SELECT %s::regnamespace", [schema])  # fails where there is none
    there = _there(conn, schema)
    missing = [role_name(role, schema) for role in ROLES if role not in there]
    found = [Finding(name, "any privilege: there is no such role", missing=True) for name in missing]
    with conn.pipeline():
        asked = [
            (name, privilege, should, _ask(conn, name, privilege, schema))
            for role, name in there.items()
            for privilege, should in _expected(role)
        ]
    for name, privilege, should, answer in asked:
        if (should,) != answer.fetchone():
            found.append(Finding(name, privilege, missing=should))
    return found


def _expected(role: str) -> Iterator[tuple[str, bool]]:
    yield "USAGE ON SCHEMA", True
    yield "CREATE ON SCHEMA", False
    yield "USAGE ON SEQUENCE", role in _DRAW
    yield "UPDATE ON SEQUENCE", False
    for table in TABLES:
        for privilege in PRIVILEGES:
            yield f"{privilege} ON {table}", privilege in _TABLES[role].get(table, frozenset())
    for table, some in _ALSO_CHECKED.items():
        for column in some:
            for word, granted in (("INSERT", _INSERTS), ("UPDATE", _UPDATES)):
                if table in granted.get(role, {}):
                    yield f"{word} OF {column} ON {table}", column in granted[role][table]


def _ask(conn: psycopg.Connection[Any], name: str, privilege: str, schema: str) -> psycopg.Cursor[Any]:
    """Asks whether a role has a privilege."""
    what, _, on = privilege.partition(" ON ")
    word, _, column = what.partition(" OF ")
    if on == "SCHEMA":
        return conn.execute("SELECT has_schema_privilege(%s, %s, %s)", [name, schema, word])
    if on == "SEQUENCE":
        return conn.execute("SELECT has_sequence_privilege(%s, %s, %s)", [name, f"{schema}.positions", word])
    if column:
        return conn.execute("SELECT has_column_privilege(%s, %s, %s, %s)", [name, f"{schema}.{on}", column, word])
    return conn.execute("SELECT has_table_privilege(%s, %s, %s)", [name, f"{schema}.{on}", word])
