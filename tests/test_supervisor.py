"""The supervisor: what it kills and why, who pays for it, and whose deaths it finds."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgjobs import Job, PgJobs, Status
from pgjobs.supervisor.process import Settings
from pgjobs.supervisor.supervisor import Supervisor
from pgjobs.worker import identity
from tests.apps import basic
from tests.processes import WorkerProcess
from tests.support import eventually

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(identity.place() is None, reason="reads /proc, which only Linux has"),
]

TASKS = "tests.apps.basic"


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


def neighbours(app: PgJobs, flag: Path) -> list[Job[Any]]:
    """Jobs that hold a slot beside the one that the test is about."""
    held = [app.enqueue(f"{TASKS}.{name}", str(flag)) for name in ("hold", "ahold")]
    eventually(lambda: began(flag, *held))
    return held


def fates(jobs: list[Job[Any]]) -> list[tuple[Status, int, int]]:
    return [(job.refresh().status, job.attempt, job.row.crashes) for job in jobs]


def test_job_that_holds_the_interpreter_past_its_timeout_fails_alone(
    app: PgJobs, database_url: str, flag: Path
) -> None:
    with WorkerProcess(database_url).ready() as worker:
        held = neighbours(app, flag)
        late = app.using(timeout=1, retry=1).enqueue(f"{TASKS}.hold_interpreter", str(flag), 60)
        eventually(lambda: late.refresh().status.ended, timeout_s=6)
        assert (late.status, late.reason, late.attempt, late.row.crashes) == (Status.FAILED, "timeout", 1, 0)
        assert [failure.reason for failure in late.failures()] == ["timeout"]
        flag.unlink()
        for job in held:
            job.get(timeout=10)
        assert fates(held) == [(Status.SUCCEEDED, 1, 0)] * 2, "neighbours pay nothing"
        assert all(job.failures() == [] for job in held)
        assert worker.said("could not stop a job over its timeout")


def test_job_that_holds_the_interpreter_is_tried_again_after_its_timeout(
    app: PgJobs, database_url: str, flag: Path
) -> None:
    with WorkerProcess(database_url).ready():
        late = app.using(timeout=1, retry=2).enqueue(f"{TASKS}.hold_interpreter", str(flag), 60)
        eventually(late.failures, timeout_s=8)
        assert [(failure.reason, failure.attempt) for failure in late.failures()] == [("timeout", 1)]
        assert not late.refresh().status.ended


def test_process_that_stands_still_is_replaced(app: PgJobs, database_url: str, flag: Path) -> None:
    with WorkerProcess(database_url, "--stall-timeout", "2").ready() as worker:
        stuck = app.enqueue(f"{TASKS}.hold_interpreter", str(flag), 60)
        eventually(lambda: began(flag, stuck))
        eventually(lambda: worker.said("it has stood still"), timeout_s=6)
        eventually(lambda: stuck.refresh().row.crashes == 1, timeout_s=8)
        assert "stood still" in (stuck.failures()[0].message or "")


def test_holding_the_interpreter_without_a_timeout_is_no_death(app: PgJobs, database_url: str, flag: Path) -> None:
    """Twelve seconds: a worker that cannot beat is dead after ten."""
    with WorkerProcess(database_url).ready() as worker, app.worker(queues="other"):
        (child,) = worker.children()
        slow = app.using(timeout=None).enqueue(f"{TASKS}.hold_interpreter", str(flag), 12)
        assert slow.get(timeout=20) == child
        assert (slow.row.attempt, slow.row.crashes) == (1, 0)


def test_process_over_the_cap_is_replaced_when_it_has_drained(app: PgJobs, database_url: str, flag: Path) -> None:
    with WorkerProcess(database_url, "--max-rss", "200M").ready() as worker:
        (first,) = worker.children()
        greedy = app.enqueue(f"{TASKS}.hog", str(flag), 250, 30)
        eventually(lambda: worker.said("makes room for a fresh process"))
        assert app.enqueue(f"{TASKS}.add", 1, 2).refresh().status is Status.QUEUED
        flag.unlink()
        assert greedy.get(timeout=15) == 250 << 20
        assert app.enqueue(f"{TASKS}.pid").get(timeout=15) != first
        assert not worker.said("died")


def test_process_far_over_the_cap_is_killed_and_who_had_begun_pays(app: PgJobs, database_url: str, flag: Path) -> None:
    with WorkerProcess(database_url, "--max-rss", "150M").ready() as worker:
        greedy = app.enqueue(f"{TASKS}.hog", str(flag), 400, 30)
        eventually(lambda: greedy.refresh().status is Status.FAILED, timeout_s=20)
        assert (greedy.reason, greedy.row.crashes) == ("poison", 3)
        assert all("max_rss is 150 MB" in (failure.message or "") for failure in greedy.failures())
        assert app.enqueue(f"{TASKS}.add", 1, 2).get(timeout=15) == 3
        assert len(worker.said("worker process")) == 1, "from the second time on it dies in a process of its own"


def test_process_with_a_deaf_thread_is_replaced_when_it_has_drained(app: PgJobs, database_url: str, flag: Path) -> None:
    with WorkerProcess(database_url, "-c", "2").ready() as worker:
        (first,) = worker.children()
        held = app.enqueue(f"{TASKS}.hold", str(flag))
        deaf = app.using(timeout=0.5, retry=1).enqueue(f"{TASKS}.sleep_deaf", str(flag), 60)
        eventually(lambda: deaf.refresh().status is Status.FAILED, timeout_s=8)
        assert deaf.reason == "timeout"
        assert worker.children() == [first], "a job still runs there"
        flag.unlink()
        assert held.get(timeout=15) == first
        assert app.enqueue(f"{TASKS}.pid").get(timeout=15) != first
        assert not worker.said("died")


def test_worker_that_starts_finds_the_dead_of_its_machine_at_once(app: PgJobs, database_url: str, flag: Path) -> None:
    with WorkerProcess(database_url).ready() as victim:
        held = neighbours(app, flag)
        os.killpg(victim.popen.pid, signal.SIGKILL)
        victim.popen.wait()
    flag.unlink()
    with WorkerProcess(database_url) as other:
        eventually(lambda: other.said("dead: "), timeout_s=8)
        for job in held:
            job.get(timeout=8)
    assert [job.row.crashes for job in held] == [0, 0], "nobody knows whose fault it was"


def test_worker_that_lives_finds_the_dead_of_its_machine_in_three_seconds(
    app: PgJobs, database_url: str, flag: Path
) -> None:
    with WorkerProcess(database_url).ready() as victim:
        held = neighbours(app, flag)
        with app.worker():
            os.killpg(victim.popen.pid, signal.SIGKILL)
            victim.popen.wait()
            flag.unlink()
            for job in held:
                job.get(timeout=4)


def test_dead_child_of_a_living_supervisor_is_left_to_it(
    app: PgJobs, database_url: str, flag: Path, conn: psycopg.Connection[Any]
) -> None:
    """It knows which jobs had begun; whoever only sees that a process is gone does not."""
    with WorkerProcess(database_url).ready() as victim:
        held = neighbours(app, flag)
        (child,) = victim.children()
        victim.signal(signal.SIGSTOP)
        os.kill(child, signal.SIGKILL)
        with app.worker(queues="other"):
            time.sleep(4)
            assert fates(held) == [(Status.RUNNING, 1, 0)] * 2
            victim.signal(signal.SIGCONT)
            eventually(lambda: all(job.refresh().row.crashes == 1 for job in held), timeout_s=12)


def test_child_dies_with_its_supervisor_even_inside_c_code(app: PgJobs, database_url: str, flag: Path) -> None:
    with WorkerProcess(database_url).ready() as worker:
        (child,) = worker.children()
        deaf = app.enqueue(f"{TASKS}.hold_interpreter", str(flag), 60)
        eventually(lambda: began(flag, deaf))
        worker.popen.kill()
        worker.popen.wait()
        eventually(lambda: not Path(f"/proc/{child}").exists(), timeout_s=15)


def test_paused_supervisor_kills_nobody_when_it_wakes(app: PgJobs, database_url: str, flag: Path) -> None:
    with WorkerProcess(database_url, "--stall-timeout", "2").ready() as worker:
        (child,) = worker.children()
        timed = app.using(timeout=2, retry=1).enqueue(f"{TASKS}.sleep_deaf", str(flag), 1.5)
        eventually(lambda: began(flag, timed))
        os.killpg(worker.popen.pid, signal.SIGSTOP)
        time.sleep(5)
        os.killpg(worker.popen.pid, signal.SIGCONT)
        eventually(lambda: timed.refresh().status.ended, timeout_s=12)
        assert worker.children() == [child]
        assert not worker.said("died")


def test_child_that_is_asked_to_leave_finishes_and_is_replaced(app: PgJobs, database_url: str, flag: Path) -> None:
    with WorkerProcess(database_url).ready() as worker:
        (first,) = worker.children()
        held = app.enqueue(f"{TASKS}.hold", str(flag))
        eventually(lambda: began(flag, held))
        os.kill(first, signal.SIGTERM)
        time.sleep(0.3)
        flag.unlink()
        assert held.get(timeout=15) == first
        assert app.enqueue(f"{TASKS}.pid").get(timeout=15) != first
        assert not worker.said("died")


def test_process_that_is_replaced_leaves_the_rest_of_max_jobs_to_the_next(
    app: PgJobs, database_url: str, conn: psycopg.Connection[Any]
) -> None:
    with WorkerProcess(database_url, "--max-jobs", "5").ready() as worker:
        first = {app.enqueue(f"{TASKS}.pid").get(timeout=15) for _ in range(2)}
        os.kill(*first, signal.SIGTERM)
        eventually(lambda: len(worker.said(" ready: ")) == 2)
        app.using().enqueue_many(f"{TASKS}.pid", [()] * 10)
        assert worker.leave() == 0
    assert conn.execute("SELECT count(*) FROM pgjobs.jobs WHERE status = 'succeeded'").fetchone() == (5,)


class Told:
    """A child that only hears."""

    is_ready = True
    is_leaving = False
    number = 0

    def __init__(self) -> None:
        self.words: list[str] = []
        self.popen = self

    def tell(self, word: str) -> None:
        self.words.append(word)

    def poll(self) -> None:
        return None

    def kill(self) -> None:
        self.words.append("killed")

    def watch(self) -> None:
        """Nothing is to be watched."""


@pytest.mark.parametrize(("signals", "words"), [(1, ["stop"]), (2, ["stop", "hurry"])])
def test_signal_that_comes_between_two_turns_is_passed_on(signals: int, words: list[str]) -> None:
    """Only a signal during the wait was; the children were killed instead, as if their time had long been over."""
    supervisor = Supervisor(Settings(app="none"))
    child: Any = Told()
    supervisor._children._by_pid[0] = child
    for _ in range(signals):
        supervisor._asked(signal.SIGTERM, None)
    for _ in range(2):
        supervisor._watched_at = time.monotonic() - 1
        supervisor._turn()
    assert child.words == words
    supervisor._asked(signal.SIGTERM, None)
    supervisor._turn()
    assert child.words == [*words, "hurry"]
    for end in (supervisor._bell, supervisor._ear, supervisor._selector):
        end.close()


@pytest.fixture
def crowded(monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisor]:
    """A supervisor on a machine on which no process can be started."""

    def fork(*_: Any, **__: Any) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", fork)
    supervisor = Supervisor(Settings(app="none", processes=2))
    yield supervisor
    for end in (supervisor._bell, supervisor._ear, supervisor._selector):
        end.close()


def test_process_that_cannot_be_started_is_tried_again_and_costs_no_other(
    crowded: Supervisor, caplog: pytest.LogCaptureFixture
) -> None:
    healthy: Any = Told()
    crowded._children._by_pid[0] = healthy
    crowded._restarts.plan(1, rest_s=0.0)
    files = len(os.listdir("/proc/self/fd"))
    crowded._turn()
    assert (healthy.words, crowded._restarts.numbers) == ([], [1])
    assert "trying again in 10 s: [Errno 11] Resource temporarily unavailable" in caplog.text
    assert len(os.listdir("/proc/self/fd")) == files


def test_old_processes_go_on_where_no_fresh_one_can_be_started(
    crowded: Supervisor, caplog: pytest.LogCaptureFixture
) -> None:
    old: Any = Told()
    crowded._children._by_pid[0] = old
    crowded._reload_asked = True
    crowded._turn()
    crowded._turn()
    assert (old.words, crowded._restarts.numbers) == ([], [])
    assert "the old ones go on" in caplog.text


def test_process_that_a_job_ends_with_0_has_died_all_the_same(app: PgJobs, database_url: str) -> None:
    with WorkerProcess(database_url).ready() as worker:
        job = app.enqueue(f"{TASKS}.leave_quietly")
        eventually(lambda: job.refresh().status is Status.FAILED, timeout_s=10)
        assert (job.reason, job.row.crashes) == ("poison", 3)
        assert worker.said("died (exit code 0)")
        assert app.enqueue(f"{TASKS}.add", 1, 2).get(timeout=15) == 3


# -- poison


def test_neighbours_of_a_poison_job_lose_nothing(app: PgJobs, database_url: str, flag: Path) -> None:
    """Each that runs beside it is charged with one crash at most, runs apart once, and succeeds."""
    with WorkerProcess(database_url, "-c", "8").ready() as worker:
        held = [app.enqueue(f"{TASKS}.hold", str(flag)) for _ in range(5)]
        eventually(lambda: began(flag, *held))
        poison = app.enqueue(f"{TASKS}.kill_me", times=99)
        later = app.using().enqueue_many(f"{TASKS}.add", [(i, i) for i in range(300)])
        eventually(lambda: worker.said("died"))
        flag.unlink()
        eventually(lambda: poison.refresh().status is Status.FAILED, timeout_s=20)
        assert (poison.reason, poison.row.crashes, poison.attempt) == ("poison", 3, 0)
        for job in [*held, *(app.job(job_id) for job_id in later)]:
            job.get(timeout=10)
    assert fates(held) == [(Status.SUCCEEDED, 1, 1)] * 5
    assert {app.job(job_id).row.crashes for job_id in later} == {0}
    assert len(worker.said("worker process")) == 1


def test_job_that_was_in_a_death_runs_in_a_process_of_its_own_beside_others(
    app: PgJobs, database_url: str, flag: Path
) -> None:
    with WorkerProcess(database_url, "-c", "8").ready() as worker:
        twice = [app.enqueue(f"{TASKS}.hold", str(flag)) for _ in range(2)]
        eventually(lambda: began(flag, *twice))
        (child,) = worker.children()
        for job in twice:
            Path(f"{flag}.{job.id}").unlink()
        os.kill(child, signal.SIGKILL)
        eventually(lambda: began(flag, *twice), timeout_s=8)
        assert app.enqueue(f"{TASKS}.add", 1, 2).get(timeout=15) == 3, "the others go on beside them"
        (fresh,) = worker.children()
        flag.unlink()
        assert len({fresh, *(job.get(timeout=15) for job in twice)}) == 3
    assert fates(twice) == [(Status.SUCCEEDED, 1, 1)] * 2


def test_job_that_only_once_took_its_process_down_is_cleared(app: PgJobs, database_url: str) -> None:
    with WorkerProcess(database_url).ready():
        assert app.enqueue(f"{TASKS}.kill_me", times=2).get(timeout=15) == "survived"
