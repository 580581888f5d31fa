"""Failures by what they have in common are found by index, however many others there are."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import psycopg
import pytest

from pgjobs import PgJobs, statements
from pgjobs.statements import Selection, Statement

pytestmark = pytest.mark.server

MANY = 20_000
MOST = 400
"""Buffers that a command may touch for its ten jobs; the others take some thousand."""


@pytest.fixture
def few(conn: psycopg.Connection[Any], jobs: PgJobs) -> list[UUID]:
    """Ten jobs that have failed in a way of their own, among many that have in another."""
    conn.execute(
        "INSERT INTO pgjobs.jobs (task, status, position, finished_at)"
        " SELECT 't', 'failed', NULL, now() FROM generate_series(1, %s)",
        [MANY],
    )
    conn.execute(
        "INSERT INTO pgjobs.failures (job_id, attempt, reason, exception, message, traceback, fingerprint)"
        " SELECT id, 1, 'error', 'E', 'm', repeat('t', 100), CASE WHEN place % 2000 = 0 THEN 'rare' ELSE 'common' END"
        "   FROM (SELECT id, row_number() OVER (ORDER BY id) AS place FROM pgjobs.jobs) AS job"
    )
    conn.execute("VACUUM ANALYZE pgjobs.jobs")
    conn.execute("VACUUM ANALYZE pgjobs.failures")
    found = conn.execute("SELECT job_id FROM pgjobs.failures WHERE fingerprint = 'rare' ORDER BY job_id").fetchall()
    return [job_id for (job_id,) in found]


@pytest.fixture
def chosen() -> Selection:
    return Selection(["failed"], fingerprint="rare")


def buffers(conn: psycopg.Connection[Any], statement: Statement[Any]) -> int:
    text = b"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + statement.query.text("pgjobs").encode()
    conn.execute(text, statement.params, prepare=False)  # what it reads of the catalogue does not count
    row = conn.execute(text, statement.params, prepare=False).fetchone()
    assert row is not None
    plan = row[0][0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


def test_jobs_that_failed_so_are_found_by_index(
    few: list[UUID], chosen: Selection, conn: psycopg.Connection[Any], jobs: PgJobs
) -> None:
    first = UUID(int=0)
    for statement, result in (
        (statements.select_jobs(chosen, first, 100), few),
        (statements.count_jobs(chosen), {"failed": 10}),
    ):
        assert jobs.database.run(statement) == result
        assert buffers(conn, statement) < MOST
    assert [row.id for row in jobs.database.run(statements.export_jobs(chosen))] == few
    assert buffers(conn, statements.export_jobs(chosen)) < MOST


def test_failures_of_one_kind_are_read_alone(few: list[UUID], conn: psycopg.Connection[Any], jobs: PgJobs) -> None:
    alike = statements.failures_alike(None, None, 10, "rare")
    ((kind,),) = [jobs.database.run(alike)]
    assert (kind.fingerprint, kind.attempts, kind.jobs) == ("rare", 10, 10)
    assert buffers(conn, alike) < MOST
    assert {job.id for job in jobs.database.run(statements.jobs_alike("rare", 100))} == set(few)
    assert buffers(conn, statements.jobs_alike("rare", 100)) < MOST


def test_last_failures_cost_the_same_however_many_there_are(
    few: list[UUID], conn: psycopg.Connection[Any], jobs: PgJobs
) -> None:
    late = statements.lately_alike(None, None, 10, 90)
    found = {kind.fingerprint: (kind.attempts, kind.jobs, kind.failed) for kind in jobs.database.run(late)}
    assert found == {"common": (89, 89, 89), "rare": (1, 1, 1)}
    assert buffers(conn, late) < MOST
    assert jobs.database.run(statements.more_failures(MANY - 1))
    assert not jobs.database.run(statements.more_failures(MANY))
    assert buffers(conn, statements.more_failures(90)) < 10


def test_last_failures_read_as_all_of_them_do(few: list[UUID], jobs: PgJobs) -> None:
    for task, since_s in ((None, None), ("t", 60.0), ("another", None)):
        everything = jobs.database.run(statements.failures_alike(task, since_s, 10))
        assert jobs.database.run(statements.lately_alike(task, since_s, 10, MANY)) == everything
    assert jobs.database.run(statements.lately_alike(None, -60.0, 10, MANY)) == []


def test_failure_without_an_exception_is_found_by_its_reason(conn: psycopg.Connection[Any], jobs: PgJobs) -> None:
    job = jobs.enqueue("t")
    conn.execute("INSERT INTO pgjobs.failures (job_id, attempt, reason) VALUES (%s, 1, 'worker lost')", [job.id])
    chosen = Selection(["queued"], fingerprint="worker lost")
    assert jobs.database.run(statements.select_jobs(chosen, UUID(int=0), 10)) == [job.id]
