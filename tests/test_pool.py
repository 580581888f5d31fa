"""The process executor: what crosses to a process and back, and how hard it is killed."""

from __future__ import annotations

import os
import selectors
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest

from pgjobs import Job, JobFailedError, OptionError, PgJobs, Status
from pgjobs.worker import Worker
from pgjobs.worker.executors import apart, pool
from tests.apps import pooled
from tests.processes import WorkerProcess
from tests.support import eventually

pytestmark = [pytest.mark.slow, pytest.mark.server]

APP = "tests.apps.pooled"


@pytest.fixture
def app(jobs: PgJobs, monkeypatch: pytest.MonkeyPatch) -> PgJobs:
    """The tasks of the application, in the test's database."""
    monkeypatch.setenv("PGJOBS_URL", jobs.database.url)
    for task in pooled.jobs.tasks.values():
        jobs.task(name=task.name, executor=task.executor, **task.options)(task.function)
    return jobs


@pytest.fixture
def worker(app: PgJobs) -> Iterator[Worker]:
    with app.worker(concurrency=2) as worker:
        yield worker
        assert worker.id, "it still runs"


@pytest.fixture
def flag(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "flag"
    path.touch()
    yield path
    path.unlink(missing_ok=True)


def begun(flag: Path, job: Job[Any]) -> int:
    """Waits until the job runs; returns the process id that it tells."""
    file = Path(f"{flag}.{job.id}")
    eventually(lambda: file.exists() and file.read_text())
    return int(file.read_text())


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"


def test_jobs_run_in_processes_that_are_kept(app: PgJobs, worker: Worker) -> None:
    jobs = [app.enqueue(f"{APP}.pid") for _ in range(20)]
    pids = {job.get(10) for job in jobs}
    pids |= {app.enqueue(f"{APP}.pid").get(15) for _ in range(20)}
    assert os.getpid() not in pids
    assert 1 <= len(pids) <= 2, "no more than slots"
    assert app.enqueue(f"{APP}.in_a_thread").get(15) == os.getpid(), "the other executors run beside it"


def test_arguments_and_results_cross_as_json(app: PgJobs, worker: Worker) -> None:
    values = [1, 2.5, "ü\n\u2028", None, True, {"a": [1]}, "x" * 300_000]
    assert app.enqueue(f"{APP}.echo", *values, key="word").get(10) == [*values, {"key": "word"}]


def test_number_that_no_float_holds_crosses_as_it_is_read(
    app: PgJobs, worker: Worker, conn: psycopg.Connection[Any]
) -> None:
    vast = f"1{'0' * 400}.5"
    document = f'{{"value": [{vast}, -{vast}, 123456789012345678901234567890, null]}}'
    row = conn.execute("SELECT pgjobs.enqueue(%s, %s)", (f"{APP}.told", document)).fetchone()
    assert row is not None
    assert app.job(row[0]).get(15) == "[inf, -inf, 123456789012345678901234567890, None]"


def test_coroutine_function_runs_there_too(app: PgJobs, worker: Worker) -> None:
    job = app.enqueue(f"{APP}.anap", 0.01)
    assert job.get(10) == str(job.id)


def test_exception_comes_back_with_its_traceback_and_is_tried_again(app: PgJobs, worker: Worker) -> None:
    job = app.enqueue(f"{APP}.odd")
    with pytest.raises(JobFailedError, match="odd 7"):
        job.get(10)
    failures = job.failures()
    assert [(failure.attempt, failure.reason) for failure in failures] == [(1, "error"), (2, "error")]
    assert failures[0].exception == "tests.apps.pooled.OddError"
    text = failures[0].traceback or ""
    assert "raise OddError(7, lambda: None)" in text
    assert "/pgjobs/worker/" not in text, "the worker's own frames are left out"


@pytest.mark.parametrize(
    ("call", "how", "attempts"),
    [
        (("exit_with", 3), "exit code 3", 2),
        (("exit_with", 0), "exit code 0", 2),
        (("signalled", "SIGSEGV"), "SIGSEGV", 1),
        (("signalled", "SIGKILL"), "SIGKILL", 1),
    ],
)
def test_process_that_dies_fails_its_job_alone(
    call: tuple[str, Any], how: str, attempts: int, app: PgJobs, worker: Worker, flag: Path
) -> None:
    neighbour = app.enqueue(f"{APP}.hold", str(flag))
    pid = begun(flag, neighbour)
    job = app.enqueue(f"{APP}.{call[0]}", call[1])
    with pytest.raises(JobFailedError, match=how):
        job.get(10)
    assert (job.refresh().reason, job.attempt, job.row.crashes) == ("crash", attempts, 0)
    assert [failure.reason for failure in job.failures()] == ["crash"] * attempts
    flag.unlink()
    assert neighbour.get(15) == pid
    assert (neighbour.row.attempt, neighbour.failures()) == (1, [])


def test_process_that_dies_takes_with_it_what_it_has_started(app: PgJobs, worker: Worker, flag: Path) -> None:
    job = app.using(retry=1).enqueue(f"{APP}.die_leaving_a_child", str(flag))
    child = begun(flag, job)
    eventually(lambda: job.refresh().status is Status.FAILED)
    eventually(lambda: not lives(child), timeout_s=10)


def test_exit_in_a_task_does_not_end_its_process(app: PgJobs, worker: Worker) -> None:
    with pytest.raises(JobFailedError, match="SystemExit"):
        app.enqueue(f"{APP}.system_exit").get(10)


def test_run_over_its_timeout_is_killed_with_all_that_it_started(app: PgJobs, worker: Worker, flag: Path) -> None:
    job = app.using(timeout=0.5, retry=1).enqueue(f"{APP}.hold_with_a_child", str(flag))
    child = begun(flag, job)
    assert lives(child)
    eventually(lambda: job.refresh().status is Status.FAILED, timeout_s=10)
    assert job.reason == "timeout"
    eventually(lambda: not lives(child), timeout_s=10)


def test_cancelled_run_is_killed(app: PgJobs, worker: Worker, flag: Path) -> None:
    job = app.enqueue(f"{APP}.hold", str(flag))
    pid = begun(flag, job)
    job.cancel("enough")
    eventually(lambda: job.refresh().status is Status.CANCELLED, timeout_s=10)
    assert (job.reason, lives(pid)) == ("enough", False)


def test_stop_kills_what_does_not_finish_and_burns_no_attempt(app: PgJobs, flag: Path) -> None:
    worker = app.worker()
    worker.start()
    job = app.enqueue(f"{APP}.hold", str(flag))
    pid = begun(flag, job)
    worker.stop(0.2)
    assert (job.refresh().status, job.attempt, lives(pid)) == (Status.QUEUED, 0, False)


def test_stop_lets_what_runs_finish(app: PgJobs, flag: Path) -> None:
    worker = app.worker()
    worker.start()
    job = app.enqueue(f"{APP}.hold", str(flag), 0.5)
    pid = begun(flag, job)
    worker.stop(10)
    assert (job.refresh().status, job.result) == (Status.SUCCEEDED, pid)
    eventually(lambda: not lives(pid), timeout_s=10)


def test_processes_are_replaced_after_so_many_jobs(app: PgJobs) -> None:
    with app.worker(concurrency=1, pool_max_jobs=3):
        assert [app.enqueue(f"{APP}.count").get(10) for _ in range(7)] == [1, 2, 3, 1, 2, 3, 1]


def test_process_that_has_taken_too_much_memory_is_replaced(app: PgJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "LOOK_S", 60.0)  # nobody looks while the job runs, however slow the machine is
    with app.worker(concurrency=1, max_rss=200 << 20):
        first = app.enqueue(f"{APP}.pid").get(10)
        assert app.enqueue(f"{APP}.hog", 250, 0.0).get(10) == 250 << 20
        assert app.enqueue(f"{APP}.pid").get(10) != first


def test_run_that_takes_too_much_memory_is_killed(app: PgJobs) -> None:
    with app.worker(concurrency=1, max_rss=200 << 20):
        job = app.using(retry=1).enqueue(f"{APP}.hog", 250, 30.0)
        with pytest.raises(JobFailedError, match="max_rss is 200 MB"):
            job.get(10)
    assert job.refresh().reason == "crash"


@pytest.mark.parametrize(
    ("how", "status", "attempt", "reason"),
    [
        ("snooze", "scheduled", 0, "snoozed"),
        ("later", "scheduled", 1, "error"),
        ("cancel", "cancelled", 1, "as it likes"),
    ],
)
def test_steering_works_from_there(
    how: str, status: str, attempt: int, reason: str, app: PgJobs, worker: Worker
) -> None:
    job = app.enqueue(f"{APP}.steer", how)
    eventually(lambda: job.refresh().status == status)
    assert (job.attempt, job.reason) == (attempt, reason)


def test_result_that_cannot_be_stored_fails_the_job(app: PgJobs, worker: Worker) -> None:
    job = app.enqueue(f"{APP}.unstorable")
    with pytest.raises(JobFailedError, match="object"):
        job.get(10)
    assert job.refresh().reason == "unstorable result"


def test_completion_in_the_applications_transaction(app: PgJobs, worker: Worker) -> None:
    url = app.database.url
    assert app.enqueue(f"{APP}.complete_within", url, True).get(10) == "by the application"
    with pytest.raises(JobFailedError, match="rolled back"):
        app.enqueue(f"{APP}.complete_within", url, False).get(10)


def test_process_that_cannot_start_fails_the_attempt_and_says_why(app: PgJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    with app.worker(app="tests.apps.broken"):
        job = app.using(retry=1).enqueue(f"{APP}.pid")
        with pytest.raises(JobFailedError, match="ZeroDivisionError"):
            job.get(10)


def test_process_that_does_not_get_ready_is_given_up(app: PgJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "START_S", 0.0)
    with app.worker():
        job = app.using(retry=1).enqueue(f"{APP}.pid")
        with pytest.raises(JobFailedError, match="did not get ready"):
            job.get(10)


def test_idle_process_ends(app: PgJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "IDLE_S", 0.1)
    with app.worker():
        pid = app.enqueue(f"{APP}.pid").get(10)
        eventually(lambda: not lives(pid), timeout_s=10)
        assert app.enqueue(f"{APP}.pid").get(10) != pid


def test_task_that_a_process_cannot_import_is_refused(jobs: PgJobs) -> None:
    @jobs.task(executor="process")
    def local() -> None: ...

    with pytest.raises(OptionError, match="cannot import it from inside of a function; move it"):
        jobs.worker().start()


def test_what_a_run_binds_in_its_context_the_next_one_does_not_see(app: PgJobs) -> None:
    with app.worker(concurrency=1):
        for name in ("bind", "abind"):
            assert [app.enqueue(f"{APP}.{name}", "ann").get(10) for _ in range(2)] == ["nobody"] * 2


def test_process_that_a_thread_keeps_is_killed_when_it_is_replaced(
    app: PgJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "LEAVE_S", 0.2)
    with app.worker(concurrency=1, pool_max_jobs=1):
        pid = app.enqueue(f"{APP}.leave_a_thread").get(10)
        eventually(lambda: not lives(pid))


# -- what the system cannot give


def failing_once(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, error: Exception) -> list[int]:
    """Has a function raise when it is called next; the list grows when it has."""
    real, failed = getattr(owner, name), list[int]()

    def fails_once(*args: Any, **named: Any) -> Any:
        if not failed:
            failed.append(1)
            raise error
        return real(*args, **named)

    monkeypatch.setattr(owner, name, fails_once)
    return failed


def test_job_for_which_there_is_no_process_goes_back_and_runs_later(
    app: PgJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing_once(monkeypatch, apart, "_started", OSError(11, "no more of that"))
    with app.worker(concurrency=2):
        job = app.enqueue(f"{APP}.pid")
        eventually(lambda: job.refresh().status is Status.SCHEDULED)
        assert (job.attempt, job.reason) == (0, "cannot be started: [Errno 11] no more of that")
        assert job.get(10) == app.enqueue(f"{APP}.pid").get(10)


@pytest.mark.parametrize("place", [1, 2, 3])
def test_job_whose_process_cannot_be_listened_to_goes_back_and_runs_later(
    place: int, app: PgJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    class Crowded(selectors.DefaultSelector):
        def register(self, *args: Any) -> Any:
            calls.append(1)
            if len(calls) == place:
                raise OSError(28, "no room")
            return super().register(*args)

    own = SimpleNamespace(DefaultSelector=Crowded, EVENT_READ=selectors.EVENT_READ)
    monkeypatch.setattr(pool, "selectors", own)
    with app.worker(concurrency=1):
        job = app.enqueue(f"{APP}.pid")
        eventually(lambda: job.refresh().reason)
        assert job.reason == "cannot be started: [Errno 28] no room"
        assert job.get(10)


def test_worker_whose_pool_has_no_thread_gets_one_later(app: PgJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    start, failed = threading.Thread.start, list[int]()

    def started(thread: threading.Thread) -> None:
        if thread.name == "pgjobs-pool" and not failed:
            failed.append(1)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", started)
    with app.worker():
        assert app.enqueue(f"{APP}.pid").get(15)
    assert failed


def test_path_may_hold_what_is_no_text(app: PgJobs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, tmp_path])
    with app.worker():
        assert app.enqueue(f"{APP}.pid").get(10)


def test_pool_that_fails_gives_its_jobs_back_and_goes_on(
    app: PgJobs, monkeypatch: pytest.MonkeyPatch, flag: Path
) -> None:
    with app.worker(concurrency=1):
        job = app.using(retry=1).enqueue(f"{APP}.hold", str(flag))
        pid = begun(flag, job)
        failing_once(monkeypatch, pool.ProcessExecutor, "_look", LookupError("nobody expects that"))
        eventually(lambda: not lives(pid))
        flag.unlink()
        assert job.get(15) != pid
        assert job.attempt == 1


def test_outcome_that_cannot_be_taken_fails_its_job_alone(app: PgJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_once(monkeypatch, pool, "outcome_of", LookupError("nobody expects that"))
    with app.worker(concurrency=1):
        job = app.using(retry=1).enqueue(f"{APP}.pid")
        with pytest.raises(JobFailedError, match="nobody expects that"):
            job.get(10)
        assert app.enqueue(f"{APP}.pid").get(10)


# -- under pgjobs worker


def test_worker_command_has_a_pool(app: PgJobs, database_url: str) -> None:
    with WorkerProcess(database_url, "--pool-max-jobs", "1", app=APP).ready() as worker:
        pids = [app.enqueue(f"{APP}.pid").get(10) for _ in range(3)]
        assert len({*pids, worker.popen.pid, *worker.children()}) == 5
        app.enqueue(f"{APP}.say", "from the pool").get(10)
        eventually(lambda: worker.said("from the pool"))


@pytest.mark.parametrize("victim", ["supervisor", "child", "group"])
def test_pool_dies_with_its_worker(victim: str, app: PgJobs, database_url: str, flag: Path) -> None:
    with WorkerProcess(database_url, app=APP).ready() as worker:
        job = app.enqueue(f"{APP}.hold", str(flag))
        pid = begun(flag, job)
        (child,) = worker.children()
        if victim == "child":
            os.kill(child, signal.SIGKILL)
        elif victim == "supervisor":
            worker.popen.kill()
        else:
            os.killpg(worker.popen.pid, signal.SIGKILL)
        eventually(lambda: not lives(pid), timeout_s=15)


def test_signal_to_the_whole_group_lets_pooled_jobs_finish(
    app: PgJobs, database_url: str, flag: Path, conn: psycopg.Connection[Any]
) -> None:
    """As systemd stops a service: every process gets SIGTERM at once."""
    with WorkerProcess(database_url, app=APP).ready() as worker:
        job = app.enqueue(f"{APP}.hold", str(flag))
        pid = begun(flag, job)
        for process in (worker.popen.pid, *worker.children(), pid):
            os.kill(process, signal.SIGTERM)
        time.sleep(0.5)
        flag.unlink()
        assert worker.leave() == 0
    assert (job.refresh().status, job.result) == (Status.SUCCEEDED, pid)
