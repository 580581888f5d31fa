"""A process for each run, what a run writes and uses, how nice it is, and programs as jobs."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest

from pgjobs import Job, JobFailedError, OptionError, PgJobs, Status
from pgjobs.worker import Worker
from pgjobs.worker.executors.apart import PoolProcess
from tests.apps import forked, threaded
from tests.processes import WorkerProcess, pgjobs
from tests.support import eventually
from tests.test_pool import begun, lives

pytestmark = [pytest.mark.slow, pytest.mark.server]

APP = "tests.apps.forked"
APART = ["process", "fork"]


@pytest.fixture
def app(jobs: PgJobs, monkeypatch: pytest.MonkeyPatch) -> PgJobs:
    """The tasks of the application, in the test's database."""
    monkeypatch.setenv("PGJOBS_URL", jobs.database.url)
    for task in forked.jobs.tasks.values():
        jobs.task(name=task.name, executor=task.executor, capture=task.capture, nice=task.nice, **task.options)(
            task.function
        )
    return jobs


@pytest.fixture
def worker(app: PgJobs) -> Iterator[Worker]:
    with app.worker(concurrency=2, app=APP) as worker:
        yield worker
        assert worker.id, "it still runs"


@pytest.fixture
def flag(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "flag"
    path.touch()
    yield path
    path.unlink(missing_ok=True)


# -- a process for each run


def test_each_run_has_a_fresh_process_of_one_that_is_kept(app: PgJobs) -> None:
    with app.worker(concurrency=1, app=APP):
        told = [app.enqueue(f"{APP}.whence").get(20) for _ in range(4)]
    assert len({pid for pid, _, _ in told}) == 4
    assert len({parent for _, parent, _ in told}) == 1
    assert os.getpid() not in {pid for pids in told for pid in pids[:2]}
    assert {count for _, _, count in told} == {1}, "what one run changes, the next does not see"


def test_coroutine_function_runs_there_too(app: PgJobs, worker: Worker) -> None:
    job = app.enqueue(f"{APP}.anap")
    assert job.get(20) == str(job.id)


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGKILL"])
def test_run_that_dies_fails_alone_and_its_parent_goes_on(name: str, app: PgJobs) -> None:
    with app.worker(concurrency=1, app=APP):
        before = app.enqueue(f"{APP}.whence").get(20)
        job = app.enqueue(f"{APP}.signalled", name)
        with pytest.raises(JobFailedError, match=name):
            job.get(20)
        assert (job.refresh().reason, job.row.crashes) == ("crash", 0)
        assert app.enqueue(f"{APP}.whence").get(20)[1] == before[1]


def test_exception_comes_back_with_its_traceback(app: PgJobs, worker: Worker) -> None:
    job = app.enqueue(f"{APP}.wrong")
    with pytest.raises(JobFailedError, match="no such thing"):
        job.get(20)
    assert 'raise LookupError("no such thing")' in (job.failures()[0].traceback or "")


@pytest.mark.parametrize("how", ["timeout", "cancel", "stop"])
def test_run_that_must_end_is_killed_with_all_that_it_started(how: str, app: PgJobs, flag: Path) -> None:
    worker = app.worker(app=APP)
    worker.start()
    job = app.using(timeout=1.5 if how == "timeout" else 60, retry=1).enqueue(f"{APP}.hold_with_a_child", str(flag))
    child = begun(flag, job)
    if how == "cancel":
        job.cancel("enough")
    if how == "stop":
        worker.stop(0.1)
    ends = {"timeout": Status.FAILED, "cancel": Status.CANCELLED, "stop": Status.QUEUED}
    eventually(lambda: job.refresh().status is ends[how])
    eventually(lambda: not lives(child))
    worker.stop()


def test_what_a_run_leaves_behind_ends_with_it(app: PgJobs, worker: Worker, flag: Path) -> None:
    job = app.enqueue(f"{APP}.leave_a_child", str(flag))
    job.get(20)
    child = begun(flag, job)
    eventually(lambda: not lives(child))


def test_pool_dies_with_its_worker(app: PgJobs, database_url: str, flag: Path) -> None:
    with WorkerProcess(database_url, app=APP).ready() as worker:
        job = app.enqueue(f"{APP}.hold_with_a_child", str(flag))
        begun(flag, job)
        (child,) = worker.children()
        (zygote,) = (
            int(pid) for pid in Path(f"/proc/{child}/task").glob("*/children") for pid in pid.read_text().split()
        )
        (run,) = (int(pid) for pid in Path(f"/proc/{zygote}/task/{zygote}/children").read_text().split())
        os.kill(child, signal.SIGKILL)
        eventually(lambda: not lives(zygote) and not lives(run))


def test_application_with_threads_is_not_forked(jobs: PgJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGJOBS_URL", jobs.database.url)
    jobs.task(name="tests.apps.threaded.work", executor="fork", retry=1)(threaded.work.function)
    refused = pytest.raises(JobFailedError, match=r"starts threads when it is imported \(its own\)")
    with jobs.worker(app="tests.apps.threaded"), refused:
        jobs.enqueue("tests.apps.threaded.work").get(20)


# -- output


@pytest.mark.parametrize("executor", APART)
def test_what_a_run_writes_is_kept(executor: str, app: PgJobs, worker: Worker) -> None:
    job = app.enqueue(f"{APP}.write_{executor}")
    job.get(20)
    assert sorted((job.output() or "").splitlines()) == ["by a program", "printed", "to stderr"]
    again = app.enqueue(f"{APP}.write_{executor}", "flood")
    again.get(20)
    text = again.output() or ""
    assert text.endswith("xlast words"), "the last of it"
    assert len(text) == 1 << 16


@pytest.mark.parametrize("executor", APART)
@pytest.mark.parametrize(("how", "reason"), [("die", "crash"), ("hang", "timeout")])
def test_what_a_run_wrote_before_it_was_killed_is_kept(
    how: str, reason: str, executor: str, app: PgJobs, worker: Worker
) -> None:
    job = app.using(timeout=2).enqueue(f"{APP}.write_{executor}", how)
    with pytest.raises(JobFailedError):
        job.get(30)
    assert job.refresh().reason == reason
    assert "printed" in (job.output() or "")


def test_captured_run_leaves_its_process_as_it_was(app: PgJobs) -> None:
    with app.worker(concurrency=1, app=APP):
        before = app.enqueue(f"{APP}.written_to").get(20)
        assert list(before[1:3]) == [os.fstat(1).st_ino, os.fstat(2).st_ino], "where the worker's own goes"
        app.enqueue(f"{APP}.write", b"kept".hex()).get(20)
        assert app.enqueue(f"{APP}.written_to").get(20) == before


def test_output_is_that_of_the_run_alone_and_any_bytes_are_kept(app: PgJobs) -> None:
    with app.worker(concurrency=1, app=APP):
        jobs = [app.enqueue(f"{APP}.write", data.hex()) for data in (b"first", b"", b"a\0b", b"\xff")]
        app.wait(jobs, 30)
    assert [job.output() for job in jobs] == ["first", "", r"a\0b", "\N{REPLACEMENT CHARACTER}"]


def test_what_came_after_the_end_of_a_run_is_not_the_next_ones() -> None:
    run: Any = SimpleNamespace(task=SimpleNamespace(capture=True, signature=SimpleNamespace(seal=str)))
    settings = {"app": None, "path": sys.path, "fork": False, "allow_shell": False, "worker": "w", "log_level": "INFO"}
    process = PoolProcess(settings, 0)
    ours, theirs = os.pipe()
    os.set_blocking(ours, False)
    os.dup2(ours, process.output)
    try:
        os.write(theirs, b"late")
        process.begin(run, b"")
        os.write(theirs, b"own")
        account = process.account(run, None)
    finally:
        process.stop()
        process.close()
        os.close(ours)
        os.close(theirs)
    assert account is not None
    assert account.output == "own"


def test_run_that_closes_what_it_writes_to_has_succeeded(app: PgJobs, worker: Worker) -> None:
    assert app.enqueue(f"{APP}.close_stdout").get(20) == "closed"
    assert app.enqueue(f"{APP}.lose_stdout").get(20) == "lost"


def test_what_is_not_captured_goes_where_the_workers_own_does(app: PgJobs, worker: Worker) -> None:
    job = app.enqueue(f"{APP}.silent")
    job.get(20)
    assert job.output() is None


async def test_output_is_read_asynchronously_too(app: PgJobs, worker: Worker) -> None:
    job = app.enqueue(f"{APP}.write_process")
    job.get(20)
    assert "printed" in (await job.aoutput() or "")
    await app.aclose()


# -- usage


@pytest.mark.parametrize("executor", APART)
def test_usage_is_that_of_the_attempt_alone(executor: str, app: PgJobs) -> None:
    with app.worker(concurrency=1, app=APP):
        costly = app.enqueue(f"{APP}.spend_{executor}", 0.3, 150)
        cheap = app.enqueue(f"{APP}.spend_{executor}", 0.0, 0)
        app.wait([costly, cheap], 30)
    much, little = costly.refresh().usage, cheap.refresh().usage
    assert much is not None
    assert little is not None
    assert 0.3 <= much["cpu_s"] < 3
    assert little["cpu_s"] < 0.2
    assert much["max_rss_bytes"] > 150 << 20 > little["max_rss_bytes"] > 1 << 20


def test_usage_costs_no_update_of_its_own(app: PgJobs, conn: psycopg.Connection[Any]) -> None:
    with app.worker(concurrency=1, app=APP):
        app.wait([app.enqueue(f"{APP}.spend_process", 0.0, 0) for _ in range(5)], 30)

    def updates() -> int:
        row = conn.execute("SELECT n_tup_upd FROM pg_stat_user_tables WHERE relid = 'pgjobs.jobs'::regclass").fetchone()
        assert row is not None
        return int(row[0])

    eventually(lambda: updates() >= 10, timeout_s=20)  # a pooler's connections live on, and tell after ten seconds
    assert updates() == 10, "one by the claim and one by the completion"


def test_jobs_of_other_executors_have_no_account(app: PgJobs, worker: Worker) -> None:
    job = app.enqueue(f"{APP}.in_a_thread")
    job.get(20)
    assert (job.usage, job.output()) == (None, None)


# -- nice


@pytest.mark.parametrize("executor", APART)
def test_nice_task_gives_way_and_leaves_others_as_they_are(executor: str, app: PgJobs) -> None:
    own = os.nice(0)
    with app.worker(concurrency=1, app=APP):
        assert app.enqueue(f"{APP}.nice_{executor}").get(20) == own + 7
        assert app.enqueue(f"{APP}.not_nice").get(20) == own
        assert app.enqueue(f"{APP}.nice_{executor}").get(20) == own + 7


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"nice": 5}, "capture and nice are for executor='process' or 'fork', not for 'thread'"),
        ({"capture": True}, "capture and nice are for"),
        ({"executor": "fork", "nice": -1}, "nice is -1; give 0 to 19"),
        ({"executor": "spoon"}, "choose 'async', 'thread', 'process' or 'fork'"),
    ],
)
def test_setting_that_cannot_be_meant_is_refused(settings: Any, what: str, jobs: PgJobs) -> None:
    with pytest.raises(OptionError, match=what):
        jobs.task(**settings)(lambda: None)


# -- programs as jobs


def shell(url: str, *arguments: str) -> str:
    done = pgjobs(url, "enqueue-shell", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["id"])


def test_program_runs_for_its_exit_code_and_its_output(jobs: PgJobs, database_url: str) -> None:
    plain = jobs.job(shell(database_url, "--", "sh", "-c", "echo out; echo err >&2; exit 3"))
    checked = jobs.job(shell(database_url, "--check", "--max-attempts", "1", "--", "sh", "-c", "exit 3"))
    absent = jobs.job(shell(database_url, "--max-attempts", "1", "--", "no-such-program"))
    with WorkerProcess(database_url, "--allow-shell", "-c", "1").ready():
        assert plain.get(30) == {"exit_code": 3}
        with pytest.raises(JobFailedError, match="exit code 3"):
            checked.get(30)
        with pytest.raises(JobFailedError, match="no-such-program"):
            absent.get(30)
    assert plain.output() == "out\nerr\n"
    assert plain.refresh().usage is not None
    shown = pgjobs(database_url, "jobs", "show", str(plain.id))
    assert "output\nout\nerr\n" in shown.stdout
    assert "s of CPU" in shown.stdout


def test_lines_of_a_program_are_heard_while_it_runs(jobs: PgJobs, database_url: str, tmp_path: Path) -> None:
    go = tmp_path / "go"
    script = f"echo first; until [ -e {go} ]; do sleep 0.05; done; sleep 60 & echo last"
    job: Job[Any] = jobs.job(shell(database_url, "--", "sh", "-c", script))
    with jobs.worker(allow_shell=True):
        eventually(lambda: [line.line for line in job.logs()] == ["first"], 30)
        assert job.refresh().status is Status.RUNNING
        go.touch()
        assert job.get(10) == {"exit_code": 0}, "whom it leaves behind is not waited for"
    assert [line.line for line in job.logs()] == ["first", "last"]
    assert job.output() == "first\nlast\n"


def test_programs_run_where_that_is_allowed_alone(
    jobs: PgJobs, database_url: str, conn: psycopg.Connection[Any], tmp_path: Path
) -> None:
    file = tmp_path / "made"
    job = jobs.job(shell(database_url, "--", "touch", str(file)))
    with jobs.worker():
        eventually(lambda: job.refresh().reason == "unknown task")
    assert not file.exists()
    conn.execute("UPDATE pgjobs.jobs SET due_at = now()")
    with jobs.worker(allow_shell=True):
        assert job.get(30) == {"exit_code": 0}
    assert file.exists()


@pytest.mark.parametrize("how", ["timeout", "cancel"])
def test_program_is_killed_with_all_its_children(how: str, jobs: PgJobs, database_url: str, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    arguments = ["--timeout", "2s", "--max-attempts", "1"] if how == "timeout" else []
    job: Job[Any] = jobs.job(shell(database_url, *arguments, "--", "sh", "-c", f"sleep 60 & echo $! > {file}; wait"))
    with jobs.worker(allow_shell=True):
        eventually(lambda: file.exists() and file.read_text())
        if how == "cancel":
            job.cancel()
        eventually(lambda: job.refresh().status.ended)
        assert job.reason == ("timeout" if how == "timeout" else "cancelled")
        eventually(lambda: not lives(int(file.read_text())))
