"""A timeout is kept in every case: coroutines, threads, a blocked loop, and where no worker can do it any more."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import psycopg
import pytest

from pgjobs import JobFailedError, PgJobs, Retry, Status, statements
from pgjobs.connections.link import Link
from pgjobs.job import new_id
from pgjobs.statements import Range
from pgjobs.worker.executors import threads
from tests.support import eventually

pytestmark = pytest.mark.server


def test_thread_over_its_timeout_gets_an_exception(jobs: PgJobs) -> None:
    unwound: list[type[BaseException] | None] = []

    @jobs.task(timeout=0.2, retry=1)
    def endless() -> None:
        try:
            while True:
                time.sleep(0.005)
        except BaseException as error:
            unwound.append(type(error))
            raise

    with jobs.worker() as worker:
        job = endless.enqueue()
        with pytest.raises(JobFailedError, match=r"timeout of 0.2 s"):
            job.get(15)
        assert (job.refresh().reason, job.attempt) == ("timeout", 1)
        assert "endless" in (job.failures()[0].traceback or ""), "it says where the code was"
        assert [error and error.__name__ for error in unwound] == ["TimeoutExceededError"]
        assert not worker.recycling


def test_thread_that_swallows_the_exception_has_timed_out_all_the_same(jobs: PgJobs) -> None:
    @jobs.task(timeout=0.2, retry=1)
    def stubborn() -> str:
        try:
            while True:
                time.sleep(0.005)
        except TimeoutError:
            return "done all the same"

    with jobs.worker():
        job = stubborn.enqueue()
        with pytest.raises(JobFailedError):
            job.get(15)
    assert job.refresh().reason == "timeout"


def test_deaf_thread_loses_its_slot_to_others(jobs: PgJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "GRACE_S", 0.2)
    gate = threading.Event()

    @jobs.task(timeout=0.5, retry=1)
    def deaf(i: int) -> int:
        if i == 0:
            gate.wait(20)  # one call, in which no exception can be raised
        return i

    try:
        with jobs.worker(concurrency=1):
            first, second = deaf.enqueue(0), deaf.enqueue(1)
            with pytest.raises(JobFailedError):
                first.get(10)
            assert second.get(10) == 1
            before = first.refresh().row
            gate.set()
            assert deaf.enqueue(2).get(10) == 2
            time.sleep(0.1)
            assert first.refresh().row == before, "what the deaf code returned in the end is recorded nowhere"
    finally:
        gate.set()


def test_timeout_that_comes_when_the_code_has_just_ended_hits_nobody_else(jobs: PgJobs) -> None:
    """Jobs whose timeout and duration meet: each either succeeds or has timed out, and no other job is hit."""

    @jobs.task(timeout=0.02, retry=1)
    def close_shave(i: int) -> int:
        end = time.perf_counter() + 0.0195 + (i % 10) * 0.0001
        while time.perf_counter() < end:
            pass
        return i

    @jobs.task
    def innocent(i: int) -> int:
        sum(range(2_000))
        return i

    with jobs.worker(concurrency=2):
        shaves = close_shave.enqueue_many([(i,) for i in range(60)])
        others = innocent.enqueue_many([(i,) for i in range(300)])
        for job_id in shaves:
            eventually(lambda job_id=job_id: jobs.job(job_id).status.ended)
        for job_id in others:
            jobs.job(job_id).get(10)
    rows = [jobs.job(job_id).row for job_id in shaves]
    assert {(row.status, row.reason) for row in rows} <= {(Status.SUCCEEDED, None), (Status.FAILED, "timeout")}


@pytest.mark.parametrize("is_async", [False, True])
def test_timed_out_attempt_is_tried_again_as_the_policy_says(is_async: bool, jobs: PgJobs) -> None:
    calls: list[float] = []

    def work() -> str:
        calls.append(time.monotonic())
        while len(calls) < 3:
            time.sleep(0.005)
        return "done"

    async def awork() -> str:
        calls.append(time.monotonic())
        while len(calls) < 3:
            await asyncio.sleep(0.005)
        return "done"

    task = jobs.task(name="work", timeout=0.1, retry=Retry(3, backoff=0))(awork if is_async else work)
    with jobs.worker():
        job = task.enqueue()
        assert job.get(10) == "done"
    assert [failure.reason for failure in job.failures()] == ["timeout", "timeout"]
    assert job.refresh().attempt == 3


def test_coroutine_that_blocks_the_loop_has_timed_out_when_it_lets_go(jobs: PgJobs) -> None:
    @jobs.task(timeout=0.2, retry=1)
    async def blocks() -> str:
        time.sleep(0.6)
        return "late"

    @jobs.task(timeout=0.5)
    async def neighbour() -> str:
        return "fine"

    with jobs.worker(concurrency=4):
        job = blocks.enqueue()
        eventually(lambda: job.refresh().status is Status.RUNNING)
        other = neighbour.enqueue()
        assert other.get(15) == "fine", "its time counts from its own start, not from that of its slot"
        with pytest.raises(JobFailedError):
            job.get(15)
    assert job.refresh().reason == "timeout"


def test_no_timeout_means_none(jobs: PgJobs) -> None:
    task = jobs.task(name="work", timeout=None)(lambda: time.sleep(0.3))
    with jobs.worker():
        assert task.enqueue().get(15) is None


# -- the last resort


@pytest.fixture
def held(jobs: PgJobs, conn: psycopg.Connection[Any]) -> tuple[Link, list[Any]]:
    """Jobs that a worker has claimed which beats, and does nothing more."""
    task = jobs.task(name="work", timeout=60, retry=2)(lambda i: i)
    ids = task.enqueue_many([(i,) for i in range(3)])
    link = Link(jobs.database, "test")
    worker = new_id()
    link.one(
        statements.register(worker, supervisor=worker, name="w", host="h", pid=1, process="{}", queues=["*"], slots=1)
    )
    link.one(statements.claim(worker, new_id(), [Range(("default", 0))], 10))
    return link, ids


def test_reaper_ends_what_has_run_far_past_its_timeout(
    held: tuple[Link, list[Any]], jobs: PgJobs, conn: psycopg.Connection[Any]
) -> None:
    link, ids = held
    conn.execute("UPDATE pgjobs.jobs SET started_at = now() - interval '74 seconds'")
    assert link.one(statements.time_out(None, None)) == []
    conn.execute("UPDATE pgjobs.jobs SET started_at = now() - interval '76 seconds' WHERE id = ANY(%s)", [ids[:2]])
    conn.execute("UPDATE pgjobs.jobs SET attempt = 2 WHERE id = %s", [ids[0]])
    assert sorted(link.one(statements.time_out(None, None))) == [(ids[0], "failed"), (ids[1], "scheduled")]
    rows = [jobs.job(job_id).row for job_id in ids]
    assert [(row.status, row.reason) for row in rows] == [
        (Status.FAILED, "timeout"),
        (Status.SCHEDULED, "timeout"),
        (Status.RUNNING, None),
    ]
    assert [failure.reason for failure in jobs.job(ids[0]).failures()] == ["timeout"]
    rolled = conn.execute("SELECT status, jobs FROM pgjobs.rollups ORDER BY 1").fetchall()
    assert rolled == [("failed", 1), ("retried", 1)]
    link.close()


def test_reaper_does_so_without_being_asked(
    held: tuple[Link, list[Any]], jobs: PgJobs, conn: psycopg.Connection[Any]
) -> None:
    link, ids = held
    link.close()
    conn.execute("UPDATE pgjobs.jobs SET started_at = now() - interval '90 seconds'")
    with jobs.worker(queues="other"):
        eventually(lambda: jobs.job(ids[0]).status is Status.SCHEDULED, timeout_s=8)


def test_suspect_that_was_over_its_timeout_is_none_any_more(
    held: tuple[Link, list[Any]], jobs: PgJobs, conn: psycopg.Connection[Any]
) -> None:
    link, ids = held
    for job_id, suspect in zip(ids, ('{"of": 4, "runs": true}', '{"of": 4}'), strict=False):
        conn.execute(
            "UPDATE pgjobs.jobs SET options = jsonb_build_object('suspect', %s::jsonb) WHERE id = %s", [suspect, job_id]
        )
    conn.execute("UPDATE pgjobs.jobs SET started_at = now() - interval '90 seconds'")
    assert len(link.one(statements.time_out(None, None))) == 3
    assert [jobs.job(job_id).row.options for job_id in ids] == [{}, {"suspect": {"of": 4}}, None]
    link.close()


def test_cancelled_job_over_its_timeout_is_cancelled(
    held: tuple[Link, list[Any]], jobs: PgJobs, conn: psycopg.Connection[Any]
) -> None:
    link, ids = held
    jobs.cancel(ids[:1], "enough")
    conn.execute("UPDATE pgjobs.jobs SET started_at = now() - interval '90 seconds'")
    assert dict(link.one(statements.time_out(None, None)))[ids[0]] == "cancelled"
    assert jobs.job(ids[0]).reason == "enough"
    link.close()


def test_row_that_somebody_holds_is_passed_over(
    held: tuple[Link, list[Any]], database_url: str, conn: psycopg.Connection[Any]
) -> None:
    link, ids = held
    conn.execute("UPDATE pgjobs.jobs SET started_at = now() - interval '90 seconds'")
    with psycopg.connect(database_url) as app:
        app.execute("SELECT FROM pgjobs.jobs WHERE id = %s FOR UPDATE", [ids[1]])
        ended = [job_id for job_id, _ in link.one(statements.time_out(None, None))]
        assert sorted(ended) == [ids[0], ids[2]]
    link.close()
