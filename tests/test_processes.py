"""``pgjobs worker`` as processes: signals, deaths, restarts, and how it leaves."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgjobs import Job, PgJobs, Status
from tests.apps import basic
from tests.processes import WorkerProcess
from tests.support import eventually

pytestmark = [pytest.mark.server, pytest.mark.slow]

needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds children in /proc")


@pytest.fixture
def app(jobs: PgJobs) -> PgJobs:
    """The tasks of the application, enqueued in the test's database."""
    for task in basic.jobs.tasks.values():
        jobs.task(name=task.name, **task.options)(task.function)
    return jobs


@pytest.fixture
def flag(tmp_path: Path) -> Iterator[Path]:
    """As long as it stands, jobs hold."""
    path = tmp_path / "flag"
    path.touch()
    yield path
    path.unlink(missing_ok=True)


def began(flag: Path, *jobs: Job[Any]) -> bool:
    return all(Path(f"{flag}.{job.id}").exists() for job in jobs)


def workers_left(conn: psycopg.Connection[Any]) -> int:
    row = conn.execute("SELECT count(*) FROM pgjobs.workers WHERE dead_at IS NULL").fetchone()
    assert row is not None
    return int(row[0])


def test_burst_runs_what_there_is_and_leaves_with_0(app: PgJobs, database_url: str) -> None:
    jobs = [
        app.enqueue("tests.apps.basic.add", 1, 2),
        app.enqueue("tests.apps.basic:plain", "shout"),
        app.enqueue(basic.plain, "too"),
    ]
    with WorkerProcess(database_url, "--burst", "--processes", "2", "-c", "3") as worker:
        assert worker.leave() == 0
    assert [job.get(1) for job in jobs] == [3, "SHOUT", "TOO"]
    assert len(worker.said("succeeded")) == 3


def test_max_jobs_are_shared_by_the_processes(app: PgJobs, database_url: str, conn: psycopg.Connection[Any]) -> None:
    app.using().enqueue_many("tests.apps.basic.add", [(i, i) for i in range(50)])
    with WorkerProcess(database_url, "--max-jobs", "11", "--processes", "2") as worker:
        assert worker.leave() == 0
    assert conn.execute("SELECT count(*) FROM pgjobs.jobs WHERE status = 'succeeded'").fetchone() == (11,)
    assert conn.execute("SELECT count(*) FROM pgjobs.jobs WHERE status = 'queued'").fetchone() == (39,)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_first_signal_lets_what_runs_finish(
    number: int, app: PgJobs, database_url: str, flag: Path, conn: psycopg.Connection[Any]
) -> None:
    with WorkerProcess(database_url, "-c", "2") as worker:
        running = [app.enqueue("tests.apps.basic.hold", str(flag)), app.enqueue("tests.apps.basic.ahold", str(flag))]
        eventually(lambda: began(flag, *running))
        waiting = app.enqueue("tests.apps.basic.add", 1, 2)
        worker.signal(number)
        eventually(lambda: worker.said("stopping"))
        time.sleep(0.3)
        assert worker.popen.poll() is None
        flag.unlink()
        assert worker.leave() == 0
    assert [job.refresh().status for job in running] == [Status.SUCCEEDED] * 2
    assert (waiting.refresh().status, waiting.attempt) == (Status.QUEUED, 0)
    assert workers_left(conn) == 0


def test_signal_that_comes_while_it_starts_counts_once(app: PgJobs, database_url: str, flag: Path) -> None:
    with WorkerProcess(database_url, "-c", "1", app="tests.apps.slow_start") as worker:
        running = app.enqueue("tests.apps.basic.hold", str(flag))
        eventually(lambda: began(flag, running))
        worker.signal(signal.SIGTERM)
        eventually(lambda: worker.said("stopping"))
        time.sleep(0.3)
        assert worker.popen.poll() is None, "it stopped the job as if told to hurry"
        flag.unlink()
        assert worker.leave() == 0
    assert (running.refresh().status, running.attempt) == (Status.SUCCEEDED, 1)


@pytest.mark.parametrize("how", ["second signal", "timeout"])
def test_second_signal_or_the_timeout_stops_the_code_and_burns_no_attempt(
    how: str, app: PgJobs, database_url: str, flag: Path, conn: psycopg.Connection[Any]
) -> None:
    patience = "30" if how == "second signal" else "0.3"
    with WorkerProcess(database_url, "--shutdown-timeout", patience, "--processes", "2", "-c", "1") as worker:
        running = [app.enqueue("tests.apps.basic.hold", str(flag)), app.enqueue("tests.apps.basic.ahold", str(flag))]
        eventually(lambda: began(flag, *running))
        worker.signal(signal.SIGTERM)
        eventually(lambda: worker.said("stopping"))
        if how == "second signal":
            worker.signal(signal.SIGINT)
        assert worker.leave(8) == 0
    assert [(job.refresh().status, job.attempt) for job in running] == [(Status.QUEUED, 0)] * 2
    assert all(job.failures() == [] for job in running)
    assert workers_left(conn) == 0


@needs_proc
def test_killed_process_is_replaced_and_every_job_it_held_runs_again(
    app: PgJobs, database_url: str, flag: Path, conn: psycopg.Connection[Any]
) -> None:
    with WorkerProcess(database_url, "--processes", "1", "-c", "2").ready() as worker:
        held = [app.enqueue("tests.apps.basic.hold", str(flag)), app.enqueue("tests.apps.basic.ahold", str(flag))]
        eventually(lambda: began(flag, *held))
        rest = app.using().enqueue_many("tests.apps.basic.add", [(i, i) for i in range(200)])
        (victim,) = worker.children()
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: worker.children() not in ([], [victim]), timeout_s=12)
        flag.unlink()
        assert all(job.get(timeout=10) != victim for job in held)
        for job_id in rest:
            app.job(job_id).get(timeout=10)
        worker.signal(signal.SIGTERM)
        assert worker.leave() == 0
    assert [(job.refresh().row.crashes, job.attempt) for job in held] == [(1, 1)] * 2
    assert [failure.reason for job in held for failure in job.failures()] == ["worker lost"] * 2
    assert conn.execute(
        "SELECT count(*) FROM pgjobs.jobs WHERE crashes > 0 AND NOT id = ANY(%s)", [[job.id for job in held]]
    ).fetchone() == (0,), "only what had begun is charged"
    assert worker.said("died (SIGKILL)")


def test_killed_worker_parent_and_all_loses_no_job(app: PgJobs, database_url: str, flag: Path) -> None:
    """Nobody is left to report the death: another worker's reaper finds it by its missed beats."""
    with WorkerProcess(database_url, "-c", "2").ready() as victim:
        held = [app.enqueue("tests.apps.basic.hold", str(flag)), app.enqueue("tests.apps.basic.ahold", str(flag))]
        eventually(lambda: began(flag, *held))
        with WorkerProcess(database_url).ready() as other:
            os.killpg(victim.popen.pid, signal.SIGKILL)
            flag.unlink()
            assert all(job.get(timeout=20) for job in held)
            other.signal(signal.SIGTERM)
            assert other.leave() == 0


@needs_proc
def test_paused_worker_is_taken_for_dead_and_begins_anew_when_it_wakes(
    app: PgJobs, database_url: str, flag: Path, conn: psycopg.Connection[Any]
) -> None:
    with WorkerProcess(database_url).ready() as paused:
        job = app.enqueue("tests.apps.basic.hold", str(flag))
        eventually(lambda: began(flag, job))
        row = conn.execute("SELECT id FROM pgjobs.workers").fetchone()
        os.killpg(paused.popen.pid, signal.SIGSTOP)
        try:
            with app.worker():
                flag.unlink()
                assert job.get(timeout=40) == os.getpid()
        finally:
            os.killpg(paused.popen.pid, signal.SIGCONT)
        eventually(lambda: paused.said("believed dead"), timeout_s=10)
        eventually(lambda: workers_left(conn) == 1)
        assert conn.execute("SELECT id FROM pgjobs.workers WHERE dead_at IS NULL").fetchone() != row
        assert app.enqueue("tests.apps.basic.pid").get(timeout=10) in paused.children()
        paused.signal(signal.SIGTERM)
        assert paused.leave() == 0
    assert job.refresh().result == os.getpid(), "what the paused run returned was not recorded"


def test_job_that_kills_its_process_every_time_is_given_up(app: PgJobs, database_url: str) -> None:
    with WorkerProcess(database_url).ready() as worker:
        once = app.enqueue("tests.apps.basic.kill_me", times=1)
        assert once.get(timeout=20) == "survived"
        always = app.enqueue("tests.apps.basic.kill_me", times=99)
        eventually(lambda: always.refresh().status is Status.FAILED, timeout_s=20)
        assert (always.reason, always.row.crashes, len(always.failures())) == ("poison", 3, 3)
        assert app.enqueue("tests.apps.basic.add", 1, 2).get(timeout=10) == 3
        worker.signal(signal.SIGTERM)
        assert worker.leave() == 0


def test_job_that_never_gives_way_does_not_stop_the_heartbeat(
    app: PgJobs, database_url: str, conn: psycopg.Connection[Any]
) -> None:
    with WorkerProcess(database_url).ready():
        job = app.enqueue("tests.apps.basic.never_gives_way", 9.0)
        with app.worker(queues="other"):
            assert job.get(timeout=30) == "done"
    assert (job.row.crashes, job.attempt) == (0, 1)


@needs_proc
def test_children_leave_when_their_parent_is_gone(app: PgJobs, database_url: str) -> None:
    with WorkerProcess(database_url, "--processes", "2").ready(2) as worker:
        children = worker.children()
        worker.popen.kill()
        worker.popen.wait()
        eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), timeout_s=15)


# -- how it does not start


@pytest.mark.parametrize(
    ("app_name", "says"),
    [
        ("tests.apps.missing", "module 'tests.apps.missing' is not found"),
        ("tests.apps.basic:nothing", "is no PgJobs"),
        ("tests.apps.basic:add", "is no PgJobs"),
        ("tests.apps.broken", "ZeroDivisionError: an application"),
        ("tests.apps.two", "say which"),
    ],
)
def test_application_that_cannot_be_loaded_ends_it_with_2(app_name: str, says: str, database_url: str) -> None:
    with WorkerProcess(database_url, "--processes", "2", app=app_name) as worker:
        assert worker.leave() == 2
    assert len(worker.said(says)) == 1, worker.lines


@pytest.mark.parametrize("app_name", ["tests.apps.basic:jobs", "tests.apps.basic:make"])
def test_application_may_be_named_or_made(app_name: str, app: PgJobs, database_url: str) -> None:
    job = app.enqueue("tests.apps.basic.add", 1, 2)
    with WorkerProcess(database_url, "--burst", app=app_name) as worker:
        assert worker.leave() == 0
    assert job.get(1) == 3


def test_database_out_of_reach_ends_it_with_3() -> None:
    with WorkerProcess("postgresql://127.0.0.1:1/none") as worker:
        assert worker.leave() == 3
    assert worker.said("--wait-for-db")


def test_database_that_is_not_there_yet_is_waited_for_on_demand() -> None:
    with WorkerProcess("postgresql://127.0.0.1:1/none", "--wait-for-db") as worker:
        eventually(lambda: worker.said("trying again"))
        time.sleep(1)
        assert worker.popen.poll() is None
        assert len(worker.said("trying again")) == 1
        worker.signal(signal.SIGTERM)
        assert worker.leave() == 0


def test_schema_that_is_not_there_ends_it_with_5(database_url: str) -> None:
    with WorkerProcess(database_url, "--schema", "nowhere") as worker:
        assert worker.leave() == 5
    assert worker.said("pgjobs migrate --schema nowhere")


def test_bad_setting_ends_it_with_2(database_url: str) -> None:
    with WorkerProcess(database_url, "-Q", "a b") as worker:
        assert worker.leave() == 2
    assert worker.said("is not a name")
