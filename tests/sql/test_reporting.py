"""The views for reports: what they say of jobs whose ends are known, and what they read where there is much history."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from pgjobs import PgJobs

pytestmark = pytest.mark.server

ENDED = 100_000
POLLED = {
    "SELECT * FROM pgjobs.task_stats": 40,
    "SELECT * FROM pgjobs.worker_stats": 200,
    "SELECT * FROM pgjobs.throughput_minute WHERE minute > now() - interval '1 hour'": 40,
    "SELECT * FROM pgjobs.throughput_hour WHERE hour > now() - interval '1 day'": 500,
    "SELECT * FROM pgjobs.throughput_day WHERE day > now() - interval '1 day'": 200,
    "SELECT * FROM pgjobs.waits": 1_500,
    "SELECT * FROM pgjobs.history WHERE id < pgjobs.id_at(now() - interval '1 minute') ORDER BY id DESC LIMIT 50": 60,
    "SELECT * FROM pgjobs.history ORDER BY id DESC LIMIT 50": 1_000,
    "SELECT * FROM pgjobs.history"
    " WHERE id BETWEEN pgjobs.id_at(now() - interval '1 hour') AND pgjobs.id_at(now() - interval '1 minute')"
    "   AND task = 'task1'": 60,
}
"""Buffers that a query may touch. With 100,000 ended jobs, 5,000 queued ones and a month of rollups in 130,000 rows it
touches less than half of that; the same with ten million, for it walks indexes from their ends."""


def scalar(conn: psycopg.Connection[Any], query: str, *params: Any) -> Any:
    row = conn.execute(query.encode(), params).fetchone()
    assert row is not None
    return row[0]


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", ()):
        yield from nodes(inner)


def explain(conn: psycopg.Connection[Any], query: str) -> dict[str, Any]:
    plan: dict[str, Any] = scalar(conn, f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {query}")[0]["Plan"]
    return plan


def fill(conn: psycopg.Connection[Any]) -> None:
    """A month of history, and a backlog."""
    conn.execute(
        "INSERT INTO pgjobs.jobs (id, task, queue, status, position, attempt, created_at, started_at, finished_at)"
        " SELECT pgjobs.id_at(at), 'task' || n %% 20, 'queue' || n %% 5, 'succeeded', NULL, 1, at,"
        "        at + interval '1 s', at + interval '2 s'"
        "   FROM generate_series(1, %(count)s) AS n,"
        "        LATERAL (SELECT now() - interval '30 days' * (%(count)s - n) / %(count)s AS at) AS time",
        {"count": ENDED},
    )
    conn.execute(
        "INSERT INTO pgjobs.jobs (task, queue, priority)"
        " SELECT 'task', 'queue' || n % 5, n % 2 FROM generate_series(1, 5000) AS n"
    )
    conn.execute(
        "INSERT INTO pgjobs.rollups (minute, queue, task, status, bucket, jobs, seconds)"
        " SELECT date_trunc('minute', now()) - n * interval '1 min', 'queue' || t, 'task' || t, 'succeeded', 9, 10, 4"
        "   FROM generate_series(0, 43200) AS n, generate_series(0, 2) AS t"
    )
    work(conn, 20)


def work(conn: psycopg.Connection[Any], count: int) -> None:
    """Has a worker of 16 slots hold so many of the jobs that wait."""
    conn.execute(
        """
        WITH held AS (
            SELECT coalesce(array_agg(id), '{}') AS ids
              FROM (SELECT id FROM pgjobs.jobs WHERE position IS NOT NULL ORDER BY position LIMIT %s) AS few
        ), worker AS (
            INSERT INTO pgjobs.workers (id, supervisor_id, name, host, pid, queues, slots)
            VALUES (gen_random_uuid(), gen_random_uuid(), 'w', 'h', 1, '{*}', 16)
            RETURNING id
        ), claim AS (
            INSERT INTO pgjobs.claims (id, worker_id, job_ids, positions)
            SELECT gen_random_uuid(), worker.id, held.ids, '{}' FROM held CROSS JOIN worker
            RETURNING id
        )
        UPDATE pgjobs.jobs AS job
           SET status = 'running', position = NULL, attempt = 1, started_at = now(), claim_id = claim.id
          FROM claim CROSS JOIN held
         WHERE job.id = ANY (held.ids)
        """,
        [count],
    )


def assert_polls_are_cheap(conn: psycopg.Connection[Any]) -> None:
    bad: dict[str, Any] = {}
    for query, most in POLLED.items():
        explain(conn, query)  # a session reads the catalogue of the tables that it meets once
        plan = explain(conn, query)
        touched = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
        whole = [
            node["Relation Name"]
            for node in nodes(plan)
            if node["Node Type"] == "Seq Scan" and node["Relation Name"] in ("jobs", "rollups")
        ]
        if whole or touched > most or not plan["Actual Rows"]:
            bad[query] = (whole, touched, plan["Actual Rows"])
    assert not bad


def test_polled_views_read_little_where_there_is_much_history(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    fill(conn)
    conn.execute("VACUUM ANALYZE pgjobs.jobs, pgjobs.rollups")
    assert_polls_are_cheap(conn)


def test_polled_views_read_little_where_nothing_was_analyzed_since_it_was_empty(
    jobs: PgJobs, conn: psycopg.Connection[Any]
) -> None:
    for table in ("jobs", "rollups", "claims"):
        conn.execute(f"ALTER TABLE pgjobs.{table} SET (autovacuum_enabled = false)".encode())
    conn.execute("VACUUM ANALYZE pgjobs.jobs, pgjobs.rollups, pgjobs.claims")
    fill(conn)
    assert_polls_are_cheap(conn)


# -- what they say


def handle(conn: psycopg.Connection[Any], status: str, jobs: int, seconds: float, ago: str = "0 s") -> None:
    """Adds jobs to the rollups that took so long each."""
    conn.execute(
        "INSERT INTO pgjobs.rollups (minute, queue, task, status, bucket, jobs, seconds)"
        " SELECT date_trunc('minute', now() - %s::interval), 'q', 't', %s, pgjobs.duration_bucket(%s), %s,"
        "        %s::float8 * %s",
        [ago, status, seconds, jobs, seconds, jobs],
    )


def test_percentiles_are_those_of_the_successful_runs_of_the_hour(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    handle(conn, "succeeded", 60, 0.010)
    handle(conn, "succeeded", 34, 0.200, "30 min")
    handle(conn, "succeeded", 5, 3.0)
    handle(conn, "succeeded", 1, 5_000_000.0)
    handle(conn, "failed", 1_000, 7.0)
    handle(conn, "retried", 500, 7.0)
    handle(conn, "succeeded", 9_000, 50.0, "90 min")
    row = conn.execute(
        "SELECT succeeded, failed, cancelled, retried, p50_seconds, p95_seconds, p99_seconds, mean_seconds"
        "  FROM pgjobs.task_stats"
    ).fetchone()
    assert row is not None
    assert row[:4] == (100, 1_000, 0, 500)
    assert row[4:7] == pytest.approx((0.010, 3.0, 3.0))
    assert row[7] == pytest.approx((60 * 0.010 + 34 * 0.2 + 15 + 5_000_000) / 100)


def test_task_that_never_succeeded_has_no_durations(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    handle(conn, "failed", 3, 1.0)
    query = "SELECT failed, mean_seconds, p50_seconds, p99_seconds FROM pgjobs.task_stats"
    assert conn.execute(query).fetchall() == [(3, None, None, None)]


def test_throughput_adds_up_by_minute_hour_and_day(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    """Among them the day that has 25 hours."""
    conn.execute("SET TIME ZONE 'Europe/Berlin'")
    minutes = {"2025-10-25 23:59": 1, "2025-10-26 00:00": 2, "2025-10-26 23:59": 4, "2025-10-27 00:00": 8}
    for minute, count in minutes.items():
        conn.execute(
            "INSERT INTO pgjobs.rollups SELECT %s::timestamptz, 'q', 't', status, 0, %s, 0.5"
            "  FROM unnest('{succeeded,failed}'::text[]) AS status",
            [minute, count],
        )
    query = "SELECT %s::timestamp::text, succeeded, failed, seconds FROM pgjobs.throughput_%s ORDER BY 1"
    found = {unit: conn.execute((query % (unit, unit)).encode()).fetchall() for unit in ("minute", "hour", "day")}
    assert [row[1] for row in found["minute"]] == [1, 2, 4, 8]
    assert [row[:2] for row in found["hour"]] == [
        ("2025-10-25 23:00:00", 1), ("2025-10-26 00:00:00", 2), ("2025-10-26 23:00:00", 4), ("2025-10-27 00:00:00", 8),
    ]  # fmt: skip
    assert found["day"] == [
        ("2025-10-25 00:00:00", 1, 1, 0.5), ("2025-10-26 00:00:00", 6, 6, 1.0), ("2025-10-27 00:00:00", 8, 8, 0.5),
    ]  # fmt: skip


def test_worker_holds_what_it_has_claimed(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    query = "SELECT slots, busy, held, oldest_started_at IS NULL FROM pgjobs.worker_stats"
    work(conn, 0)
    assert conn.execute(query).fetchall() == [(16, 0, 0, True)]
    conn.execute("DELETE FROM pgjobs.workers; INSERT INTO pgjobs.jobs (task) SELECT 't' FROM generate_series(1, 20)")
    work(conn, 20)
    assert conn.execute(query).fetchall() == [(16, 16, 20, False)]
    assert scalar(conn, "SELECT quiet_at FROM pgjobs.worker_stats") is None
    conn.execute("UPDATE pgjobs.workers SET quiet_at = now() - interval '1 minute'")
    assert scalar(conn, "SELECT now() - quiet_at > interval '59 s' FROM pgjobs.worker_stats") is True
    conn.execute("UPDATE pgjobs.workers SET dead_at = now()")
    assert conn.execute(query).fetchall() == []


def test_waits_are_those_of_first_attempts_that_began_lately(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    ended = (
        "INSERT INTO pgjobs.jobs (id, task, queue, status, position, attempt, created_at, run_at, started_at, claim_id,"
        "                         finished_at)"
        " SELECT pgjobs.id_at(began - wait), 't', 'q', 'succeeded', NULL, %s, began - wait, began - asked, began,"
        "        gen_random_uuid(), now()"
        "   FROM (SELECT now() - %s::interval AS began, %s::interval AS wait, %s::interval AS asked) AS known"
    )
    for attempt, ago, wait, asked in (
        (1, "4 min", "3 s", None),
        (1, "3 min", "5 s", None),
        (1, "2 min", "1 hour", "7 s"),
        (2, "1 min", "1 hour", None),
        (1, "6 min", "1 day", None),
    ):
        conn.execute(ended, [attempt, ago, wait, asked])
    conn.execute("INSERT INTO pgjobs.jobs (task, queue, created_at) VALUES ('t', 'q', now() - interval '90 s')")
    conn.execute("INSERT INTO pgjobs.jobs (task, queue) VALUES ('t', 'q'), ('t', 'new')")
    rows = conn.execute(
        "SELECT queue, round(oldest_seconds), started, p50_seconds, max_seconds FROM pgjobs.waits ORDER BY queue"
    ).fetchall()
    assert rows == [("new", 0, 0, None, None), ("q", 90, 3, 5.0, 7.0)]


def test_history_says_how_long_a_job_waited_and_ran(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    insert = (
        "INSERT INTO pgjobs.jobs (task, status, position, reason, created_at, started_at, finished_at, claim_id)"
        " VALUES ('t', %s, NULL, %s, now() - interval '10 s', now() - %s::interval, now(), gen_random_uuid())"
    )
    for status, reason, started in (
        ("succeeded", None, "4 s"),
        ("failed", "error", "4 s"),
        ("failed", "ttl passed", "4 s"),
        ("cancelled", "cancelled", None),
        ("running", None, "4 s"),
    ):
        conn.execute(insert, [status, reason, started])
    rows = conn.execute("SELECT status, wait_seconds, run_seconds FROM pgjobs.history ORDER BY 1, 3").fetchall()
    assert rows == [("cancelled", None, None), ("failed", 6, 4), ("failed", 6, None), ("succeeded", 6, 4)]


def test_id_of_a_moment_is_below_all_that_come_later(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    before = scalar(conn, "SELECT pgjobs.id_at(clock_timestamp())")
    made = jobs.task(name="t")(lambda: None).enqueue().id
    after = scalar(conn, "SELECT pgjobs.id_at(clock_timestamp() + interval '1 ms')")
    assert before < made < after
