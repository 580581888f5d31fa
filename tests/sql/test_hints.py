"""Every statement that gives workers something to do says so, where somebody waits to hear it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from pgjobs import PgJobs, statements
from pgjobs.connections.link import Link
from pgjobs.job import new_id
from pgjobs.statements import Range
from tests.support import eventually

pytestmark = pytest.mark.server


@pytest.fixture
def ear(conn: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    conn.execute('LISTEN "pgjobs.jobs"')
    return conn


@pytest.fixture
def link(jobs: PgJobs) -> Iterator[Link]:
    link = Link(jobs.database, "test")
    yield link
    link.close()


def heard(ear: psycopg.Connection[Any]) -> list[str]:
    """What had been notified before; a notification of our own ends the wait."""
    ear.execute("""NOTIFY "pgjobs.jobs", 'end'""")
    payloads: list[str] = []
    for notice in ear.notifies(timeout=5):
        if notice.payload == "end":
            break
        payloads.append(notice.payload)
    return payloads


def somebody_idle(link: Link) -> UUID:
    worker = new_id()
    link.one(
        statements.register(worker, supervisor=worker, name="w", host="h", pid=1, process="{}", queues=["*"], slots=1)
    )
    link.one(statements.idle(worker, new_id(), ["*"]))
    return worker


def claimed(jobs: PgJobs, link: Link, count: int = 3) -> tuple[UUID, UUID, list[UUID]]:
    """A worker with a claim on some jobs, of two priorities."""
    worker = somebody_idle(link)
    task = jobs.task(name="work")(lambda i: i)
    ids = task.using(queue="mail").enqueue_many([(i,) for i in range(count)])
    claim = new_id()
    link.one(statements.claim(worker, claim, [Range(("mail", 0))], 10))
    return worker, claim, ids


def test_release_says_where_the_jobs_went_back(jobs: PgJobs, link: Link, ear: psycopg.Connection[Any]) -> None:
    _, claim, ids = claimed(jobs, link)
    heard(ear)
    link.one(statements.release([claim] * 3, ids))
    (lowest,) = ear.execute("SELECT min(position) FROM pgjobs.jobs").fetchone() or (None,)
    assert heard(ear) == [f"restored 0 {lowest} mail"]


def test_reap_says_where_the_jobs_went_back(jobs: PgJobs, link: Link, ear: psycopg.Connection[Any]) -> None:
    worker, _, _ = claimed(jobs, link)
    heard(ear)
    link.one(statements.declare_dead([worker]))
    link.one(statements.reap([worker], [], 3, "gone"))
    (lowest,) = ear.execute("SELECT min(position) FROM pgjobs.jobs").fetchone() or (None,)
    assert heard(ear) == [f"restored 0 {lowest} mail"]


@pytest.mark.parametrize("idle", [True, False])
def test_promote_tells_who_waits(idle: bool, jobs: PgJobs, link: Link, ear: psycopg.Connection[Any]) -> None:
    if idle:
        somebody_idle(link)
    jobs.task(name="work")(lambda: 1).using(queue="mail", delay=timedelta(milliseconds=1)).enqueue()
    heard(ear)
    eventually(lambda: link.one(statements.promote()) == 1)
    assert heard(ear) == (["queued 0 mail"] if idle else [])


def test_promote_says_where_suspects_went_back(jobs: PgJobs, link: Link, ear: psycopg.Connection[Any]) -> None:
    somebody_idle(link)
    _, claim, ids = claimed(jobs, link)
    (lowest,) = ear.execute("SELECT positions[1] FROM pgjobs.claims").fetchone() or (None,)
    link.one(statements.release([claim] * 3, ids, 0.0))
    heard(ear)
    assert link.one(statements.promote()) == 3
    assert heard(ear) == [f"restored 0 {lowest} mail"]


@pytest.mark.parametrize("idle", [True, False])
def test_retry_tells_who_waits(idle: bool, jobs: PgJobs, link: Link, ear: psycopg.Connection[Any]) -> None:
    job = jobs.task(name="work")(lambda: 1).using(queue="mail").enqueue()
    job.cancel()
    if idle:
        somebody_idle(link)
    heard(ear)
    job.retry()
    assert heard(ear) == (["queued 0 mail"] if idle else [])


@pytest.mark.parametrize("how", ["cancel", "delete"])
def test_stopping_a_running_job_tells_its_worker(
    how: str, jobs: PgJobs, link: Link, ear: psycopg.Connection[Any]
) -> None:
    _, _, ids = claimed(jobs, link)
    heard(ear)
    getattr(jobs, how)(ids[:1])
    assert heard(ear) == ["cancelled"]


@pytest.mark.parametrize("how", ["cancel", "delete"])
def test_stopping_a_waiting_job_tells_nobody(how: str, jobs: PgJobs, link: Link, ear: psycopg.Connection[Any]) -> None:
    somebody_idle(link)
    ids = jobs.task(name="work")(lambda i: i).enqueue_many([(1,), (2,)])
    heard(ear)
    getattr(jobs, how)(ids)
    assert heard(ear) == []
