"""Releases beside each other: which worker works on which schema."""

from __future__ import annotations

import psycopg
import pytest

from pgjobs import PgJobs, SchemaError
from pgjobs.config import SCHEMA_REVISION
from pgjobs.link import Link

LATER = f"{int(SCHEMA_REVISION) + 1:04}"
EARLIER = f"{int(SCHEMA_REVISION) - 1:04}"


def check(jobs: PgJobs) -> None:
    link = Link(jobs.database, "test")
    try:
        link.check_schema()
    finally:
        link.close()


def be_at(conn: psycopg.Connection, revision: str, oldest: str | None = None) -> None:
    conn.execute("UPDATE pgjobs.alembic_version SET version_num = %s", [revision])
    said = "NULL" if oldest is None else f"'works with releases of revision {oldest} and later'"
    conn.execute(f"COMMENT ON TABLE pgjobs.alembic_version IS {said}".encode())


def test_later_schema_that_says_so_is_worked_on(jobs: PgJobs, conn: psycopg.Connection) -> None:
    be_at(conn, LATER, SCHEMA_REVISION)
    check(jobs)


@pytest.mark.parametrize("oldest", [None, LATER])
def test_later_schema_that_does_not_is_refused(jobs: PgJobs, conn: psycopg.Connection, oldest: str | None) -> None:
    be_at(conn, LATER, oldest)
    with pytest.raises(SchemaError, match=f"revision {LATER}, this release needs {SCHEMA_REVISION}; upgrade"):
        check(jobs)


def test_earlier_schema_is_refused(jobs: PgJobs, conn: psycopg.Connection) -> None:
    be_at(conn, EARLIER)
    with pytest.raises(SchemaError, match=f"revision {EARLIER}, this release needs {SCHEMA_REVISION}; run `pgjobs mi"):
        check(jobs)
