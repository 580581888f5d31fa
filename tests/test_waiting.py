"""Waiting for results: heard at once, on one connection a process, by threads and coroutines; else a bit later."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from pgjobs import (
    Cancel,
    JobFailedError,
    JobNotFoundError,
    PgJobs,
    ResultTimeoutError,
    Retry,
    Status,
    current_job,
    ledger,
    waiting,
)
from pgjobs.connections.listener import Listener
from pgjobs.job import new_id
from pgjobs.statements import Statement
from pgjobs.worker.claiming import completer
from tests.support import eventually

pytestmark = pytest.mark.server


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is not told waits for long."""
    monkeypatch.setattr(ledger, "_LOOK_S", 30.0)


def ears(conn: psycopg.Connection[Any]) -> int:
    """Connections on which ends of jobs are heard."""
    row = conn.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%LISTEN%.done.%'"
        " AND pid <> pg_backend_pid()"
    ).fetchone()
    assert row is not None
    return int(row[0])


def rows(conn: psycopg.Connection[Any]) -> int:
    row = conn.execute("SELECT count(*) FROM pgjobs.waiters").fetchone()
    assert row is not None
    return int(row[0])


def test_one_look_before_the_end_and_one_after_it_are_enough(
    patient: None, jobs: PgJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()

    @jobs.task
    def work() -> None:
        gate.wait(10)

    with jobs.worker():
        threading.Timer(0.5, gate.set).start()
        work.enqueue().get(timeout=10)
        eventually(lambda: jobs._ledger._waiting.hears)
        time.sleep(0.3)  # from here on it is relied on
        gate.clear()
        looks: list[str] = []
        run = jobs.database.run

        def looking(statement: Statement[Any], conn: object = None) -> Any:
            looks.append(statement.query.name)
            result = run(statement, conn)
            gate.set()
            return result

        job = work.enqueue()
        monkeypatch.setattr(jobs.database, "run", looking)
        job.get(timeout=10)
    assert looks == ["jobs_by_id", "jobs_by_id"]


@pytest.mark.parametrize("how", ["returns", "fails", "cancels itself", "completes in a transaction"])
def test_end_is_heard_at_once(how: str, patient: None, jobs: PgJobs) -> None:
    gate = threading.Event()

    @jobs.task(retry=Retry(1))
    def work() -> str:
        gate.wait(10)
        if how == "fails":
            raise ValueError
        if how == "cancels itself":
            raise Cancel
        if how == "completes in a transaction":
            with psycopg.connect(jobs.database.url) as app:
                current_job().complete(app, "done")
        return "done"

    with jobs.worker():
        job = work.enqueue()
        ended_at: list[float] = []

        def get() -> None:
            try:
                job.get(20)
            except JobFailedError:
                pass
            ended_at.append(time.monotonic())

        thread = threading.Thread(target=get)
        thread.start()
        time.sleep(0.6)  # the first looks are over
        gate.set()
        opened = time.monotonic()
        thread.join(10)
    assert ended_at[0] - opened < 8


@pytest.fixture
def many_files() -> Iterator[None]:
    """As in a server with a thousand connections: the next descriptor is beyond those that select() takes."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2048:
        pytest.skip(f"a process may have only {hard} files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    yield
    for file in files:
        os.close(file)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_notifications_are_heard_in_a_process_with_many_files(
    many_files: None, patient: None, jobs: PgJobs, caplog: pytest.LogCaptureFixture
) -> None:
    work = jobs.task(name="work")(lambda: time.sleep(0.6))  # the first looks are over then
    with jobs.worker():
        began = time.monotonic()
        work.enqueue().get(20)
        assert time.monotonic() - began < 8
    jobs.close()
    assert [record.message for record in caplog.records if record.levelno > logging.INFO] == []


async def test_coroutines_hear_it_too(patient: None, jobs: PgJobs) -> None:
    gate = threading.Event()
    work = jobs.task(name="work")(lambda i: gate.wait(10) and i)
    async with jobs.worker():
        handles = [await work.aenqueue(i + 1) for i in range(10)]
        gets = [asyncio.create_task(handle.aget(20)) for handle in handles]
        await asyncio.sleep(0.6)
        opened = time.monotonic()
        gate.set()
        assert await asyncio.gather(*gets) == list(range(1, 11))
        assert time.monotonic() - opened < 8
    await jobs.aclose()


def test_all_who_wait_share_one_connection_and_one_row(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    gate = threading.Event()
    work = jobs.task(name="work")(lambda i: gate.wait(10) and i)
    handles = [work.enqueue(i + 1) for i in range(30)]
    results: list[int] = []
    threads = [threading.Thread(target=lambda h=handle: results.append(h.get(20))) for handle in handles]
    for thread in threads:
        thread.start()

    async def also() -> None:
        await asyncio.gather(*(handle.aget(20) for handle in handles))
        await jobs.database.aclose()

    coroutines = threading.Thread(target=lambda: asyncio.run(also()))
    coroutines.start()
    eventually(lambda: ears(conn) == 1)
    eventually(lambda: rows(conn) == 1)
    with jobs.worker(concurrency=30):
        gate.set()
        for thread in (*threads, coroutines):
            thread.join(20)
    assert sorted(results) == list(range(1, 31))
    assert (ears(conn), rows(conn)) == (1, 1)
    jobs.close()
    eventually(lambda: (ears(conn), rows(conn)) == (0, 0))


def test_nothing_is_sent_where_nobody_waits(jobs: PgJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    tell = completer._tell
    monkeypatch.setattr(completer, "_tell", lambda *args: (told.append(args), tell(*args)))
    work = jobs.task(name="work")(lambda i: i)
    ids = work.enqueue_many([(i,) for i in range(50)])
    with jobs.worker():
        eventually(lambda: all(jobs.job(job_id).status is Status.SUCCEEDED for job_id in ids))
        assert told == []
        jobs.wait([work.enqueue(i) for i in range(3)], 10)
        eventually(lambda: work.enqueue(1).get(10) == 1 and told)


def test_first_wait_that_was_over_before_the_connection_stood_spoils_no_later_one(
    patient: None, jobs: PgJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row was to be written when the connection stood: then nobody waited any more."""
    connected = threading.Event()
    take = waiting._Ear._connected
    monkeypatch.setattr(waiting._Ear, "_connected", lambda ear: (connected.wait(10), take(ear)))

    @jobs.task
    def work(seconds: float) -> None:
        time.sleep(seconds)

    with jobs.worker():
        work.enqueue(0.02).get(15)
        connected.set()
        time.sleep(0.3)
        job = work.enqueue(0.6)
        started = time.monotonic()
        job.get(10)
        assert time.monotonic() - started < 2


def test_job_that_has_ended_costs_no_connection(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    job = jobs.task(name="work")(lambda: 1).enqueue()
    jobs.worker(burst=True).run()
    assert job.get(1) == 1
    assert jobs.wait([job])[0].result == 1
    assert (ears(conn), rows(conn)) == (0, 0)


def test_connection_closes_when_nobody_has_waited_for_a_while(
    jobs: PgJobs, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "IDLE_S", 0.1)
    monkeypatch.setattr("pgjobs.connections.listener.QUIET_S", 0.1)
    job = jobs.task(name="work")(lambda: 1).enqueue()
    with pytest.raises(ResultTimeoutError):
        job.get(0.5)
    eventually(lambda: (ears(conn), rows(conn)) == (0, 0))
    with jobs.worker():
        assert job.get(15) == 1, "and opens again"


def test_row_is_renewed_while_somebody_waits(
    jobs: PgJobs, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "RENEW_S", 0.1)
    monkeypatch.setattr("pgjobs.connections.listener.QUIET_S", 0.1)
    job = jobs.task(name="work")(lambda: 1).enqueue()

    def get() -> None:
        with pytest.raises(ResultTimeoutError):
            job.get(10)

    thread = threading.Thread(target=get)
    thread.start()
    eventually(lambda: rows(conn) == 1)
    first = conn.execute("SELECT seen_at FROM pgjobs.waiters").fetchone()
    eventually(lambda: conn.execute("SELECT seen_at FROM pgjobs.waiters").fetchone() != first, timeout_s=8)
    thread.join()


def test_without_a_connection_to_hear_on_it_looks(patient: None, jobs: PgJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGJOBS_LISTEN_URL", "postgresql://127.0.0.1:1/none")
    job = jobs.task(name="work")(lambda: time.sleep(0.3)).enqueue()
    with jobs.worker():
        job.get(8)


def test_break_of_the_connection_is_survived(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    gate = threading.Event()
    job = jobs.task(name="work")(lambda: gate.wait(20)).enqueue()
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(job.get(20)))
    thread.start()
    eventually(lambda: ears(conn) == 1)
    conn.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%LISTEN%.done.%'"
        " AND pid <> pg_backend_pid() AND datname = current_database()"
    )
    with jobs.worker():
        gate.set()
        thread.join(10)
    assert results == [True]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("error", [ValueError, SystemExit])
def test_any_other_error_is_survived(
    error: type[BaseException], patient: None, jobs: PgJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    tick, broken = Listener.tick, [error]

    def ticking(listener: Listener) -> float:
        if broken and threading.current_thread().name == "pgjobs-waiting":
            raise broken.pop()
        return tick(listener)

    monkeypatch.setattr(Listener, "tick", ticking)
    gate = threading.Event()
    work = jobs.task(name="work")(lambda: gate.wait(20))
    with pytest.raises(ResultTimeoutError):
        work.enqueue().get(0.5)
    assert not broken
    job = work.enqueue()
    with jobs.worker():
        thread = threading.Thread(target=job.get, args=[20])
        thread.start()
        eventually(lambda: jobs._ledger._waiting.hears, timeout_s=8)
        gate.set()
        thread.join(8)
        assert not thread.is_alive()


# -- many


def test_many_are_waited_for_in_the_order_given(jobs: PgJobs) -> None:
    def work(i: int) -> int:
        time.sleep(0.001 * (7 * i % 10))
        if i == 3:
            raise ValueError
        return i

    task = jobs.task(retry=1)(work)
    ids = task.enqueue_many([(i,) for i in range(1_200)])
    with jobs.worker(concurrency=8):
        ended = jobs.wait([*reversed(ids), ids[5]], 30)
    assert [job.id for job in ended] == [*reversed(ids), ids[5]]
    assert [job.status for job in ended if job.id == ids[3]] == [Status.FAILED]
    assert sum(job.result for job in ended[:-1] if job.result is not None) == sum(range(1_200)) - 3
    assert jobs.wait([]) == []


async def test_async_twin_of_wait(jobs: PgJobs) -> None:
    ids = await jobs.task(name="work")(lambda i: i).aenqueue_many([(i,) for i in range(10)])
    async with jobs.worker():
        assert [job.result for job in await jobs.await_(ids, 10)] == list(range(10))
    await jobs.aclose()


WAYS = {
    "get": lambda jobs, job: job.get(20),
    "wait": lambda jobs, job: jobs.wait([job], 20),
    "as_completed": lambda jobs, job: list(jobs.as_completed([job], 20)),
}


@pytest.mark.parametrize("how", WAYS)
def test_coroutine_job_that_would_stop_its_event_loop_is_told_at_once(how: str, jobs: PgJobs) -> None:
    one = jobs.task(name="one")(lambda: 1)

    async def outer() -> None:
        WAYS[how](jobs, await one.using(queue="nobody").aenqueue())

    with jobs.worker(queues="default"):
        job = jobs.task(name="outer", retry=1)(outer).enqueue()
        with pytest.raises(JobFailedError, match=r"BlockingError: .*await job\.aget\(\)"):
            job.get(10)


def test_threads_of_a_coroutine_job_may_wait_and_so_may_loops_of_their_own(jobs: PgJobs) -> None:
    one = jobs.task(name="one")(lambda: 1)

    async def in_a_thread() -> int:
        return await asyncio.to_thread((await one.aenqueue()).get, 10)

    def in_a_loop() -> int:
        async def main() -> int:
            return one.enqueue().get(10)

        return asyncio.run(main())

    with jobs.worker():
        assert jobs.task(name="thread", retry=1)(in_a_thread).enqueue().get(10) == 1
        assert jobs.task(name="loop", retry=1)(in_a_loop).enqueue().get(10) == 1


async def test_application_that_has_an_event_loop_may_block_it(jobs: PgJobs) -> None:
    with jobs.worker():
        assert jobs.task(name="one")(lambda: 1).enqueue().get(10) == 1


def test_time_is_kept(jobs: PgJobs) -> None:
    job = jobs.task(name="work")(lambda: 1).enqueue()
    started = time.monotonic()
    with pytest.raises(ResultTimeoutError, match=f"{job.id} is still queued after 0.3 s"):
        jobs.wait([job], 0.3)
    assert 0.3 <= time.monotonic() - started < 5


def test_job_that_is_not_there_or_goes_cannot_be_waited_for(jobs: PgJobs) -> None:
    job = jobs.task(name="work")(lambda: 1).enqueue()
    with pytest.raises(JobNotFoundError):
        jobs.wait([job, new_id()], 5)
    deleting = threading.Timer(0.3, job.delete)
    deleting.start()
    with pytest.raises(JobNotFoundError):
        job.get(15)


async def test_coroutine_that_is_cancelled_waits_no_more(jobs: PgJobs) -> None:
    job = await jobs.task(name="work")(lambda: 1).aenqueue()
    task = asyncio.create_task(job.aget())
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    ear = jobs._ledger._waiting._ear
    assert ear is not None
    assert not ear._wakes
    await jobs.aclose()
