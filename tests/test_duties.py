"""The duties that workers share: one that fails, or a row without sense, keeps no other from being done."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from pgjobs import PgJobs, statements
from pgjobs.connections.link import ABANDONED_S, Link
from pgjobs.events import Event, Trouble
from pgjobs.job import new_id
from pgjobs.worker import maintenance
from tests.model import world
from tests.support import eventually

pytestmark = pytest.mark.server


@pytest.fixture
def link(jobs: PgJobs) -> Iterator[Link]:
    made = Link(jobs.database, "test")
    yield made
    made.close()


@pytest.fixture
def troubles(jobs: PgJobs) -> list[Event]:
    """What workers complain of."""
    heard: list[Event] = []
    jobs.subscribe(heard.append, Trouble)
    return heard


def done(conn: psycopg.Connection[Any]) -> set[str]:
    """The duties that were done a moment ago."""
    fresh = conn.execute("SELECT name FROM pgjobs.duties WHERE ran_at > now() - interval '5 seconds'")
    return {name for (name,) in fresh}


def test_duty_that_fails_keeps_no_other_from_being_done(
    jobs: PgJobs, conn: psycopg.Connection[Any], troubles: list[Event]
) -> None:
    """As where a role lacks a privilege. It stays the most overdue, but not the next one."""
    conn.execute("""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN RAISE insufficient_privilege USING MESSAGE = ''permission denied for table marks''; END';
        CREATE TRIGGER refuse BEFORE DELETE ON pgjobs.marks FOR EACH STATEMENT EXECUTE FUNCTION refuse();
        UPDATE pgjobs.duties SET next_at = now() - interval '1 hour', every = interval '1 second' WHERE name = 'tidy'
    """)
    with jobs.worker():
        eventually(lambda: len(troubles) > 1, 20)
        eventually(lambda: done(conn) >= {"reap", "expire", "time_out", "resume"}, 20)
        assert "tidy" not in done(conn)
        conn.execute("DROP TRIGGER refuse ON pgjobs.marks")
        eventually(lambda: "tidy" in done(conn), 20)


def test_duty_of_a_process_that_stands_still_is_done_by_another(
    jobs: PgJobs, link: Link, conn: psycopg.Connection[Any]
) -> None:
    """It was stopped in the middle, or a job holds its interpreter: its connection lives, and so do its locks."""
    link.begin()
    taken = link.step(statements.take_duty(["reap"], new_id()))
    assert taken is not None
    with jobs.worker():
        time.sleep(ABANDONED_S / 2)
        assert "reap" not in done(conn), "others wait for it"
        eventually(lambda: "reap" in done(conn), 3 * ABANDONED_S)
    with pytest.raises(psycopg.Error, match="idle-in-transaction"):
        link.commit()


def test_promotion_that_fails_keeps_no_duty_from_being_done(
    jobs: PgJobs, conn: psycopg.Connection[Any], troubles: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(back_s: float | None) -> Any:
        raise psycopg.errors.ProgramLimitExceeded("index row size exceeds maximum")

    monkeypatch.setattr(maintenance.statements, "next_due", fails)
    with jobs.worker():
        eventually(lambda: len(troubles) > 1, 20)
        eventually(lambda: done(conn) >= {"reap", "expire", "time_out", "resume"}, 20)


@pytest.mark.parametrize(
    "odd",
    [
        "timeout = '178000000 years'",
        "timeout = '-178000000 years'",
        "attempt = -32768, timeout = '1 second'",
        "started_at = 'infinity', timeout = '1 second'",
    ],
)
def test_last_resort_ends_what_is_over_its_timeout_whatever_stands_in_other_rows(
    odd: str, jobs: PgJobs, link: Link, conn: psycopg.Connection[Any]
) -> None:
    late, other, endless = jobs.task(name="work")(lambda: None).enqueue_many([()] * 3)
    world.claim(link, world.register(link))
    conn.execute("UPDATE pgjobs.jobs SET started_at = now() - interval '2 hours', timeout = NULL")
    conn.execute("UPDATE pgjobs.jobs SET timeout = '1 hour' WHERE id = %s", [late])
    conn.execute(f"UPDATE pgjobs.jobs SET {odd} WHERE id = %s", [other])
    ended = {job_id for job_id, _ in link.one(statements.time_out(None, None))}
    assert late in ended
    assert endless not in ended


def test_what_is_due_first_is_queued_first(link: Link, jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    ids = jobs.task(name="work")(lambda: None).using(delay=3600).enqueue_many([()] * 5)
    for second, job_id in enumerate(reversed(ids)):
        conn.execute(
            "UPDATE pgjobs.jobs SET due_at = now() - %s * interval '1 second' WHERE id = %s", [10 - second, job_id]
        )
    assert link.one(statements.promote()) == 5
    rows = conn.execute("SELECT id FROM pgjobs.jobs ORDER BY position").fetchall()
    assert [job_id for (job_id,) in rows] == ids[::-1]


@pytest.mark.parametrize("moment", ["infinity", "-infinity"])
def test_moment_that_is_none_keeps_no_worker_from_its_jobs(
    moment: str, jobs: PgJobs, conn: psycopg.Connection[Any], troubles: list[Event]
) -> None:
    """PostgreSQL before 17 subtracts nothing from infinity, and later ones get infinity."""
    work = jobs.task(name="work")(lambda: None)
    ids = work.using(priority=1).enqueue_many([()] * 3) + work.enqueue_many([()] * 3)
    conn.execute("UPDATE pgjobs.jobs SET created_at = %s WHERE id = ANY (%s)", [moment, [ids[0], ids[3]]])
    with jobs.worker(aging=60):
        eventually(lambda: all(jobs.job(job_id).status.ended for job_id in ids))
    assert troubles == []


def test_key_whose_period_is_no_period_is_kept(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    task = jobs.task(name="work", unique=True)(lambda: None)
    job = task.enqueue()
    conn.execute("""UPDATE pgjobs.jobs SET status = 'succeeded', position = NULL, finished_at = now(),
                                           options = '{"unique_for": 1e300}'""")
    assert task.enqueue().id == job.id
