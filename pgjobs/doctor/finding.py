"""What a check finds, and what it looks at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeAlias

import psycopg

from pgjobs.connections import borrowed
from pgjobs.connections.database import Database
from pgjobs.statements import Statement, T


class Severity(StrEnum):
    """How bad a finding is; skipped is a check that could not look."""

    CRITICAL = "critical"
    WARNING = "warning"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong.

    Attributes:
        code: a word for programs, such as ``horizon``.
        what: what was found, a sentence.
        why: why it matters.
        remedy: a command or SQL that mends it.
    """

    severity: Severity
    code: str
    what: str
    why: str
    remedy: str

    @property
    def is_wrong(self) -> bool:
        """Whether something is to be mended."""
        return self.severity is not Severity.SKIPPED


@dataclass(frozen=True, slots=True)
class Limits:
    """From where on something counts as wrong.

    Attributes:
        long_s: seconds that a transaction may be open.
        old: transactions that a standby or a slot may hold back.
        skew_s: seconds by which the clocks of this host and of the server may differ.
        connections: the fewest that the server should allow.
        dead: dead rows below which a table is not looked at.
        bloat: bytes below which neither a table nor an index is.
        oldest: the oldest version of PostgreSQL, as ``server_version_num`` has it.
    """

    long_s: float = 300.0
    old: int = 100_000
    skew_s: float = 2.0
    connections: int = 20
    dead: int = 50_000
    bloat: int = 256 << 20
    oldest: int = 150_000


@dataclass(frozen=True, slots=True)
class Patient:
    """A database that is looked at, through one connection in autocommit."""

    database: Database
    conn: psycopg.Connection[Any]
    limits: Limits = field(default_factory=Limits)

    @property
    def schema(self) -> str:
        """The schema of the tables."""
        return self.database.schema

    @property
    def option(self) -> str:
        """What a remedy's command needs to find the schema."""
        return "" if self.schema == "pgjobs" else f" --schema {self.schema}"

    def ask(self, statement: Statement[T]) -> T:
        """Runs a statement."""
        return borrowed.run(self.conn, statement, self.schema)


Check: TypeAlias = Callable[[Patient], Iterator[Finding]]


def critical(code: str, what: str, why: str, remedy: str) -> Finding:
    """A finding by which jobs are lost, or do not run."""
    return Finding(Severity.CRITICAL, code, what, why, remedy)


def warning(code: str, what: str, why: str, remedy: str) -> Finding:
    """A finding by which all is slower or less safe than it could be."""
    return Finding(Severity.WARNING, code, what, why, remedy)


def skipped(code: str, what: str, remedy: str) -> Finding:
    """A check that could not look."""
    return Finding(Severity.SKIPPED, code, what, "what is wrong there is not found", remedy)
