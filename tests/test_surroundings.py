"""A worker and a producer inside of somebody else's program: its logging, its forks, its threads, its end."""

from __future__ import annotations

import logging
import multiprocessing
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgjobs import JobLogFilter, PgJobs
from tests.processes import ROOT, WorkerProcess, environment
from tests.support import eventually

pytestmark = pytest.mark.server


# -- logging


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.setFormatter(logging.Formatter("%(message)s|%(task)s|%(job_id)s|%(attempt)s"))
        self.addFilter(JobLogFilter())

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def kept() -> Iterator[Kept]:
    handler, logger = Kept(), logging.getLogger("app")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


@pytest.mark.parametrize("is_async", [False, True])
def test_lines_of_a_job_say_whose_they_are(is_async: bool, jobs: PgJobs, kept: Kept) -> None:
    def work() -> None:
        logging.getLogger("app").warning("at work")

    async def awork() -> None:
        work()

    with jobs.worker():
        job = jobs.task(name="work")(awork if is_async else work).enqueue()
        job.get(15)
    logging.getLogger("app").warning("outside")
    assert kept.lines == [f"at work|work|{job.id}|1", "outside|||"]


@pytest.mark.slow
def test_worker_command_shows_whose_a_line_is(jobs: PgJobs, database_url: str) -> None:
    with WorkerProcess(database_url, app="tests.apps.pooled") as worker:
        job = jobs.enqueue("tests.apps.pooled.say", "from the pool")
        job.get(10)
        eventually(lambda: worker.said("from the pool"))
        (line,) = worker.said("from the pool")
        assert line.endswith(f"from the pool  [tests.apps.pooled.say {job.id} attempt 1]")


# -- forks and threads


def _enqueue_in_a_fork(jobs: PgJobs, count: int) -> None:
    for i in range(count):
        jobs.tasks["work"].enqueue(i)
    assert jobs.worker(burst=True, max_jobs=count).run() is None


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_application_may_be_loaded_before_it_forks(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    """As gunicorn does with --preload: the parent has used its connections, and goes on to."""
    task = jobs.task(name="work")(lambda i: i)
    first = task.enqueue(0)
    fork = multiprocessing.get_context("fork")
    children = [fork.Process(target=_enqueue_in_a_fork, args=(jobs, 20)) for _ in range(4)]
    for child in children:
        child.start()
    mine = [task.enqueue(i) for i in range(20)]
    for child in children:
        child.join(30)
    assert [child.exitcode for child in children] == [0] * 4
    assert conn.execute("SELECT count(*) FROM pgjobs.jobs").fetchone() == (101,)
    assert first.refresh().task == "work"
    jobs.worker(burst=True).run()
    assert [job.get(15) for job in mine] == list(range(20))


def test_worker_may_be_started_from_a_thread(jobs: PgJobs) -> None:
    def work() -> int:
        return threading.get_ident()

    job = jobs.task(work).enqueue()
    thread = threading.Thread(target=jobs.worker(burst=True).run)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    assert job.get(1) not in (thread.ident, threading.get_ident())


def test_many_threads_share_one_queue(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    task = jobs.task(name="work")(lambda i: i)
    errors: list[BaseException] = []

    def produce() -> None:
        try:
            for i in range(10):
                task.enqueue(i).refresh()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=produce) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert errors == []
    assert conn.execute("SELECT count(*) FROM pgjobs.jobs").fetchone() == (200,)


# -- the end of a program


ENDINGS = {
    "a producer that closes nothing": "job = work.enqueue(1); job.refresh()",
    "an async producer that closes nothing": "asyncio.run(aproduce())",
    "a worker in a block": "with jobs.worker(): assert work.enqueue(1).get(15) == 1",
    "a worker that nobody stops": "jobs.worker().start(); assert work.enqueue(1).get(15) == 1",
    "a worker that runs a job which nobody stops": "jobs.worker().start(); nap.enqueue(60); time.sleep(1)",
    "a closed queue": "work.enqueue(1); jobs.close(); jobs.close()",
    "a queue that is used again when it was closed": "jobs.close(); work.enqueue(1); jobs.close(); work.enqueue(1)",
}


@pytest.mark.slow
@pytest.mark.parametrize("what", ENDINGS)
def test_program_ends_without_a_word(what: str, database_url: str, tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(
        textwrap.dedent(
            """
            import asyncio, time
            from pgjobs import PgJobs
            jobs = PgJobs()

            @jobs.task
            def work(i: int) -> int:
                return i

            @jobs.task
            def nap(seconds: float) -> None:
                time.sleep(seconds)

            async def aproduce():
                asyncio.get_running_loop().slow_callback_duration = 10
                job = await work.aenqueue(1)
                await job.arefresh()
            """
        )
        + ENDINGS[what]
    )
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", str(script)],
        env=environment(database_url),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.slow
def test_ctrl_c_says_what_happens_and_what_a_second_one_does(jobs: PgJobs, database_url: str, tmp_path: Path) -> None:
    import signal

    flag = tmp_path / "flag"
    flag.touch()
    with WorkerProcess(database_url).ready() as worker:
        job = jobs.enqueue("tests.apps.basic.hold", str(flag))
        eventually(Path(f"{flag}.{job.id}").exists)
        os.killpg(worker.popen.pid, signal.SIGINT)
        eventually(lambda: worker.said("waiting up to 30 s for 1 running"))
        assert worker.said("ask once more to stop them now")
        os.killpg(worker.popen.pid, signal.SIGINT)
        assert worker.leave(5) == 0
        assert not worker.said("Traceback")
    assert (job.refresh().status, job.attempt) == ("queued", 0)
