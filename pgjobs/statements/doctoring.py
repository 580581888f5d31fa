"""Reads of the server's own catalogue and statistics, and of what the fleet has left undone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pgjobs.statements.query import QUERIES, Statement


class Host(NamedTuple):
    """A server: its version as a number and in words, whether it is a standby, and its clock in Unix seconds.

    sees_all says whether the role that asks sees what the sessions of others do.
    """

    version: int
    words: str
    standby: bool
    sees_all: bool
    clock: float


class Holder(NamedTuple):
    """What keeps dead rows from being removed; seconds and age (in transactions) are None where they are not known."""

    kind: str
    name: str
    application: str
    who: str
    state: str
    seconds: float | None
    age: int | None


class TableHealth(NamedTuple):
    """How vacuum stands with a table: its dead rows, and the number at which autovacuum begins; sizes in bytes."""

    name: str
    enabled: bool
    dead: int
    begins: float
    since: float | None
    bytes: int
    needed: float | None


class IndexHealth(NamedTuple):
    """Whether an index may be used, its size and what its entries need, in bytes."""

    name: str
    valid: bool
    bytes: int
    needed: float | None


def host_of() -> Statement[Host]:
    """What server this is."""
    return Statement(QUERIES["host_of"], {}, lambda rows: Host(*rows[0]))


def settings(names: Sequence[str]) -> Statement[dict[str, str]]:
    """Some settings of the server, in their base units; those that it does not know are absent."""
    return Statement(QUERIES["settings"], {"names": list(names)}, lambda rows: {row[0]: row[1] for row in rows})


def holders_of_horizon() -> Statement[list[Holder]]:
    """Who keeps dead rows of this database from being removed."""
    return Statement(QUERIES["holders_of_horizon"], {}, lambda rows: [Holder(*row) for row in rows])


def table_health() -> Statement[list[TableHealth]]:
    """How vacuum stands with each table of the schema."""
    return Statement(QUERIES["table_health"], {}, lambda rows: [TableHealth(*row) for row in rows])


def index_health() -> Statement[list[IndexHealth]]:
    """The indexes of the schema."""
    return Statement(QUERIES["index_health"], {}, lambda rows: [IndexHealth(*row) for row in rows])


def relations() -> Statement[set[tuple[str, str]]]:
    """What the schema holds: (``relation``, ``function`` or ``constraint``, name)."""
    return Statement(QUERIES["relations"], {}, lambda rows: {(row[0], row[1]) for row in rows})


def orphaned_claims() -> Statement[list[tuple[str, int, int]]]:
    """Rows of (worker, claims, jobs) that workers hold who do not live, for longer than a reaper takes."""
    return Statement(QUERIES["orphaned_claims"], {}, lambda rows: [(row[0], row[1], row[2]) for row in rows])


def endless() -> Statement[list[tuple[str, int, str]]]:
    """Rows of (running or ended, jobs, the id of one) that nobody will end or delete."""
    return Statement(QUERIES["endless"], {}, lambda rows: [(row[0], row[1], row[2]) for row in rows])


def overdue_duties() -> Statement[dict[str, float]]:
    """The duties that nobody has taken in time, and for how many seconds they have been due."""
    return Statement(QUERIES["overdue_duties"], {}, lambda rows: {row[0]: row[1] for row in rows})


def wide_roles() -> Statement[list[tuple[str, bool]]]:
    """Rows of (role, whether it is a superuser) under which workers run, and that may far more than they need."""
    return Statement(QUERIES["wide_roles"], {}, lambda rows: [(row[0], row[1]) for row in rows])
