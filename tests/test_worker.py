"""The life of a job in a worker: success, retry, failure, expiry, timeout, result, and leaving."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import sys
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from pgjobs import (
    Cancel,
    EncodingError,
    Job,
    JobFailedError,
    JobStateError,
    JobSucceeded,
    NoCurrentJobError,
    OptionError,
    PgJobs,
    ResultTimeoutError,
    Retry,
    RetryLater,
    Snooze,
    Status,
    current_job,
    statements,
)
from pgjobs.events import Event, Recorded, Unrunnable
from pgjobs.job import new_id
from pgjobs.statements import Range
from pgjobs.worker.claiming import pace
from tests.support import eventually

pytestmark = pytest.mark.server

NOW = Retry(max_attempts=3, backoff=0)


def drain(jobs: PgJobs, **settings: Any) -> None:
    """Runs what is queued, and what is retried at once."""
    jobs.worker(burst=True, **settings).run()


def seen(condition: Any) -> None:
    eventually(condition, timeout_s=8)


def add(a: int, b: int) -> int:
    return a + b


async def aadd(a: int, b: int) -> int:
    await asyncio.sleep(0)
    return a + b


# -- success


@pytest.mark.parametrize("function", [add, aadd])
def test_result_stands_on_the_row(function: Any, jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    task = jobs.task(function)
    job = task.enqueue(1, 2)
    drain(jobs)
    row = job.refresh().row
    assert (row.status, row.result, row.attempt, row.reason) == (Status.SUCCEEDED, 3, 1, None)
    assert row.started_at is not None
    assert row.finished_at is not None
    assert row.created_at <= row.started_at <= row.finished_at
    assert job.get(timeout=1) == 3
    assert conn.execute("SELECT count(*) FROM pgjobs.claims").fetchone() == (0,)
    assert conn.execute("SELECT status, sum(jobs)::int FROM pgjobs.rollups GROUP BY status").fetchall() == [
        ("succeeded", 1)
    ]


@pytest.mark.parametrize("value", [None, 0, "", [], {"a": [1, None, "ü"]}, 1.5, True])
def test_result_comes_back_as_it_was(value: Any, jobs: PgJobs) -> None:
    @jobs.task
    def give() -> Any:
        return value

    job = give.enqueue()
    drain(jobs)
    assert job.get(timeout=1) == value


async def test_worker_of_the_same_process_answers_async_callers(jobs: PgJobs) -> None:
    task = jobs.task(aadd)
    async with jobs.worker():
        assert await (await task.aenqueue(1, 2)).aget(timeout=15) == 3
    await jobs.aclose()


def test_jobs_of_one_queue_start_in_order(jobs: PgJobs) -> None:
    order: list[int] = []

    @jobs.task
    def note(i: int) -> None:
        order.append(i)

    for start in range(0, 60, 20):
        note.enqueue_many([(i,) for i in range(start, start + 20)])
    drain(jobs, concurrency=1)
    assert order == list(range(60))


def test_larger_priority_runs_first(jobs: PgJobs) -> None:
    order: list[int] = []

    @jobs.task
    def note(priority: int) -> None:
        order.append(priority)

    for priority in (0, -5, 10, 3, 0):
        note.using(priority=priority).enqueue(priority)
    drain(jobs, concurrency=1, queues="default")
    assert order == [10, 3, 0, 0, -5]


@pytest.mark.parametrize(
    ("queues", "order"),
    [
        ("b,a", ["b", "b", "a"]),
        (["a", "b"], ["a", "b", "b"]),
        ("mail.*,a", ["mail.in", "mail.out", "a"]),
        ("a", ["a"]),
    ],
)
def test_queues_are_served_in_the_order_written(queues: Any, order: list[str], jobs: PgJobs) -> None:
    done: list[str] = []

    @jobs.task
    def note() -> None:
        done.append(current_job().queue)

    for queue in ("mail.in", "b", "a", "mail.out", "b"):
        note.using(queue=queue).enqueue()
    drain(jobs, concurrency=1, queues=queues)
    assert done == order


def test_weights_share_a_worker_between_queues(jobs: PgJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are drawn claim by claim: here each claim takes one job."""
    monkeypatch.setattr("pgjobs.worker.claiming.slots.BUFFER_S", 0.0)
    done: list[str] = []

    @jobs.task
    def note() -> None:
        done.append(current_job().queue)
        time.sleep(0.001)

    for queue in ("often", "seldom"):
        note.using(queue=queue).enqueue_many([()] * 150)
    drain(jobs, concurrency=1, queues="often:4,seldom:1")
    assert len(done) == 300
    assert 20 <= done[:150].count("seldom") <= 75


def test_concurrency_bounds_what_runs_at_once(jobs: PgJobs) -> None:
    running, peak = 0, 0
    lock = threading.Lock()

    def step() -> None:
        nonlocal running, peak
        with lock:
            running += 1
            peak = max(peak, running)

    def leave() -> None:
        nonlocal running
        with lock:
            running -= 1

    @jobs.task
    def threaded() -> None:
        step()
        time.sleep(0.01)
        leave()

    @jobs.task
    async def looped() -> None:
        step()
        await asyncio.sleep(0.01)
        leave()

    threaded.enqueue_many([()] * 30)
    looped.enqueue_many([()] * 30)
    drain(jobs, concurrency=5)
    assert peak == 5


def test_job_starts_while_the_worker_waits(jobs: PgJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "POLL_S", 60.0)
    task = jobs.task(aadd)
    with jobs.worker():
        for _ in range(3):
            time.sleep(0.6)  # its looks in quick succession are over
            assert task.enqueue(1, 2).get(timeout=20) == 3, "a notification wakes it; the next look is a minute away"


def test_worker_stays_known_as_idle_where_jobs_come_one_by_one(
    jobs: PgJobs, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever enqueues tells only those whose flag is fresh; without it each job waits for the next look."""
    monkeypatch.setattr(pace, "FLAG_S", 0.3)
    work = jobs.task(name="work")(lambda: None)
    with jobs.worker():
        work.enqueue().get(timeout=10)
        eventually(lambda: conn.execute("SELECT count(*) FROM pgjobs.idlers").fetchone() == (1,))
        time.sleep(0.5)
        for _ in range(40):
            time.sleep(0.05)
            work.enqueue().get(timeout=10)
            (age,) = conn.execute(
                "SELECT extract(epoch FROM now() - min(seen_at))::float8 FROM pgjobs.idlers"
            ).fetchone() or (0,)
            assert age < 1.5


def test_scheduled_job_starts_when_it_is_due(jobs: PgJobs) -> None:
    task = jobs.task(aadd)
    with jobs.worker():
        job = task.using(delay=0.3).enqueue(1, 2)
        job.get(timeout=15)
    row = job.row
    assert row.started_at is not None
    late = row.started_at - row.created_at - timedelta(seconds=0.3)
    assert timedelta(0) <= late < timedelta(seconds=0.5)


def test_every_run_has_a_context_of_its_own(jobs: PgJobs) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="clean")
    found: list[str] = []

    @jobs.task
    def threaded() -> None:
        found.append(variable.get())
        variable.set("spoilt")

    @jobs.task
    async def looped() -> None:
        found.append(variable.get())
        variable.set("spoilt")

    threaded.enqueue_many([()] * 5)
    looped.enqueue_many([()] * 5)
    drain(jobs, concurrency=1)
    assert found == ["clean"] * 10


# -- current_job


def test_job_knows_itself(jobs: PgJobs) -> None:
    @jobs.task(queue="mail", timeout=60, retry=NOW)
    def look(extra: str) -> dict[str, Any]:
        job = current_job()
        assert job.remaining_s is not None
        assert 50 < job.remaining_s <= 60
        return {"id": str(job.id), "task": job.task, "queue": job.queue, "attempt": job.attempt, "args": job.args}

    job = look.enqueue("x")
    drain(jobs)
    assert job.get(1) == {
        "id": str(job.id),
        "task": look.name,
        "queue": "mail",
        "attempt": 1,
        "args": {"extra": "x"},
    }


def test_outside_a_job_there_is_none() -> None:
    with pytest.raises(NoCurrentJobError, match="task's own thread"):
        current_job()


# -- failure and retry


@pytest.mark.parametrize("is_async", [False, True], ids=["thread", "async"])
def test_failed_attempts_are_tried_again_and_written_down(is_async: bool, jobs: PgJobs) -> None:
    tries: list[int] = []

    def attempt() -> str:
        tries.append(current_job().attempt)
        if len(tries) < 3:
            raise ValueError(f"try {len(tries)}")
        return "at last"

    async def aattempt() -> str:
        return attempt()

    job: Job[Any] = jobs.task(retry=NOW, name="flaky")(aattempt if is_async else attempt).enqueue()
    with jobs.worker():
        assert job.get(timeout=15) == "at last"
    assert tries == [1, 2, 3]
    failures = job.failures()
    assert [(f.attempt, f.reason, f.exception, f.message) for f in failures] == [
        (1, "error", "ValueError", "try 1"),
        (2, "error", "ValueError", "try 2"),
    ]
    assert "in attempt" in (failures[0].traceback or "")
    assert "pgjobs/worker" not in (failures[0].traceback or ""), "the user's frames alone"
    assert failures[0].fingerprint == failures[1].fingerprint


def test_job_whose_attempts_are_used_up_is_failed(jobs: PgJobs) -> None:
    @jobs.task(retry=NOW)
    def boom() -> None:
        raise RuntimeError("no\0way \ud800")

    job = boom.enqueue()
    with jobs.worker(), pytest.raises(JobFailedError, match=r"RuntimeError: no\\0way \\ud800") as caught:
        job.get(timeout=15)
    assert (job.refresh().status, job.attempt, job.reason) == (Status.FAILED, 3, "error")
    assert "raise RuntimeError" in (caught.value.remote_traceback or "")
    assert len(job.failures()) == 3


def test_rests_follow_the_policy(jobs: PgJobs) -> None:
    @jobs.task(retry=Retry(backoff=[0, 100], jitter=False))
    def boom() -> None:
        raise ValueError

    job = boom.enqueue()
    with jobs.worker():
        seen(lambda: job.refresh().attempt == 2 and job.status is Status.SCHEDULED)
    due = job.row.due_at
    assert due is not None
    assert 95 < (due - datetime.now(UTC)).total_seconds() <= 100


@pytest.mark.parametrize(
    ("policy", "attempts"),
    [
        (Retry(3, backoff=0, not_on=(KeyError,)), 1),
        (Retry(3, backoff=0, on=(LookupError,)), 3),
        (Retry(3, backoff=0, on=(OSError,)), 1),
        (Retry(1), 1),
    ],
)
def test_policy_says_what_is_worth_another_attempt(policy: Retry, attempts: int, jobs: PgJobs) -> None:
    @jobs.task(retry=policy)
    def boom() -> None:
        raise KeyError("x")

    job = boom.enqueue()
    with jobs.worker():
        seen(lambda: job.refresh().status is Status.FAILED)
    assert job.attempt == attempts


def test_policy_of_the_call_is_kept_with_the_job(jobs: PgJobs) -> None:
    @jobs.task
    def boom() -> None:
        raise ValueError

    job = boom.using(retry=Retry(2, backoff=0)).enqueue()
    with jobs.worker():
        seen(lambda: job.refresh().status is Status.FAILED)
    assert job.attempt == 2


def test_retry_later_says_when_and_counts(jobs: PgJobs) -> None:
    @jobs.task(retry=Retry(2, backoff=1000))
    def later() -> None:
        raise RetryLater(0, "not yet")

    job = later.enqueue()
    with jobs.worker():
        seen(lambda: job.refresh().status is Status.FAILED)
    assert [f.message for f in job.failures()] == ["not yet", "not yet"]


def test_snooze_burns_no_attempt(jobs: PgJobs) -> None:
    rounds: list[int] = []

    @jobs.task(retry=1)
    def nap() -> None:
        rounds.append(current_job().attempt)
        if len(rounds) < 4:
            raise Snooze(0)

    job = nap.enqueue()
    with jobs.worker():
        job.get(timeout=15)
    assert (rounds, job.failures()) == ([1, 1, 1, 1], [])


def test_job_may_cancel_itself(jobs: PgJobs) -> None:
    @jobs.task
    def stop() -> None:
        raise Cancel("no such user")

    job = stop.enqueue()
    with jobs.worker(), pytest.raises(JobFailedError, match="cancelled: no such user"):
        job.get(timeout=15)
    assert job.refresh().status is Status.CANCELLED


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, "\0", "\ud800", "x" * 1_000_001])
def test_result_that_cannot_be_stored_fails_the_job_without_running_it_again(value: Any, jobs: PgJobs) -> None:
    @jobs.task(retry=NOW)
    def give() -> Any:
        return value

    job = give.enqueue()
    with jobs.worker():
        seen(lambda: job.refresh().status.ended)
    assert (job.status, job.reason, job.attempt) == (Status.FAILED, "unstorable result", 1)
    assert job.failures()[0].exception == f"{EncodingError.__module__}.EncodingError"


def test_exception_that_cannot_be_shown_is_a_failure_like_any_other(jobs: PgJobs) -> None:
    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    @jobs.task(retry=1)
    def boom() -> None:
        raise Broken

    job = boom.enqueue()
    drain(jobs)
    assert job.refresh().status is Status.FAILED


def test_exit_in_a_task_ends_the_attempt_and_not_the_worker(jobs: PgJobs) -> None:
    @jobs.task(retry=1)
    def leave() -> None:
        raise SystemExit(3)

    @jobs.task(retry=1)
    async def aleave() -> None:
        raise KeyboardInterrupt

    ended = [leave.enqueue(), aleave.enqueue()]
    task = jobs.task(add)
    with jobs.worker(concurrency=1):
        for job in ended:
            seen(lambda job=job: job.refresh().status is Status.FAILED)
        assert task.enqueue(1, 2).get(timeout=15) == 3


def test_failed_job_can_be_retried_by_hand(jobs: PgJobs) -> None:
    fail = True

    @jobs.task(retry=1)
    def sometimes() -> str:
        if fail:
            raise ValueError
        return "fine"

    job = sometimes.enqueue()
    with pytest.raises(JobStateError, match="queued"):
        job.retry()
    with jobs.worker():
        seen(lambda: job.refresh().status is Status.FAILED)
        fail = False
        assert job.retry().attempt in (0, 1)
        assert job.get(timeout=15) == "fine"
    assert len(job.failures()) == 1, "failures are kept"


# -- timeouts


def test_coroutine_over_its_timeout_is_stopped(jobs: PgJobs) -> None:
    unwound = threading.Event()

    @jobs.task(timeout=0.1, retry=1)
    async def endless() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            unwound.set()

    quick = jobs.task(timeout=5)(aadd)
    job = endless.enqueue()
    with jobs.worker(concurrency=2):
        seen(lambda: job.refresh().status is Status.FAILED)
        assert quick.enqueue(1, 2).get(timeout=15) == 3
    assert unwound.is_set()
    failure = job.failures()[0]
    assert failure.reason == "timeout"
    assert "0.1 s" in (failure.message or "")


def test_coroutine_that_swallows_the_stop_has_timed_out_all_the_same(jobs: PgJobs) -> None:
    @jobs.task(timeout=0.1, retry=1)
    async def stubborn() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "done"
        return "never"

    job = stubborn.enqueue()
    with jobs.worker():
        seen(lambda: job.refresh().status is Status.FAILED)
    assert job.failures()[0].reason == "timeout"


# -- ttl and pruning


def test_waiting_job_expires_though_nobody_subscribes_to_its_queue(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    task = jobs.task(add)
    late = [
        task.using(queue="nobody", ttl=0.2).enqueue(1, 2),
        task.using(queue="nobody", ttl=0.2, run_at=datetime.now(UTC) + timedelta(minutes=1)).enqueue(1, 2),
    ]
    kept = task.using(queue="nobody", ttl=60).enqueue(1, 2)
    with jobs.worker(queues="other"):
        for job in late:
            seen(lambda job=job: job.refresh().status is Status.EXPIRED)
            with pytest.raises(JobFailedError, match="expired"):
                job.get(timeout=1)
    assert kept.refresh().status is Status.QUEUED
    assert conn.execute("SELECT sum(jobs)::int FROM pgjobs.rollups WHERE status = 'expired'").fetchone() == (2,)


def test_expired_job_is_not_claimed_before_the_reaper_comes(jobs: PgJobs) -> None:
    ran: list[int] = []

    @jobs.task(ttl=0.05)
    def note() -> None:
        ran.append(1)

    note.enqueue()
    time.sleep(0.1)
    drain(jobs)
    assert ran == []


def test_ended_jobs_are_pruned_when_their_time_is_over(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    conn.execute("""
        INSERT INTO pgjobs.jobs (id, task, status, position, created_at, finished_at, options)
        SELECT overlay(gen_random_uuid()::text
                       PLACING substr(hex, 1, 8) || '-' || substr(hex, 9, 4) || '-7' FROM 1 FOR 15)::uuid,
               name, status, NULL, at, at, options::jsonb
          FROM (VALUES ('old success', 'succeeded', 2, NULL), ('new success', 'succeeded', 0, NULL),
                       ('old failure', 'failed', 31, NULL), ('young failure', 'failed', 2, NULL),
                       ('kept longer', 'succeeded', 2, '{"keep": 864000}'),
                       ('kept shorter', 'cancelled', 0.5, '{"keep": 3600}'))
               AS job (name, status, days, options)
         CROSS JOIN LATERAL (SELECT now() - days * interval '1 day' AS at) AS time
         CROSS JOIN LATERAL (
             SELECT lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') AS hex) AS prefix
    """)
    conn.execute(
        "INSERT INTO pgjobs.failures (job_id, attempt, reason) SELECT id, 1, 'error' FROM pgjobs.jobs"
        " WHERE task LIKE '%failure'"
    )
    jobs.task(result_ttl=3600)(add)
    with jobs.worker():
        seen(lambda: conn.execute("SELECT state FROM pgjobs.duties WHERE name = 'prune'").fetchone() != (None,))
    left = {row[0] for row in conn.execute("SELECT task FROM pgjobs.jobs")}
    assert left == {"new success", "young failure", "kept longer"}
    assert conn.execute("SELECT count(*) FROM pgjobs.failures").fetchone() == (1,)


# -- unknown work


def test_job_of_an_unknown_task_waits_for_a_worker_that_has_it(jobs: PgJobs, database_url: str) -> None:
    job = jobs.enqueue("nobody.knows", "x")
    told: list[Event] = []
    other = PgJobs(database_url)
    with other.worker(emit=told.append):
        seen(lambda: job.refresh().status is Status.SCHEDULED)
    assert (job.attempt, job.reason, job.failures()) == (0, "unknown task", [])
    assert [event.task for event in told if isinstance(event, Unrunnable)] == ["nobody.knows"]

    @jobs.task(name="nobody.knows")
    def known(text: str) -> str:
        return text * 2

    with jobs.worker():
        assert job.get(timeout=8) == "xx"
    other.close()


def test_arguments_that_do_not_fit_any_more_send_the_job_back(jobs: PgJobs) -> None:
    @jobs.task(name="changed")
    def changed(new: int) -> int:
        return new

    job = jobs.using().enqueue("changed", new=1)
    with psycopg.connect(jobs.database.url, autocommit=True) as conn:
        conn.execute("""UPDATE pgjobs.jobs SET args = '{"old": 1}'""")
    with jobs.worker():
        seen(lambda: job.refresh().status is Status.SCHEDULED)
    assert "arguments do not fit" in (job.reason or "")


def test_no_row_makes_a_worker_import_a_module(jobs: PgJobs) -> None:
    import sys

    sys.modules.pop("antigravity", None)
    job = jobs.enqueue("antigravity:geohash", 1, 2, 3)
    with jobs.worker():
        seen(lambda: job.refresh().status is Status.SCHEDULED)
    assert "antigravity" not in sys.modules
    job = jobs.enqueue("os:system", "true")
    with jobs.worker():
        seen(lambda: job.refresh().status is Status.SCHEDULED)


def test_alias_runs_rows_of_a_former_name(jobs: PgJobs) -> None:
    job = jobs.enqueue("old.name", 1, 2)
    jobs.task(name="new.name", aliases=["old.name"])(add)
    drain(jobs)
    assert job.get(1) == 3


# -- waiting


def test_waiting_ends_in_time(jobs: PgJobs) -> None:
    job = jobs.task(add).enqueue(1, 2)
    with pytest.raises(ResultTimeoutError, match=r"still queued after 0\.1 s"):
        job.get(timeout=0.1)


# -- leaving


def test_burst_leaves_when_nothing_is_left(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    ids = jobs.task(aadd).enqueue_many([(i, i) for i in range(3_000)])
    drain(jobs)
    assert conn.execute("SELECT count(*) FROM pgjobs.jobs WHERE status = 'succeeded'").fetchone() == (len(ids),)
    assert conn.execute("SELECT count(*) FROM pgjobs.workers WHERE dead_at IS NULL").fetchone() == (0,)
    assert conn.execute("SELECT count(*) FROM pgjobs.idlers").fetchone() == (0,)
    assert conn.execute("SELECT count(*) FROM pgjobs.claims").fetchone() == (0,)


def test_max_jobs_is_exact(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    jobs.task(aadd).enqueue_many([(i, i) for i in range(100)])
    jobs.worker(max_jobs=37).run()
    assert conn.execute("SELECT status, count(*) FROM pgjobs.jobs GROUP BY 1 ORDER BY 1").fetchall() == [
        ("queued", 63),
        ("succeeded", 37),
    ]


def test_max_jobs_counts_no_job_that_was_given_back(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    """A worker whose first jobs were quick claims many ahead, and gives them back when a slow one comes."""
    jobs.task(name="quick")(lambda: None).enqueue_many([()] * 3)
    jobs.task(name="slow")(lambda: time.sleep(1.0)).enqueue_many([()] * 4)
    worker = jobs.worker(concurrency=1, max_jobs=6)
    worker.run()
    assert worker.done == 6
    ended = conn.execute("SELECT status, count(*)::int FROM pgjobs.jobs GROUP BY 1 ORDER BY 1").fetchall()
    assert ended == [("queued", 1), ("succeeded", 6)]


def test_max_jobs_waits_for_jobs_unless_it_is_a_burst(jobs: PgJobs) -> None:
    task = jobs.task(add)
    worker = jobs.worker(max_jobs=2)
    thread = threading.Thread(target=worker.run)
    thread.start()
    assert task.enqueue(1, 2).get(timeout=15) == 3
    thread.join(1.5)
    assert thread.is_alive()
    task.enqueue(1, 2)
    thread.join(5)
    assert not thread.is_alive()
    jobs.worker(max_jobs=2, burst=True).run()


def test_stop_lets_what_runs_finish_and_gives_the_rest_back(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    started = threading.Semaphore(0)
    go = threading.Event()

    @jobs.task
    def hold() -> None:
        started.release()
        go.wait(10)

    before = hold.enqueue_many([()] * 10)
    worker = jobs.worker(concurrency=2)
    worker.start()
    started.acquire()
    started.acquire()
    threading.Timer(0.3, go.set).start()
    worker.stop()
    rows = conn.execute("SELECT id, status, attempt FROM pgjobs.jobs ORDER BY position NULLS FIRST, id").fetchall()
    assert rows == [(job_id, "succeeded", 1) for job_id in before[:2]] + [
        (job_id, "queued", 0) for job_id in before[2:]
    ]
    assert conn.execute("SELECT count(*) FROM pgjobs.workers WHERE dead_at IS NULL").fetchone() == (0,)


def test_stop_waits_for_a_claim_that_is_on_its_way(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    """Its jobs would stay under a claim of somebody who has left, and be charged with his death."""

    @jobs.task
    def slowly(a: int, b: int) -> int:
        time.sleep(0.5)
        return a + b

    with jobs.worker() as worker, psycopg.connect(conn.info.dsn) as holder:
        assert slowly.enqueue(0, 0).get(timeout=8) == 0  # it knows the lane
        holder.execute("LOCK TABLE pgjobs.claims IN ACCESS EXCLUSIVE MODE")
        job = slowly.enqueue(1, 2)
        seen(lambda: conn.execute(WAITING).fetchone() == (1,))
        leaving = threading.Thread(target=worker.stop)
        leaving.start()
        time.sleep(0.3)
        assert leaving.is_alive()
        holder.rollback()
        leaving.join(10)
        assert not leaving.is_alive()
        assert job.refresh().status is Status.SUCCEEDED
        assert conn.execute("SELECT count(*) FROM pgjobs.claims").fetchone() == (0,)
    assert (job.result, job.attempt, job.failures()) == (3, 1, [])


WAITING = """
    SELECT count(*) FROM pg_stat_activity
     WHERE datname = current_database() AND wait_event_type = 'Lock' AND application_name = 'pgjobs worker'
"""


def test_stop_gives_back_what_a_lost_reply_has_claimed(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    task = jobs.task(add)
    with jobs.worker(queues="other") as worker:
        task.enqueue_many([(1, 2), (3, 4)])
        jobs.database.run(statements.claim(worker.id, new_id(), [Range(("default", 0))], 5))
        assert conn.execute("SELECT DISTINCT status FROM pgjobs.jobs").fetchall() == [("running",)]
    rows = conn.execute("SELECT status, attempt, crashes, claim_id FROM pgjobs.jobs").fetchall()
    assert rows == [("queued", 0, 0, None)] * 2


def test_code_that_does_not_finish_in_time_is_stopped_and_its_attempt_given_back(
    jobs: PgJobs, conn: psycopg.Connection[Any]
) -> None:
    started = threading.Semaphore(0)
    unwound: list[str] = []

    @jobs.task
    def threaded() -> None:
        started.release()
        try:
            while True:
                time.sleep(0.01)
        finally:
            unwound.append("thread")

    @jobs.task
    async def looped() -> None:
        started.release()
        try:
            await asyncio.sleep(60)
        finally:
            unwound.append("async")

    threaded.enqueue()
    looped.enqueue()
    worker = jobs.worker()
    worker.start()
    started.acquire()
    started.acquire()
    worker.stop(timeout=0.1)
    assert sorted(unwound) == ["async", "thread"]
    assert conn.execute("SELECT status, attempt, count(*) FROM pgjobs.jobs GROUP BY 1, 2").fetchall() == [
        ("queued", 0, 2)
    ]


def test_deaf_code_does_not_hold_up_a_stop(jobs: PgJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    from pgjobs.worker import life

    monkeypatch.setattr(life, "INTERRUPT_S", 0.3)
    started = threading.Event()

    @jobs.task
    def deaf() -> None:
        started.set()
        time.sleep(3)

    job = deaf.enqueue()
    worker = jobs.worker()
    worker.start()
    started.wait(15)
    before = time.monotonic()
    worker.stop(timeout=0)
    assert time.monotonic() - before < 2
    assert (job.refresh().status, job.attempt) == (Status.QUEUED, 0)
    time.sleep(3)
    assert job.refresh().status is Status.QUEUED, "what the deaf code returns is nobody's"


def test_start_that_fails_leaves_no_thread_behind() -> None:
    with contextlib.closing(PgJobs("postgresql://nobody@127.0.0.1:1/none")) as jobs:
        jobs.on_failure(lambda ended: None)
        worker = jobs.worker()
        before = threading.enumerate()
        for _ in range(3):
            with pytest.raises(psycopg.OperationalError):
                worker.start()
        assert [thread for thread in threading.enumerate() if thread not in before] == []


def test_declared_death_leaves_no_event_loop_behind(jobs: PgJobs) -> None:
    def loops() -> int:
        return sum(thread.name == "pgjobs-async" for thread in threading.enumerate())

    work = jobs.task(aadd)
    before = loops()
    with jobs.worker() as worker:
        life = worker.life
        assert life is not None
        work.enqueue(1, 2).get(10)
        worker.declared_dead(life.id)
        seen(lambda: worker.life is not life)
        assert work.enqueue(1, 2).get(10) == 3
        seen(lambda: loops() == before + 1)
    seen(lambda: loops() == before)


def test_stop_from_another_thread_ends_the_wait(jobs: PgJobs) -> None:
    worker = jobs.worker()
    worker.start()
    waiting = threading.Thread(target=worker.wait)
    waiting.start()
    worker.stop()
    waiting.join(10)
    assert not waiting.is_alive()


def test_coroutine_that_blocks_the_loop_does_not_hold_up_a_stop(
    jobs: PgJobs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pgjobs.worker.life.INTERRUPT_S", 0.2)
    began, gate = threading.Event(), threading.Event()

    async def lifespan() -> AsyncIterator[dict[str, str]]:
        yield {}

    @jobs.task
    async def work() -> None:
        began.set()
        gate.wait(20)

    jobs.lifespan = lifespan
    before = threading.enumerate()
    job = work.enqueue()
    worker = jobs.worker()
    worker.start()
    assert began.wait(5)
    started = time.monotonic()
    worker.stop(timeout=0)
    assert time.monotonic() - started < 10
    gate.set()
    assert job.refresh().status is Status.QUEUED
    assert "a coroutine blocks the event loop" in caplog.text
    seen(lambda: not [each for each in threading.enumerate() if each.name == "pgjobs-async" and each not in before])


def test_worker_names_itself_and_its_state(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    with jobs.worker(queues="a,b", concurrency=3, name="mine") as worker:
        row = conn.execute("SELECT id, name, queues, slots, dead_at FROM pgjobs.workers").fetchone()
        assert row == (worker.id, "mine", ["a", "b"], 3, None)
        seen(lambda: conn.execute("SELECT queue FROM pgjobs.idlers ORDER BY 1").fetchall() == [("a",), ("b",)])


def test_events_tell_what_happened(jobs: PgJobs) -> None:
    events: list[Event] = []
    jobs.task(add).enqueue(1, 2)
    jobs.worker(burst=True, emit=events.append).run()
    assert [type(event).__name__ for event in events] == [
        "WorkerStarted",
        "Recorded",
        "WorkerStopping",
        "WorkerStopped",
    ]
    recorded = events[1]
    assert isinstance(recorded, Recorded)
    assert recorded.outcomes[0].ending == "succeeded"


def test_worker_outlives_a_log_handler_that_fails(jobs: PgJobs, capsys: pytest.CaptureFixture[str]) -> None:
    class Lost(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise ConnectionError("the log server is gone")

    def tell(event: Event) -> None:
        raise ValueError

    lost = Lost(logging.WARNING)
    jobs.subscribe(tell, JobSucceeded)
    fail = jobs.task(name="fail", retry=NOW)(lambda: 1 / 0)
    with jobs.worker() as worker:
        logging.getLogger().addHandler(lost)
        try:
            failed = fail.enqueue()
            seen(lambda: failed.refresh().status is Status.FAILED)
            assert jobs.task(add).enqueue(1, 2).get(10) == 3
            seen(lambda: "ValueError" in capsys.readouterr().err)
            assert worker.life is not None
            assert worker.life.claiming._thread.is_alive()
        finally:
            logging.getLogger().removeHandler(lost)


@pytest.mark.parametrize(
    "settings", [{"concurrency": 0}, {"concurrency": True}, {"max_jobs": 0}, {"queues": ""}, {"queues": "a b"}]
)
def test_setting_that_cannot_be_meant_is_refused(settings: Any, jobs: PgJobs) -> None:
    with pytest.raises(OptionError):
        jobs.worker(**settings)


def test_job_that_is_not_there_cannot_be_waited_for(jobs: PgJobs) -> None:
    from pgjobs import JobNotFoundError

    with pytest.raises(JobNotFoundError):
        jobs.job(uuid4())
    with pytest.raises(OptionError, match="not a UUID"):
        jobs.job("x")


# -- durability


@pytest.mark.parametrize("value", [None, "off", "local"])
def test_worker_may_commit_less_durably_than_the_server(
    value: str | None, jobs: PgJobs, conn: psycopg.Connection[Any]
) -> None:
    conn.execute("CREATE TABLE seen (value text)")
    conn.execute(
        "CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " INSERT INTO seen VALUES (current_setting('synchronous_commit')); RETURN NEW; END $$"
    )
    conn.execute("CREATE TRIGGER see AFTER UPDATE ON pgjobs.jobs FOR EACH ROW EXECUTE FUNCTION see()")
    task = jobs.task(name="add")(lambda a, b: a + b)
    with jobs.worker(synchronous_commit=value):
        assert task.enqueue(1, 2).get(10) == 3
    of_the_server = conn.execute("SHOW synchronous_commit").fetchone()
    assert set(conn.execute("SELECT value FROM seen").fetchall()) == {of_the_server if value is None else (value,)}


def test_synchronous_commit_that_there_is_not_is_refused(jobs: PgJobs) -> None:
    with pytest.raises(OptionError, match="synchronous_commit is 'never'; give one of on, off"):
        jobs.worker(synchronous_commit="never")


# -- what the application's code does where it is not expected


def test_type_or_module_that_raises_keeps_its_jobs_waiting_and_stops_no_other(
    jobs: PgJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    @dataclass
    class Range:
        low: int

        def __post_init__(self) -> None:
            if broken:
                raise KeyError("range")

    class Lazy(ModuleType):
        def __getattr__(self, name: str) -> Any:
            raise ImportError(name)

    def take(at: Any) -> None: ...

    broken: list[bool] = []
    take.__annotations__["at"] = Range
    monkeypatch.setitem(sys.modules, "lazy", Lazy("lazy"))
    refusing = jobs.task(name="take")(take).enqueue(Range(1))
    broken.append(True)
    fine = jobs.task(name="fine")(lambda: 1).enqueue()
    lazy = jobs.enqueue("lazy:thing")
    with jobs.worker(modules=["lazy"]):
        assert fine.get(10) == 1
        seen(lambda: lazy.refresh().status is refusing.refresh().status is Status.SCHEDULED)
    assert (refusing.attempt, refusing.reason) == (0, "arguments do not fit: task 'take': KeyError('range')")
    assert (lazy.attempt, lazy.reason) == (0, "task cannot be made ready: ImportError('thing')")


@pytest.mark.parametrize("what", ["child", "callback", "stop"])
def test_coroutine_that_ends_more_than_itself_disturbs_nobody(what: str, jobs: PgJobs) -> None:
    async def leave() -> None:
        raise SystemExit(1)

    @jobs.task(retry=1)
    async def work() -> str:
        loop = asyncio.get_running_loop()
        if what == "child":
            await asyncio.gather(leave(), asyncio.sleep(0.1))
        loop.call_soon(loop.stop if what == "stop" else sys.exit)
        await asyncio.sleep(0.1)
        return "went on"

    @jobs.task(retry=1)
    async def wait() -> str:
        await asyncio.sleep(0.3)
        return "undisturbed"

    with jobs.worker():
        neighbour, job, later = wait.enqueue(), work.enqueue(), wait.using(delay=0.2).enqueue()
        if what == "child":
            with pytest.raises(JobFailedError, match="SystemExit"):
                job.get(10)
        else:
            assert job.get(10) == "went on"
        assert [neighbour.get(10), later.get(10)] == ["undisturbed", "undisturbed"]
