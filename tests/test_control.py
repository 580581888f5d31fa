"""Cancel, retry and delete: any job, in any status, one or many, from wherever one asks."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy.orm import Session

from pgjobs import (
    Cancel,
    Job,
    JobFailedError,
    JobNotFoundError,
    JobStateError,
    PgJobs,
    ResultTimeoutError,
    Retry,
    Snooze,
    Status,
    current_job,
    statements,
)
from pgjobs.connections.link import Link
from pgjobs.job import new_id
from pgjobs.statements import Range
from pgjobs.worker.claiming import claimer
from pgjobs.worker.claiming.claimer import STOPS_S
from tests.support import eventually
from tests.test_fencing import engine_of

pytestmark = pytest.mark.server

ENDED = ["succeeded", "failed", "cancelled", "expired"]
WAITING = ["queued", "scheduled", "blocked"]


@pytest.fixture
def put(jobs: PgJobs, conn: psycopg.Connection[Any]) -> Callable[[str], Job[Any]]:
    """Makes a job that stands in a status."""
    task = jobs.task(name="work")(lambda: 42)

    def put(status: str) -> Job[Any]:
        job = task.enqueue()
        position, due_at, reason = "NULL", "NULL", "NULL"
        if status == "queued":
            position = "position"
        elif status == "scheduled":
            due_at = "now() + interval '1 hour'"
        elif status == "blocked":
            reason = "'held'"
        finished_at = "now()" if status in ENDED else "NULL"
        conn.execute(
            f"UPDATE pgjobs.jobs SET status = %s, position = {position}, due_at = {due_at}, reason = {reason},"
            f" finished_at = {finished_at}, attempt = 3, crashes = 1 WHERE id = %s",
            [status, job.id],
        )
        return job

    return put


def stands(job: Job[Any]) -> tuple[str, str | None]:
    return job.refresh().status.value, job.reason


# -- waiting and ended jobs


@pytest.mark.parametrize("status", WAITING)
def test_waiting_job_is_cancelled_at_once(
    status: str, put: Callable[[str], Job[Any]], conn: psycopg.Connection[Any]
) -> None:
    job = put(status).cancel("no longer needed")
    assert (job.status, job.reason) == (Status.CANCELLED, "no longer needed")
    assert job.finished_at is not None
    with pytest.raises(JobFailedError, match="no longer needed"):
        job.get(1)
    assert conn.execute("SELECT status, jobs FROM pgjobs.rollups").fetchall() == [("cancelled", 1)]


@pytest.mark.parametrize("status", ENDED)
def test_ended_job_cannot_be_cancelled(status: str, put: Callable[[str], Job[Any]]) -> None:
    job = put(status)
    with pytest.raises(JobStateError, match=f"is {status} and cannot be cancelled"):
        job.cancel()
    assert job.refresh().status == status


@pytest.mark.parametrize("status", ENDED)
def test_ended_job_is_retried_as_new(status: str, put: Callable[[str], Job[Any]], jobs: PgJobs) -> None:
    job = put(status).retry()
    assert (job.status, job.attempt, job.row.crashes, job.finished_at) == (Status.QUEUED, 0, 0, None)
    jobs.worker(burst=True).run()
    assert job.get(1) == 42


@pytest.mark.parametrize("status", [*WAITING, "running"])
def test_job_that_has_not_ended_cannot_be_retried(status: str, put: Callable[[str], Job[Any]]) -> None:
    job = put("queued" if status == "running" else status)
    if status == "running":
        claim(job)
    with pytest.raises(JobStateError, match=f"is {status} and cannot be retried"):
        job.retry()


def claim(job: Job[Any]) -> tuple[Link, UUID]:
    """Takes the job as a worker does that then says nothing more."""
    link = Link(job._ledger._database, "test")
    worker, claim_id = new_id(), new_id()
    link.one(
        statements.register(worker, supervisor=worker, name="w", host="h", pid=1, process="{}", queues=["*"], slots=1)
    )
    link.one(statements.claim(worker, claim_id, [Range(("default", 0))], 10))
    link.close()
    return link, worker


@pytest.mark.parametrize("status", [*WAITING, *ENDED])
def test_job_in_any_status_is_deleted_with_its_failures(
    status: str, put: Callable[[str], Job[Any]], conn: psycopg.Connection[Any]
) -> None:
    job = put(status)
    conn.execute("INSERT INTO pgjobs.failures (job_id, attempt, reason) VALUES (%s, 1, 'error')", [job.id])
    job.delete()
    assert conn.execute("SELECT count(*) FROM pgjobs.failures").fetchone() == (0,)
    with pytest.raises(JobNotFoundError):
        job.refresh()
    for call in (job.delete, job.cancel, job.retry):
        with pytest.raises(JobNotFoundError):
            call()


def test_failures_stay_when_a_job_is_retried(jobs: PgJobs) -> None:
    job = jobs.task(name="boom", retry=1)(lambda: 1 / 0).enqueue()
    jobs.worker(burst=True).run()
    job.retry()
    jobs.worker(burst=True).run()
    assert [(failure.attempt, failure.reason) for failure in job.failures()] == [(1, "error")] * 2


# -- many at once


def test_many_are_cancelled_retried_and_deleted_in_one_call(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    ids = jobs.task(name="work")(lambda i: i).enqueue_many([(i,) for i in range(500)])
    assert jobs.cancel(ids[:300], "half of them") == dict.fromkeys(ids[:300], "cancelled")
    assert jobs.cancel(ids[:310]) == dict.fromkeys(ids[300:310], "cancelled"), "the others were over"
    assert sorted(jobs.retry(ids)) == ids[:310]
    assert sorted(jobs.delete([*ids[:100], new_id()])) == ids[:100]
    rows = conn.execute("SELECT status, count(*) FROM pgjobs.jobs GROUP BY 1").fetchall()
    assert rows == [("queued", 400)]


async def test_async_twins_do_the_same(jobs: PgJobs) -> None:
    task = jobs.task(name="work")(lambda: 1)
    job = await task.aenqueue()
    assert (await job.acancel("async")).reason == "async"
    assert (await job.aretry()).status is Status.QUEUED
    assert await jobs.acancel([job]) == {job.id: "cancelled"}
    assert await jobs.aretry([str(job.id)]) == [job.id]
    other = await task.aenqueue()
    assert await jobs.adelete([other]) == [other.id]
    await job.adelete()
    with pytest.raises(JobNotFoundError):
        await job.arefresh()
    await jobs.aclose()


async def test_async_twins_refuse_the_same(jobs: PgJobs) -> None:
    task = jobs.task(name="work", retry=1)(lambda: 1 / 0)
    job = await task.aenqueue()
    with pytest.raises(JobStateError, match="is queued and cannot be retried"):
        await job.aretry()
    with pytest.raises(ResultTimeoutError):
        await job.aget(timeout=0.1)
    await asyncio.to_thread(jobs.worker(burst=True).run)
    with pytest.raises(JobFailedError, match="ZeroDivisionError"):
        await job.aget(timeout=5)
    with pytest.raises(JobStateError, match="is failed and cannot be cancelled"):
        await job.acancel()
    await job.adelete()
    for call in (job.adelete, job.acancel, job.aretry):
        with pytest.raises(JobNotFoundError):
            await call()
    await jobs.aclose()


def test_plain_sql_does_the_same(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    ids = jobs.task(name="work")(lambda i: i).enqueue_many([(1,), (2,)])
    assert conn.execute("SELECT * FROM pgjobs.cancel(%s, 'by hand')", [ids]).fetchall() == [
        (job_id, "cancelled") for job_id in ids
    ]
    cancelled = "ARRAY(SELECT id FROM pgjobs.jobs WHERE reason = 'by hand')"
    assert [row[0] for row in conn.execute(f"SELECT pgjobs.retry({cancelled})")] == ids
    assert [row[0] for row in conn.execute("SELECT id FROM pgjobs.delete(%s)", [ids])] == ids


def test_within_an_open_transaction_it_rolls_back_with_it(jobs: PgJobs, database_url: str) -> None:
    job = jobs.task(name="work")(lambda: 1).enqueue()
    with psycopg.connect(database_url) as app:
        app.execute("SELECT pgjobs.cancel(%s)", [[job.id]])
        app.rollback()
    assert job.refresh().status is Status.QUEUED


# -- running jobs


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is not told of a cancellation does not look for a minute."""
    monkeypatch.setattr(claimer, "STOPS_S", 60.0)


def test_running_coroutine_is_stopped_at_once(told: None, jobs: PgJobs) -> None:
    started, unwound = threading.Event(), threading.Event()

    @jobs.task
    async def wait() -> None:
        started.set()
        try:
            await asyncio.sleep(60)
        finally:
            unwound.set()

    with jobs.worker():
        job = wait.enqueue()
        assert started.wait(15)
        assert job.cancel("enough").status in {Status.RUNNING, Status.CANCELLED}, "it may have stopped by then"
        eventually(lambda: job.refresh().status.ended, timeout_s=10)
    assert (stands(job), job.attempt, unwound.is_set()) == (("cancelled", "enough"), 1, True)


def test_new_run_is_not_stopped_in_place_of_a_former_one(jobs: PgJobs) -> None:
    """Which goes on after its end was recorded, under a claim that is not the job's any more."""
    runs: list[str] = []

    def end_within_a_transaction() -> None:
        with jobs.database.connect("app") as app, app.transaction():
            current_job().complete(app)

    @jobs.task
    async def work() -> str:
        runs.append("began")
        if len(runs) == 1:
            await asyncio.to_thread(end_within_a_transaction)
            await asyncio.sleep(60)
        await asyncio.sleep(2 * STOPS_S)
        return "anew"

    with jobs.worker(shutdown_timeout=0):
        job = work.enqueue()
        eventually(lambda: job.refresh().status is Status.SUCCEEDED)
        job.retry()
        assert job.get(20) == "anew"


def test_running_thread_is_asked(told: None, jobs: PgJobs) -> None:
    started = threading.Event()

    @jobs.task
    def work() -> None:
        started.set()
        while not current_job().is_cancelled:
            time.sleep(0.01)
        raise Cancel("as you like")

    with jobs.worker():
        job = work.enqueue()
        assert started.wait(15)
        job.cancel("enough")
        eventually(lambda: job.refresh().status.ended, timeout_s=10)
    assert stands(job) == ("cancelled", "enough")


@pytest.mark.parametrize("is_async", [False, True])
def test_stop_is_noticed_though_the_notification_is_missed(
    is_async: bool, jobs: PgJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgjobs.worker.claiming.claimer.Claimer.hint_stops", lambda self: None)
    started = threading.Event()

    def work() -> None:
        started.set()
        while not current_job().is_cancelled:
            time.sleep(0.01)

    async def awork() -> None:
        started.set()
        await asyncio.sleep(60)

    with jobs.worker():
        job = jobs.task(name="work")(awork if is_async else work).enqueue()
        assert started.wait(15)
        job.cancel()
        eventually(lambda: job.refresh().status.ended, timeout_s=3)
    assert job.status is (Status.CANCELLED if is_async else Status.SUCCEEDED), "a thread may finish all the same"


def test_job_that_waits_for_a_slot_is_cancelled_unrun(jobs: PgJobs) -> None:
    gate, ran = threading.Event(), []

    @jobs.task
    def work(i: int) -> None:
        ran.append(i)
        if i == 0:
            gate.wait(10)

    with jobs.worker(concurrency=1) as worker:
        quick = work.enqueue_many([(i,) for i in range(1, 50)])  # fills the buffer of one that is fast
        for job_id in quick:
            jobs.job(job_id).get(15)
        first = work.enqueue(0)
        eventually(lambda: worker.begun() == [first.id])
        second = work.enqueue(100)
        second.cancel()
        eventually(lambda: second.refresh().status is Status.CANCELLED)  # while the first one still has the slot
        gate.set()
        first.get(15)
    assert stands(second)[0] == "cancelled"
    assert 100 not in ran


@pytest.mark.parametrize("ending", ["retry", "snooze"])
def test_job_cancelled_while_it_runs_is_not_tried_again(ending: str, jobs: PgJobs) -> None:
    started, go = threading.Event(), threading.Event()

    @jobs.task(retry=Retry(5, backoff=0))
    def work() -> None:
        started.set()
        go.wait(10)
        raise Snooze(0) if ending == "snooze" else ValueError("boom")

    with jobs.worker():
        job = work.enqueue()
        assert started.wait(15)
        job.cancel("enough")
        go.set()
        eventually(lambda: job.refresh().status.ended)
    assert stands(job) == ("cancelled", "enough")
    assert [failure.reason for failure in job.failures()] == ([] if ending == "snooze" else ["error"])


def test_job_cancelled_while_it_rests_is_not_tried_again(jobs: PgJobs) -> None:
    job = jobs.task(name="boom", retry=Retry(3, backoff=3600, jitter=False))(lambda: 1 / 0).enqueue()
    with jobs.worker():
        eventually(lambda: job.refresh().status is Status.SCHEDULED)
    assert job.cancel().status is Status.CANCELLED


def test_job_cancelled_while_it_runs_is_not_given_back(jobs: PgJobs) -> None:
    started = threading.Event()

    @jobs.task
    def work() -> None:
        started.set()
        while True:
            time.sleep(0.01)

    with jobs.worker() as worker:
        job = work.enqueue()
        assert started.wait(15)
        job.cancel("enough")
        worker.stop(0)
    assert stands(job) == ("cancelled", "enough")


def test_job_cancelled_while_it_runs_is_not_revived_when_its_worker_dies(
    put: Callable[[str], Job[Any]], jobs: PgJobs
) -> None:
    job = put("queued")
    link, worker = claim(job)
    job.cancel("enough")
    link.one(statements.declare_dead([worker]))
    link.one(statements.reap([worker], [job.id], 3, "gone"))
    link.close()
    assert stands(job) == ("cancelled", "enough")


def test_job_cancelled_while_it_runs_is_not_revived_when_its_claim_gives_it_back(
    put: Callable[[str], Job[Any]], conn: psycopg.Connection[Any]
) -> None:
    job = put("queued")
    link, _ = claim(job)
    job.cancel("enough")
    ((claim_id,),) = conn.execute("SELECT claim_id FROM pgjobs.jobs").fetchall()
    assert link.one(statements.release([claim_id], [job.id])).ids == [job.id]
    link.close()
    assert stands(job) == ("cancelled", "enough")


def test_success_in_the_applications_transaction_wins_over_a_cancel(jobs: PgJobs) -> None:
    started, go = threading.Event(), threading.Event()

    @jobs.task
    def charge() -> None:
        with Session(engine) as session, session.begin():
            current_job().complete(session, "charged")
            started.set()
            go.wait(10)

    with engine_of(jobs) as engine, jobs.worker():
        job = charge.enqueue()
        assert started.wait(15)
        asking = threading.Thread(target=jobs.cancel, args=([job],))
        asking.start()  # it waits for the row, which the application holds
        time.sleep(0.2)
        assert asking.is_alive()
        go.set()
        asking.join(5)
        eventually(lambda: job.refresh().status.ended)
    assert (job.status, job.result) == (Status.SUCCEEDED, "charged")


def test_deleted_job_that_runs_is_stopped_and_recorded_nowhere(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    started, unwound = threading.Event(), threading.Event()

    @jobs.task
    async def wait() -> None:
        started.set()
        try:
            await asyncio.sleep(60)
        finally:
            unwound.set()

    with jobs.worker():
        job = wait.enqueue()
        assert started.wait(15)
        job.delete()
        assert unwound.wait(0.9)
        eventually(lambda: conn.execute("SELECT count(*) FROM pgjobs.claims").fetchone() == (0,))
    assert conn.execute("SELECT count(*) FROM pgjobs.jobs").fetchone() == (0,)
