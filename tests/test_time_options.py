"""What a job's times do: a ttl and what follows it, a deadline, a soft timeout."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from pgjobs import JobFailedError, OptionError, PgJobs, Retry, Snooze, SoftTimeoutError, Status, current_job
from tests.apps import times
from tests.support import eventually

pytestmark = pytest.mark.server


def drain(jobs: PgJobs) -> None:
    jobs.worker(burst=True).run()


def look_on(jobs: PgJobs, until: Callable[[], object]) -> None:
    """Runs a worker that takes none of the jobs, but does its duties."""
    with jobs.worker(queues="another"):
        eventually(until)


# -- ttl


@pytest.mark.parametrize(("on_expiry", "status"), [("expire", Status.EXPIRED), ("fail", Status.FAILED)])
def test_job_that_waits_too_long_ends_as_it_asks_for(on_expiry: Any, status: Status, jobs: PgJobs) -> None:
    task = jobs.task(name="t", on_expiry=on_expiry)(lambda: 1)
    waits = task.using(ttl="10ms").enqueue()
    delayed = task.using(ttl="10ms", run_at=datetime.now(UTC) + timedelta(hours=1)).enqueue()
    many = task.using(ttl="10ms").enqueue_many([()] * 3)
    look_on(jobs, lambda: all(jobs.job(job_id).status.ended for job_id in (waits.id, delayed.id, *many)))
    for job_id in (waits.id, delayed.id, *many):
        job = jobs.job(job_id)
        assert (job.status, job.reason, job.attempt) == (status, "ttl passed", 0)
        failures = [failure.reason for failure in job.failures()]
        assert failures == (["ttl passed"] if status is Status.FAILED else [])
    with pytest.raises(JobFailedError, match="ttl passed"):
        waits.get(1)


def test_job_that_failed_of_its_ttl_can_be_retried(jobs: PgJobs) -> None:
    job = jobs.task(name="t", ttl="10ms", on_expiry="fail")(lambda: "done").enqueue()
    look_on(jobs, lambda: job.refresh().status.ended)
    assert job.retry().status is Status.QUEUED
    drain(jobs)
    assert job.get(0) == "done"


def test_job_may_run_late_and_knows_it(jobs: PgJobs) -> None:
    task = jobs.task(name="t", on_expiry="run", ttl="1ms")(lambda: current_job().is_late)
    late, early, neither = (
        task.enqueue(),
        task.using(ttl="1h").enqueue(),
        task.using(on_expiry="fail", ttl="1h").enqueue(),
    )
    many = task.enqueue_many([()] * 1_000)
    time.sleep(0.01)
    drain(jobs)
    assert [late.get(0), early.get(0), neither.get(0)] == [True, False, False]
    assert jobs.job(many[-1]).result is True
    assert late.row.expires_at is None


# -- in a process of its own


@pytest.fixture
def app(jobs: PgJobs) -> PgJobs:
    """The tasks of the process executor, in the test's database."""
    for task in times.jobs.tasks.values():
        jobs.task(name=task.name, executor=task.executor, throws=task.throws, **task.options)(task.function)
    return jobs


@pytest.mark.slow
def test_process_keeps_the_times_too(app: PgJobs) -> None:
    tasks = {name.rpartition(".")[2]: task for name, task in app.tasks.items()}
    late, early = tasks["late"].using(ttl="1ms").enqueue(), tasks["late"].using(ttl="1h").enqueue()
    told = [tasks[name].enqueue(True) for name in ("works", "waits")]
    uncaught = [tasks[name].using(retry=1).enqueue(False) for name in ("works", "waits")]
    failed = tasks["fails"].enqueue()
    time.sleep(0.01)
    with app.worker(concurrency=2):
        assert (late.get(60), early.get(60)) == (True, False)
        assert [job.get(60) for job in told] == ["cleaned up"] * 2
        for job in (*uncaught, failed):
            with pytest.raises(JobFailedError):
                job.get(60)
    assert [job.refresh().reason for job in uncaught] == ["soft timeout"] * 2
    assert (failed.refresh().reason, failed.attempt) == ("deadline passed", 1)


# -- deadline


def test_no_attempt_starts_after_the_deadline(jobs: PgJobs) -> None:
    ran: list[str] = []
    task = jobs.task(name="t", deadline="10ms")(ran.append)
    waits, delayed = task.enqueue("no"), task.using(deadline="50ms", delay="20ms", queue="other").enqueue("no")
    time.sleep(0.06)
    drain(jobs)
    look_on(jobs, lambda: waits.refresh().status.ended and delayed.refresh().status.ended)
    for job in (waits, delayed):
        assert (job.status, job.reason) == (Status.FAILED, "deadline passed")
        assert len(job.failures()) == 1
    assert not ran


def test_attempt_that_got_its_slot_too_late_does_not_start(jobs: PgJobs, conn: psycopg.Connection) -> None:
    """Enqueued by SQL, without expires_at, so that it is claimed."""
    jobs.task(name="t")(lambda: 1)
    conn.execute(
        "INSERT INTO pgjobs.jobs (task, options, created_at)"
        """ VALUES ('t', '{"deadline": 60}', now() - interval '1 hour')"""
    )
    drain(jobs)
    rows = conn.execute("SELECT status, reason, attempt FROM pgjobs.jobs").fetchall()
    assert rows == [("failed", "deadline passed", 0)]


@pytest.mark.parametrize("is_async", [False, True])
def test_timeout_is_cut_to_what_is_left_until_the_deadline(is_async: bool, jobs: PgJobs) -> None:
    def endless() -> None:
        while True:
            time.sleep(0.005)

    async def sleeps() -> None:
        await asyncio.sleep(60)

    task = jobs.task(name="t", deadline=1, retry=Retry(5, 0))(sleeps if is_async else endless)
    started = time.monotonic()
    with jobs.worker(), pytest.raises(JobFailedError):
        (job := task.enqueue()).get(15)
    assert time.monotonic() - started < 10
    assert (job.refresh().status, job.reason, job.attempt) == (Status.FAILED, "deadline passed", 1)


def test_retry_that_would_start_after_the_deadline_is_not_made(jobs: PgJobs) -> None:
    @jobs.task(deadline="1h", retry=Retry(5, [0, 7200], jitter=False))
    def fails() -> None:
        raise ValueError("no")

    job = fails.enqueue()
    drain(jobs)
    eventually(lambda: drain(jobs) or job.refresh().status.ended)
    assert (job.status, job.reason, job.attempt) == (Status.FAILED, "deadline passed", 2)
    assert [failure.exception for failure in job.failures()] == ["ValueError"] * 2


def test_job_knows_its_deadline(jobs: PgJobs) -> None:
    seen: list[tuple[datetime | None, datetime, float | None]] = []

    @jobs.task
    def look() -> None:
        job = current_job()
        seen.append((job.deadline, job.created_at, job.remaining_s))

    look.using(deadline="2h", timeout=None).enqueue()
    look.enqueue()
    jobs.worker(burst=True, concurrency=1).run()
    (deadline, created_at, remaining_s), (none, _, _) = seen
    assert deadline == created_at + timedelta(hours=2) > datetime.now(UTC)
    assert 7100 < (remaining_s or 0) < 7200
    assert none is None


def test_deadline_counts_no_more_when_somebody_retries(jobs: PgJobs) -> None:
    job = jobs.task(name="t", deadline="10ms")(lambda: "done").enqueue()
    look_on(jobs, lambda: job.refresh().status.ended)
    job.retry()
    drain(jobs)
    assert job.get(0) == "done"


def test_snooze_beyond_the_deadline_fails_at_it(jobs: PgJobs) -> None:
    @jobs.task(deadline=0.5)
    def sleepy() -> None:
        raise Snooze("1h")

    job = sleepy.enqueue()
    drain(jobs)
    assert job.refresh().reason == "snoozed"
    look_on(jobs, lambda: job.refresh().status.ended)
    assert (job.status, job.reason) == (Status.FAILED, "deadline passed")


def test_options_of_any_shape_stop_nobody(jobs: PgJobs, conn: psycopg.Connection) -> None:
    task = jobs.task(name="t")(lambda: 1)
    for text in (
        '"deadline"',
        '["late"]',
        '{"deadline": "soon"}',
        '{"late": {}}',
        '{"soft_timeout": -1}',
        '{"deadline": 1e300}',
    ):
        conn.execute(
            "INSERT INTO pgjobs.jobs (task, options, expires_at) VALUES ('t', %s, now() + interval '0.3 s')", [text]
        )
    good = task.enqueue()
    with jobs.worker():
        assert good.get(10) == 1
        eventually(
            lambda: (
                not conn.execute(
                    "SELECT FROM pgjobs.jobs"
                    " WHERE expires_at < now() - interval '3 s' AND status IN ('queued', 'scheduled')"
                ).fetchall()
            )
        )


# -- soft timeout


def test_thread_is_told_and_may_return(jobs: PgJobs) -> None:
    @jobs.task(soft_timeout=0.1, timeout=30)
    def works(catches: bool) -> str:
        try:
            while True:
                time.sleep(0.005)
        except SoftTimeoutError:
            if not catches:
                raise
            return "cleaned up"

    with jobs.worker():
        good, bad = works.enqueue(True), works.using(retry=1).enqueue(False)
        assert good.get(15) == "cleaned up"
        with pytest.raises(JobFailedError, match="soft timeout"):
            bad.get(15)
    assert (bad.refresh().status, bad.reason) == (Status.FAILED, "soft timeout")
    assert "works" in (bad.failures()[0].traceback or "")


def test_thread_that_goes_on_has_its_hard_timeout(jobs: PgJobs) -> None:
    told: list[type[BaseException]] = []

    @jobs.task(soft_timeout=0.1, timeout=0.4, retry=1)
    def stubborn() -> None:
        for _ in range(2):
            try:
                while True:
                    time.sleep(0.005)
            except TimeoutError as error:
                told.append(type(error))

    with jobs.worker(), pytest.raises(JobFailedError):
        (job := stubborn.enqueue()).get(15)
    assert job.refresh().reason == "timeout"
    assert [kind.__name__ for kind in told] == ["SoftTimeoutError", "TimeoutExceededError"]


@pytest.mark.parametrize("form", ["sleep", "gather", "wait_for", "timeout", "queue"])
def test_coroutine_is_told_where_it_waits(form: str, jobs: PgJobs) -> None:
    stopped: list[str] = []

    async def child() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            stopped.append("child")
            raise

    async def waits() -> None:
        match form:
            case "gather":
                await asyncio.gather(child(), child())
            case "wait_for":
                await asyncio.wait_for(child(), 60)
            case "timeout":
                async with asyncio.timeout(60):
                    await child()
            case "queue":
                await asyncio.Queue[int]().get()
            case _:
                await asyncio.sleep(60)

    @jobs.task(soft_timeout=0.1, timeout=30)
    async def works() -> str:
        try:
            await waits()
        except SoftTimeoutError:
            await asyncio.sleep(0.01)
            task = asyncio.current_task()
            assert task is not None
            return f"cleaned up, {task.cancelling()} cancellations"
        return "was not told"

    with jobs.worker():
        assert works.enqueue().get(15) == "cleaned up, 0 cancellations"
    # From Python 3.12 wait_for runs what it waits for in the task itself, which is told and not cancelled.
    tasks = {"gather": 2, "wait_for": int(sys.version_info < (3, 12))}
    assert stopped == ["child"] * tasks.get(form, 0)


def test_task_group_stops_its_children_first(jobs: PgJobs) -> None:
    stopped: list[int] = []

    async def child(i: int) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            stopped.append(i)

    @jobs.task(soft_timeout=0.1, retry=1)
    async def works() -> None:
        async with asyncio.TaskGroup() as group:
            for i in range(3):
                group.create_task(child(i))

    with jobs.worker():
        job = works.enqueue()
        with pytest.raises(JobFailedError, match="soft timeout"):
            job.get(15)
        assert sorted(stopped) == [0, 1, 2], "before the attempt ends, and not when the worker does"
    assert job.refresh().reason == "soft timeout"


def test_coroutine_that_does_not_catch_it_has_failed(jobs: PgJobs) -> None:
    @jobs.task(soft_timeout=0.1, retry=Retry(2, 0))
    async def works() -> None:
        await asyncio.sleep(60)

    with jobs.worker(), pytest.raises(JobFailedError, match=r"soft timeout of 0\.1 s"):
        (job := works.enqueue()).get(15)
    assert [failure.reason for failure in job.failures()] == ["soft timeout"] * 2


def test_hard_stops_are_what_they_were_beside_a_soft_one(jobs: PgJobs) -> None:
    begun, seen = threading.Event(), []

    @jobs.task(soft_timeout=60)
    async def works() -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        except BaseException as error:
            seen.append(type(error))
            raise

    with jobs.worker():
        job = works.enqueue()
        assert begun.wait(10)
        job.cancel()
        eventually(lambda: job.refresh().status is Status.CANCELLED)
    with jobs.worker(shutdown_timeout=0):
        begun.clear()
        given_back = works.enqueue()
        assert begun.wait(10)
    assert given_back.refresh().status is Status.QUEUED
    assert seen == [asyncio.CancelledError] * 2


def test_code_that_ends_just_when_it_would_be_told_hits_nobody_else(jobs: PgJobs) -> None:
    @jobs.task(soft_timeout=0.02, retry=1)
    def close_shave(i: int) -> int:
        end = time.perf_counter() + 0.0195 + (i % 10) * 0.0001
        while time.perf_counter() < end:
            pass
        return i

    innocent = jobs.task(name="innocent")(lambda i: sum(range(2_000)) and i)
    with jobs.worker(concurrency=2):
        shaves = close_shave.enqueue_many([(i,) for i in range(60)])
        others = innocent.enqueue_many([(i,) for i in range(300)])
        assert {job.status for job in jobs.wait(others, 30)} == {Status.SUCCEEDED}
        ended = jobs.wait(shaves, 30)
    assert {(job.status, job.reason) for job in ended} <= {(Status.SUCCEEDED, None), (Status.FAILED, "soft timeout")}


# -- what cannot be meant


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ({"on_expiry": "explode"}, "give 'expire', 'fail' or 'run'"),
        ({"deadline": 0}, "deadline is 0"),
        ({"deadline": "1h", "delay": "2h"}, "give a longer deadline"),
        ({"ttl": "1h", "delay": "1h"}, "give a longer ttl"),
        ({"ttl": "3h", "deadline": "1h", "delay": "2h"}, "give a longer deadline"),
        ({"soft_timeout": 60, "timeout": 60}, "give a shorter one"),
        ({"soft_timeout": "2h"}, "give a shorter one"),
        ({"soft_timeout": 0}, "soft_timeout is 0"),
    ],
)
def test_times_that_cannot_be_meant_are_refused(options: Any, remedy: str, jobs: PgJobs) -> None:
    task = jobs.task(name="t")(lambda: 1)
    with pytest.raises(OptionError, match=remedy):
        task.using(**options)
    with pytest.raises(OptionError, match=remedy):
        jobs.task(name="u", **options)(lambda: 1)


def test_usual_job_has_no_options(jobs: PgJobs) -> None:
    assert jobs.task(name="t", on_expiry="expire", ttl="1h")(lambda: 1).enqueue().row.options is None
