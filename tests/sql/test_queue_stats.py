"""The statistics of the queues: exact where there are few jobs, cheap and near where there are many."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from pgjobs import PgJobs

pytestmark = pytest.mark.server


def put(conn: psycopg.Connection[Any], queue: str, count: int, status: str = "queued") -> None:
    values = ("'queued', NULL", "nextval('pgjobs.positions')")
    if status == "scheduled":
        values = ("'scheduled', now() + n * interval '1 s'", "NULL")
    conn.execute(
        f"INSERT INTO pgjobs.jobs (task, queue, status, due_at, position) SELECT 'none', %s, {values[0]}, {values[1]}"
        " FROM generate_series(1, %s::int) AS n".encode(),
        [queue, count],
    )


def stats(conn: psycopg.Connection[Any], column: str) -> dict[str, int]:
    return dict(conn.execute(f"SELECT queue, {column} FROM pgjobs.queue_stats WHERE {column} > 0".encode()).fetchall())


def test_few_jobs_are_counted(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    for queue, count in (("a", 3), ("b", 10_000), ("c", 1)):
        put(conn, queue, count)
        put(conn, queue, count // 2, "scheduled")
    conn.execute("UPDATE pgjobs.jobs SET priority = 5 WHERE position % 3 = 0")
    assert stats(conn, "queued") == {"a": 3, "b": 10_000, "c": 1}
    assert stats(conn, "scheduled") == {"a": 1, "b": 5_000}


def test_many_jobs_are_estimated_within_a_fifth(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    for _ in range(10):
        for queue, count in (("big", 10_000), ("bigger", 20_000), ("small", 20)):
            put(conn, queue, count)
        put(conn, "later", 3_000, "scheduled")
        put(conn, "at the end", 30, "scheduled")
    conn.execute("VACUUM ANALYZE pgjobs.jobs")
    queued = stats(conn, "queued")
    assert queued["small"] == 200
    assert queued["big"] + queued["bigger"] == pytest.approx(300_000, rel=0.2)
    assert stats(conn, "scheduled")["later"] == pytest.approx(30_000, rel=0.2)
    plan = conn.execute("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM pgjobs.queue_stats").fetchone()
    assert plan is not None
    found = plan[0] if isinstance(plan[0], list) else json.loads(plan[0])
    assert found[0]["Plan"]["Shared Hit Blocks"] + found[0]["Plan"]["Shared Read Blocks"] < 40_000
    assert not list(scans(found[0]["Plan"], "Seq Scan", "jobs")), "the table is never read as a whole"


def test_estimate_of_a_table_that_was_never_analyzed_is_not_below_what_was_counted(
    jobs: PgJobs, conn: psycopg.Connection[Any]
) -> None:
    conn.execute("ALTER TABLE pgjobs.jobs SET (autovacuum_enabled = false)")
    put(conn, "big", 12_000)
    put(conn, "big", 12_000, "scheduled")
    assert stats(conn, "queued")["big"] >= 10_001
    assert stats(conn, "scheduled")["big"] >= 10_001


def scans(plan: dict[str, Any], kind: str, table: str) -> Any:
    if plan["Node Type"] == kind and plan.get("Relation Name") == table:
        yield plan
    for child in plan.get("Plans", []):
        yield from scans(child, kind, table)
