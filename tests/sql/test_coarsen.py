"""Rollups of long ago: a row for an hour or a day instead of each minute, and every sum as before."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from pgjobs import PgJobs
from tests.support import eventually

pytestmark = pytest.mark.server

SUMS = (
    "SELECT queue, task, status, bucket, sum(jobs), sum(seconds) FROM pgjobs.rollups GROUP BY 1, 2, 3, 4 ORDER BY 3, 4"
)


def test_old_minutes_become_hours_and_days(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    conn.execute("""
        INSERT INTO pgjobs.rollups (minute, queue, task, status, bucket, jobs, seconds)
        SELECT date_trunc('minute', now()) - n * interval '17 minutes', 'mail', 'send', status, n % 2, 1 + n % 3, n
          FROM generate_series(0, 6000) AS n, unnest(ARRAY['succeeded', 'failed']) AS status
    """)
    before = conn.execute(SUMS).fetchall()
    rows = count(conn)
    with jobs.worker():
        eventually(lambda: is_done(conn), 60)
        now = datetime.now(UTC)
        minutes = [row[0] for row in conn.execute("SELECT DISTINCT minute FROM pgjobs.rollups").fetchall()]
    assert conn.execute(SUMS).fetchall() == before
    assert count(conn) < 0.7 * rows
    for minute in minutes:
        if minute < now - timedelta(days=62):
            assert minute.astimezone(UTC).strftime("%H:%M:%S") == "00:00:00"
        elif minute < now - timedelta(days=3):
            assert minute.minute == 0
    assert any(minute.minute % 60 for minute in minutes), "what is young is kept by the minute"


def count(conn: psycopg.Connection[Any]) -> int:
    row = conn.execute("SELECT count(*) FROM pgjobs.rollups").fetchone()
    assert row is not None
    return int(row[0])


def is_done(conn: psycopg.Connection[Any]) -> bool:
    """Whether the duty has got as far as it is to go: then it is due again in a minute."""
    row = conn.execute(
        "SELECT state, next_at > now() + '10 seconds' FROM pgjobs.duties WHERE name = 'roll_up'"
    ).fetchone()
    return row is not None and set(row[0] or ()) == {"hour", "day"} and bool(row[1])
