"""Finds what is wrong with a database, and says why it matters and how to mend it.

A check is a small function from a ``Patient`` (a connection and the schema's name) to findings; a feature adds its own
to the list of a module here, or to ``CHECKS``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Final

from psycopg import errors

from pgjobs.connections.database import Database
from pgjobs.doctor import fleet, horizon, schema, server, tables
from pgjobs.doctor.finding import Check, Finding, Limits, Patient, Severity, skipped

__all__ = ["CHECKS", "Check", "Finding", "Limits", "Patient", "Severity", "examine"]

CHECKS: Final[Sequence[Check]] = (
    *server.CHECKS, *schema.CHECKS, *horizon.CHECKS, *tables.CHECKS, *fleet.CHECKS,
)  # fmt: skip


def examine(database: Database, limits: Limits | None = None, checks: Sequence[Check] = CHECKS) -> list[Finding]:
    """Runs the checks; the worst findings come first. One that may not read says so instead.

    Raises:
        psycopg.OperationalError: the database is out of reach.
    """
    with closing(database.connect("pgjobs doctor")) as conn:
        patient = Patient(database, conn, limits or Limits())
        found = [finding for check in checks for finding in _run(check, patient)]
    return sorted(found, key=lambda finding: list(Severity).index(finding.severity))


def _run(check: Check, patient: Patient) -> Iterator[Finding]:
    code = check.__name__
    try:
        yield from check(patient)
    except errors.InsufficientPrivilege as error:
        who = patient.conn.info.user
        remedy = f"GRANT {patient.schema}_reader TO {who}"
        yield skipped(code, f"the role {who} may not look: {error.diag.message_primary}", remedy)
    except (errors.UndefinedTable, errors.InvalidSchemaName, errors.UndefinedColumn) as error:
        # What is missing, the checks of the schema say, and with which command it comes back.
        what = f"what it reads is not there: {error.diag.message_primary}"
        yield skipped(code, what, "mend the schema, as is said above")
