"""What operators do with workers: restart them without a gap, let their number follow the load, command and ask."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result

from pgjobs import Job, PgJobs, Status, statements
from pgjobs.cli.worker import command as worker_command
from pgjobs.cli.workers import command as workers_command
from pgjobs.connections.link import Link
from pgjobs.job import new_id
from tests.apps import basic
from tests.privileges import login, schema_with_roles
from tests.processes import PGJOBS, ROOT, WorkerProcess, environment, pgjobs
from tests.support import eventually
from tests.test_budgets import buffers, explain, fill, scans_of_jobs

pytestmark = pytest.mark.slow
needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds children in /proc")

TASKS = "tests.apps.basic"

CODE = """
from pathlib import Path
from tests.apps.basic import jobs

@jobs.task(name="edition")
def edition() -> str:
    return {edition!r}
"""


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


def hold(app: PgJobs, flag: Path, count: int) -> list[Job[Any]]:
    held = [app.enqueue(f"{TASKS}.hold", str(flag)) for _ in range(count)]
    eventually(lambda: began(flag, *held))
    return held


def workers(database_url: str, *arguments: str) -> Result:
    """``pgjobs workers``, without a process of its own."""
    return CliRunner().invoke(workers_command, [*arguments, "--url", database_url])


def states(database_url: str) -> list[str]:
    return sorted(worker["state"] for worker in json.loads(ok(database_url, "--json")))


def ok(database_url: str, *arguments: str) -> str:
    done = workers(database_url, *arguments)
    assert done.exit_code == 0, done.output
    return done.stdout


# -- a rolling restart


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """An application whose code changes."""
    (tmp_path / "fresh_app.py").write_text(CODE.format(edition="old"))
    return tmp_path / "fresh_app.py"


def following(database_url: str, code: Path, *arguments: str) -> WorkerProcess:
    path = os.pathsep.join((str(code.parent), str(ROOT)))
    return WorkerProcess(database_url, *arguments, app="fresh_app", PYTHONPATH=path, PYTHONDONTWRITEBYTECODE="1")


@needs_proc
@pytest.mark.server
def test_hangup_replaces_every_process_and_no_slot_is_missing_meanwhile(
    app: PgJobs, database_url: str, code: Path, flag: Path, conn: psycopg.Connection[Any]
) -> None:
    with following(database_url, code, "--processes", "2", "-c", "2").ready(2) as worker:
        olds = set(worker.children())
        held = hold(app, flag, 1)
        assert app.enqueue("edition").get(15) == "old"
        claiming = Least(conn)
        code.write_text(CODE.format(edition="new"))
        worker.signal(signal.SIGHUP)
        eventually(lambda: len(worker.said(" ready: ")) >= 3, timeout_s=20)
        flag.unlink()
        eventually(lambda: worker.said("every process has been followed"), timeout_s=30)
        assert claiming.stop() >= 2
        assert [job.get(15) in olds for job in held] == [True], "what ran ended where it was"
        assert not olds & set(worker.children())
        assert len(worker.children()) == 2
        assert app.enqueue("edition").get(15) == "new"
        assert not worker.said("died")
        worker.signal(signal.SIGTERM)
        assert worker.leave() == 0


class Least:
    """Looks on how many workers claim at least, until it is told to stop."""

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        self._conn = conn
        self._least = 99
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        alive = "SELECT count(*)::int FROM pgjobs.workers WHERE dead_at IS NULL AND stopping_at IS NULL"
        while not self._stop.wait(0.02):
            row = self._conn.execute(alive).fetchone()
            assert row is not None
            self._least = min(self._least, row[0])

    def stop(self) -> int:
        self._stop.set()
        self._thread.join()
        return self._least


@needs_proc
def test_code_that_does_not_load_leaves_the_old_processes_at_work(app: PgJobs, database_url: str, code: Path) -> None:
    with following(database_url, code, "--processes", "2").ready(2) as worker:
        olds = worker.children()
        code.write_text("import nothing_of_that_name")
        worker.signal(signal.SIGHUP)
        eventually(lambda: worker.said("did not start"), timeout_s=20)
        (line,) = worker.said("did not start")
        assert "ERROR" in line
        assert "send SIGHUP again" in line
        assert any("nothing_of_that_name" in each for each in worker.lines)
        assert worker.children() == olds
        assert app.enqueue("edition").get(15) == "old"
        code.write_text(CODE.format(edition="new"))
        worker.signal(signal.SIGHUP)
        eventually(lambda: not set(olds) & set(worker.children()), timeout_s=30)
        assert app.enqueue("edition").get(15) == "new"


def test_hangup_with_max_jobs_keeps_the_count(app: PgJobs, database_url: str, conn: psycopg.Connection[Any]) -> None:
    with WorkerProcess(database_url, "--max-jobs", "5").ready() as worker:
        for _ in range(2):
            app.enqueue(f"{TASKS}.pid").get(timeout=15)
        worker.signal(signal.SIGHUP)
        eventually(lambda: len(worker.said(" ready: ")) == 2, timeout_s=20)
        app.using().enqueue_many(f"{TASKS}.pid", [()] * 10)
        assert worker.leave() == 0
    assert conn.execute("SELECT count(*) FROM pgjobs.jobs WHERE status = 'succeeded'").fetchone() == (5,)


# -- as many as the load demands


@needs_proc
@pytest.mark.server
def test_processes_come_when_jobs_wait_and_go_when_slots_are_idle(app: PgJobs, database_url: str, flag: Path) -> None:
    options = ("--min", "1", "--max", "2", "-c", "1", "--scale-wait", "0.5", "--scale-idle", "1")
    with WorkerProcess(database_url, *options).ready() as worker:
        (first,) = worker.children()
        held = hold(app, flag, 1)
        assert len(worker.children()) == 1
        more = [app.enqueue(f"{TASKS}.hold", str(flag)) for _ in range(3)]
        eventually(lambda: began(flag, more[0]), timeout_s=15)
        assert worker.said("one process more, 2 now")
        time.sleep(1.5)
        assert len(worker.children()) == 2, "never more than --max"
        flag.unlink()
        for job in [*held, *more]:
            job.get(15)
        eventually(lambda: len(worker.children()) == 1, timeout_s=15)
        assert len(worker.said("one process fewer, 1 now")) == 1
        time.sleep(2.0)
        assert len(worker.children()) == 1, "never fewer than --min"
        assert first in worker.children()
        assert not worker.said("died")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--processes", "2", "--max", "4"), "--processes is a fixed number"),
        (("--min", "5", "--max", "4"), "--min 5 is more than --max 4"),
        (("--min", "2"), "has no --max"),
        (("--max", "2", "--burst"), "give --processes"),
        (("--max", "2", "--max-jobs", "9"), "give --processes"),
    ],
)
def test_numbers_of_processes_that_make_no_sense_are_refused(options: tuple[str, ...], says: str) -> None:
    done = CliRunner().invoke(worker_command, ["-A", TASKS, *options])
    assert done.exit_code == 2
    assert says in done.output


@pytest.mark.server
def test_longest_wait_is_that_of_the_first_attempts_of_queues_that_are_not_paused(
    jobs: PgJobs, conn: psycopg.Connection[Any]
) -> None:
    add = (
        "INSERT INTO pgjobs.jobs (task, queue, priority, created_at, attempt)"
        " VALUES ('t', %s, %s, now() - %s * interval '1 second', %s)"
    )
    for row in [
        ("mail", 0, 30, 0), ("mail", 5, 90, 0), ("retried", 0, 900, 1), ("quiet", 0, 600, 0), ("@mine", 0, 700, 0)
    ]:  # fmt: skip
        conn.execute(add, row)
    jobs.pause("quiet")
    waits = jobs.database.run(statements.longest_wait())
    assert {queue: round(wait, -1) for queue, wait in waits.items()} == {"mail": 90}


@pytest.mark.server
@pytest.mark.parametrize("backlog", [10, 20_000])
def test_asking_how_long_jobs_wait_costs_the_same_whatever_waits(
    backlog: int, jobs: PgJobs, conn: psycopg.Connection[Any]
) -> None:
    fill(conn, backlog, "queued")
    plan = explain(conn, statements.longest_wait())
    assert scans_of_jobs(plan) == []
    assert buffers(plan) <= 60


# -- asked and commanded


@pytest.mark.server
@pytest.mark.parametrize("supervised", [True, False])
def test_quiet_worker_finishes_what_runs_and_claims_no_more_until_it_is_resumed(
    supervised: bool, app: PgJobs, database_url: str, flag: Path, conn: psycopg.Connection[Any]
) -> None:
    with WorkerProcess(database_url, "-c", "1") if supervised else app.worker(concurrency=1) as worker:
        (held,) = hold(app, flag, 1)
        ok(database_url, "quiet", "--all")
        eventually(lambda: conn.execute("SELECT 1 FROM pgjobs.workers WHERE quiet_at IS NOT NULL").fetchone())
        if isinstance(worker, WorkerProcess):
            eventually(lambda: worker.said("it is quiet"), timeout_s=2)
        else:
            eventually(lambda: worker.quiet, timeout_s=2)
        waiting = app.enqueue(f"{TASKS}.add", 1, 2)
        assert states(database_url) == ["quiet"]
        assert app.using().broadcast(f"{TASKS}.add", 1, 2) == []
        flag.unlink()
        held.get(15)
        time.sleep(1.5)
        assert waiting.refresh().status is Status.QUEUED
        ok(database_url, "resume", "--all")
        assert waiting.get(5) == 3
        eventually(lambda: states(database_url) == ["idle"])


def test_order_is_obeyed_though_its_notification_was_lost(
    app: PgJobs, database_url: str, conn: psycopg.Connection[Any]
) -> None:
    with WorkerProcess(database_url).ready() as worker:
        conn.execute("UPDATE pgjobs.workers SET quiet_at = now()")
        eventually(lambda: worker.said("it is quiet"), timeout_s=5)


@needs_proc
@pytest.mark.server
def test_stopped_worker_finishes_what_runs_and_nobody_follows_it(app: PgJobs, database_url: str, flag: Path) -> None:
    with WorkerProcess(database_url, "--processes", "2", "-c", "1").ready(2) as worker:
        held = hold(app, flag, 2)
        ok(database_url, "stop", json.loads(ok(database_url, "--json"))[0]["name"])
        assert states(database_url) == ["busy", "stopping"]
        time.sleep(0.5)
        assert len(worker.children()) == 2
        flag.unlink()
        for job in held:
            job.get(15)
        eventually(lambda: len(worker.children()) == 1)
        time.sleep(1.0)
        assert len(worker.children()) == 1
        ok(database_url, "stop", f"{os.uname().nodename}:{worker.popen.pid}")
        assert worker.leave(10) == 0
        assert not worker.said("died")


def test_worker_that_is_signalled_says_that_it_stops(
    app: PgJobs, database_url: str, flag: Path, conn: psycopg.Connection[Any]
) -> None:
    with WorkerProcess(database_url, "-c", "1").ready() as worker:
        hold(app, flag, 1)
        worker.signal(signal.SIGTERM)
        eventually(lambda: conn.execute("SELECT 1 FROM pgjobs.workers WHERE stopping_at IS NOT NULL").fetchone())
        flag.unlink()
        assert worker.leave() == 0


def test_worker_inside_a_process_says_that_it_stops(app: PgJobs, flag: Path, conn: psycopg.Connection[Any]) -> None:
    with app.worker(concurrency=1):
        hold(app, flag, 1)
        ended = threading.Timer(1.0, flag.unlink)
        ended.start()
    row = conn.execute("SELECT stopping_at < dead_at - interval '0.5 seconds' FROM pgjobs.workers").fetchone()
    assert row == (True,)


@pytest.mark.server
@pytest.mark.parametrize("supervised", [True, False])
def test_stacks_of_a_worker_whose_slots_are_all_taken(
    supervised: bool, app: PgJobs, database_url: str, flag: Path, conn: psycopg.Connection[Any]
) -> None:
    with WorkerProcess(database_url, "-c", "2") if supervised else app.worker(concurrency=2):
        held = [app.enqueue(f"{TASKS}.{name}", str(flag)) for name in ("hold", "ahold")]
        eventually(lambda: began(flag, *held))
        (facts,) = json.loads(ok(database_url, "stacks", "--all", "--json"))
        kinds = [("threads", "hold", held[0]), ("coroutines", "ahold", held[1])]
        for kind, name, job in kinds:
            (mine,) = (each for each in facts[kind] if each["job"] == f"{TASKS}.{name} {job.id}")
            assert any(f"{name} (" in frame and "basic.py:" in frame for frame in mine["frames"])
        text = ok(database_url, "stacks", facts["id"])
        assert f"runs {TASKS}.hold {held[0].id}" in text
        assert re.search(r"pid \d+ .*\n  thread [^\n]+  runs ", text), "what runs a job stands first"
        assert conn.execute("SELECT asked, told FROM pgjobs.workers").fetchone() == (None, None)
        flag.unlink()


def test_profile_of_a_worker_names_what_takes_the_time(app: PgJobs, database_url: str) -> None:
    with WorkerProcess(database_url).ready():
        busy = app.enqueue(f"{TASKS}.never_gives_way", 6.0)
        eventually(lambda: busy.refresh().status is Status.RUNNING)
        (facts,) = json.loads(ok(database_url, "profile", "--all", "--seconds", "0.5", "--json"))
        assert facts["samples"] > 3
        assert any("never_gives_way" in stack for stack in facts["stacks"])
        top = ok(database_url, "profile", "--all", "--seconds", "0.5")
        assert "never_gives_way" in top
        assert "samples in" in top


@pytest.mark.skipif(sys.platform != "linux", reason="the signal is one of Linux")
def test_stacks_of_a_worker_in_which_no_python_code_can_run(app: PgJobs, database_url: str, flag: Path) -> None:
    with WorkerProcess(database_url).ready():
        stuck = app.enqueue(f"{TASKS}.hold_interpreter", str(flag), 30)
        eventually(lambda: began(flag, stuck))
        (facts,) = json.loads(ok(database_url, "stacks", "--all", "--json"))
        (mine,) = (each for each in facts["threads"] if any("hold_interpreter (" in frame for frame in each["frames"]))
        assert "hold_interpreter (" in mine["frames"][-1], "the innermost frame is the last one"


def test_worker_that_does_not_answer_is_named(app: PgJobs, database_url: str, flag: Path) -> None:
    with WorkerProcess(database_url).ready():
        stuck = app.enqueue(f"{TASKS}.hold_interpreter", str(flag), 30)
        eventually(lambda: began(flag, stuck))
        done = workers(database_url, "stacks", "--all", "--timeout", "0.5")
    assert done.exit_code == 1
    assert "no answer from" in done.stderr


@pytest.mark.parametrize("wrong", ["{}", "[]", '{"id": 7, "what": "stacks", "seconds": 1}',
                                   '{"id": "a b", "what": "stacks", "seconds": 1}',
                                   '{"id": "a", "what": "else", "seconds": 1}'])  # fmt: skip
def test_question_that_makes_no_sense_is_passed_over(wrong: str, jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    link = Link(jobs.database, "test")
    worker = new_id()
    link.one(
        statements.register(worker, supervisor=worker, name="w", host="h", pid=1, process="{}", queues=["*"], slots=9)
    )
    conn.execute("UPDATE pgjobs.workers SET asked = %s::jsonb", [wrong])
    assert link.one(statements.beat([worker]))[worker] == (False, False, None)
    link.close()


def test_question_is_answered_once_and_not_after_another_one(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    link = Link(jobs.database, "test")
    worker = new_id()
    link.one(
        statements.register(worker, supervisor=worker, name="w", host="h", pid=1, process="{}", queues=["*"], slots=9)
    )
    first, second = (statements.Question(name, "stacks", 0.0) for name in ("first", "second"))
    assert link.one(statements.ask([worker], first)) == [worker]
    assert link.one(statements.beat([worker]))[worker].question == first
    link.one(statements.ask([worker], second))
    assert link.one(statements.answer(worker, "first", "{}")) == []
    assert link.one(statements.answers([worker], "first"))[worker] == (False, None, True)
    assert link.one(statements.answer(worker, "second", '{"pid": 1}')) == [worker]
    assert link.one(statements.answers([worker], "second"))[worker] == (True, {"pid": 1}, True)
    assert link.one(statements.beat([worker]))[worker].question is None
    link.close()


def test_whoever_does_not_wait_for_the_answer_leaves_no_question(
    jobs: PgJobs, database_url: str, conn: psycopg.Connection[Any]
) -> None:
    worker = new_id()
    jobs.database.run(
        statements.register(worker, supervisor=worker, name="w", host="h", pid=1, process="{}", queues=["*"], slots=9)
    )
    asked = "SELECT 1 FROM pgjobs.workers WHERE asked IS NOT NULL"
    command = [*PGJOBS, "workers", "stacks", "w"]
    with subprocess.Popen(command, env=environment(database_url), stderr=subprocess.PIPE) as process:
        eventually(lambda: conn.execute(asked).fetchone())
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)
    assert conn.execute(asked).fetchone() is None


def test_workers_are_named_or_all(database_url: str) -> None:
    neither = pgjobs(database_url, "workers", "quiet")
    assert (neither.returncode, "or give --all" in neither.stderr) == (2, True)
    nobody = pgjobs(database_url, "workers", "stop", "ghost")
    assert (nobody.returncode, "no worker ghost lives" in nobody.stderr) == (1, True)


def test_database_is_named_behind_the_command_and_not_passed_over_before_it(database_url: str) -> None:
    done = CliRunner().invoke(workers_command, ["--url", database_url, "stop", "--all"])
    assert (done.exit_code, "write --url behind stop" in done.output) == (2, True)


@pytest.mark.server
def test_admin_and_worker_may_command_and_nobody_else(conn: psycopg.Connection[Any], direct_url: str) -> None:
    with schema_with_roles(conn, direct_url) as schema:
        who: dict[str, bool] = {}
        for role in ("admin", "worker", "reader", "producer"):
            with login(conn, direct_url, schema, role) as url:
                who[role] = all(_may(PgJobs(url, schema=schema), command) for command in COMMANDS)
                if not who[role]:
                    assert not any(_may(PgJobs(url, schema=schema), command) for command in COMMANDS)
    assert who == {"admin": True, "worker": True, "reader": False, "producer": False}


COMMANDS: list[Callable[[], statements.Statement[Any]]] = [
    lambda: statements.make_quiet([new_id()], quiet=True),
    lambda: statements.dismiss([new_id()]),
    lambda: statements.ask([new_id()], statements.Question("a", "stacks", 0.0)),
    lambda: statements.forget_question([new_id()], "a"),
]


def _may(jobs: PgJobs, command: Callable[[], statements.Statement[Any]]) -> bool:
    try:
        jobs.database.run(command())
    except psycopg.errors.InsufficientPrivilege:
        return False
    finally:
        jobs.close()
    return True
