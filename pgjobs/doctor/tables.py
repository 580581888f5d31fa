"""Vacuum and bloat of pgjobs's own tables and indexes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from pgjobs import statements
from pgjobs.doctor.finding import Check, Finding, Patient, critical, warning
from pgjobs.wording import duration

LATE: Final = 3
"""Dead rows, in multiples of the number at which autovacuum begins, from which on it lags."""

SWOLLEN: Final = 4
"""Size, in multiples of what the rows need, from which on a table or an index is bloated."""


def vacuum(patient: Patient) -> Iterator[Finding]:
    """Tables that autovacuum passes over, or does not keep up with, or that have grown."""
    for table in patient.ask(statements.table_health()):
        name = f"{patient.schema}.{table.name}"
        if not table.enabled:
            yield critical(
                "autovacuum_table",
                f"autovacuum is off for {name}",
                "its dead rows stay, and queries read past more and more of them",
                f"ALTER TABLE {name} RESET (autovacuum_enabled)",
            )
        if table.dead > max(patient.limits.dead, LATE * table.begins):
            when = "never" if table.since is None else f"{duration(table.since)} ago"
            yield warning(
                "vacuum_lag",
                f"{name} has {table.dead:,} dead rows, vacuum begins at {table.begins:,.0f}, and was last there {when}",
                "queries read past dead rows, and the table grows; a pinned horizon is the usual cause",
                f"VACUUM (VERBOSE, ANALYZE) {name}",
            )
        if table.needed is not None and table.bytes > max(patient.limits.bloat, SWOLLEN * table.needed):
            yield warning(
                "bloat",
                f"{name} takes {_size(table.bytes)}, and its rows need {_size(table.needed)}",
                "it takes room in memory and on disk; new rows fill it, so mend it only where it stays",
                f"VACUUM (FULL, ANALYZE) {name}, while no worker runs: it locks the table; or pg_repack",
            )


def indexes(patient: Patient) -> Iterator[Finding]:
    """Indexes that a build has left invalid, or that have grown."""
    for index in patient.ask(statements.index_health()):
        mend = f"REINDEX INDEX CONCURRENTLY {patient.schema}.{index.name}"
        if not index.valid:
            why = "it serves no query, and every write pays for it"
            yield critical("invalid_index", f"the index {patient.schema}.{index.name} is invalid", why, mend)
        elif index.needed is not None and index.bytes > max(patient.limits.bloat, SWOLLEN * index.needed):
            size = f"takes {_size(index.bytes)}, and its entries need {_size(index.needed)}"
            what = f"the index {patient.schema}.{index.name} {size}"
            yield warning("index_bloat", what, "claims and look-ups read more pages than they have to", mend)


def _size(count: float) -> str:
    return f"{count / (1 << 20):,.1f} MB"


CHECKS: Final[Sequence[Check]] = (vacuum, indexes)
