"""Promises with a figure, counted. With PGJOBS_LONG_S (``make nightly``) the counts and times are those promised."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import psycopg
import pytest

from pgjobs import Job, PgJobs, Status
from pgjobs.worker import identity
from tests.apps import basic
from tests.chaos import __main__ as campaign
from tests.processes import WorkerProcess
from tests.support import eventually

LONG = "PGJOBS_LONG_S" in os.environ

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(7200 if LONG else 180),
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


def count(conn: psycopg.Connection[Any], query: str, *params: Any) -> int:
    row = conn.execute(query.encode(), params).fetchone()
    assert row is not None
    return int(row[0])


def began(flag: Path, *jobs: Job[Any]) -> bool:
    return all(Path(f"{flag}.{job.id}").exists() for job in jobs)


# -- enqueue


def test_rolled_back_enqueue_never_runs(app: PgJobs, database_url: str, conn: psycopg.Connection[Any]) -> None:
    """0 in 100,000 (3,000 in CI), beside as many that are committed, while workers claim all they see."""
    many, batch = 100_000 if LONG else 3_000, 100
    gone: set[UUID] = set()
    kept = 0
    with WorkerProcess(database_url, "--processes", "2").ready(2), app.worker(name="inside"):
        for number in range(many // batch):
            with psycopg.connect(database_url) as own:
                gone.update(app.using(own).enqueue_many(f"{TASKS}.add", [(i, i) for i in range(batch)]))
                [undo, cut][number % 2](own, conn)
            kept += len(app.using().enqueue_many(f"{TASKS}.add", [(i, i) for i in range(batch)]))
        eventually(lambda: count(conn, "SELECT count(*) FROM pgjobs.jobs WHERE finished_at IS NULL") == 0, 60)
    assert len(gone) >= many
    assert count(conn, "SELECT count(*) FROM pgjobs.jobs WHERE id = ANY (%s)", list(gone)) == 0
    assert count(conn, "SELECT coalesce(sum(jobs), 0) FROM pgjobs.rollups") == kept, "each run is counted there"


def undo(own: psycopg.Connection[Any], conn: psycopg.Connection[Any]) -> None:
    own.rollback()


def cut(own: psycopg.Connection[Any], conn: psycopg.Connection[Any]) -> None:
    """The application's connection breaks before its commit."""
    own.close()


def test_job_runs_once_without_a_fault() -> None:
    """0 in 5,000 here; in a million by ``python -m tests.chaos --calm --jobs 1000000``, which ``make nightly`` runs."""
    result = campaign.run(5_000, 1, 0.0, calm=True, only=[], verbose=False, evidence=False)
    assert [promise["name"] for promise in result["promises"] if not promise["kept"]] == []


# -- the living


def test_living_worker_is_not_believed_dead(
    app: PgJobs, database_url: str, flag: Path, conn: psycopg.Connection[Any]
) -> None:
    """0 in 1,000 jobs (12 in CI) of 50 workers side by side (4).

    The jobs hold the interpreter in C code, block the loop, and spin, for two minutes (12 s: a silent worker is dead
    after ten); there is other load, and workers are paused for less than half of what makes them dead.
    """
    workers, rounds, seconds = (50, 7, 120) if LONG else (4, 1, 12)
    rng, held = Random(1), []
    with ExitStack() as stack:
        started = [
            stack.enter_context(WorkerProcess(database_url, "-Q", f"own{n},load", "-c", "4")) for n in range(workers)
        ]
        for worker in started:
            eventually(lambda worker=worker: worker.said(" ready: "), timeout_s=120)
        stack.enter_context(app.worker(queues="other"))  # whose reaper sees to them too
        for _ in range(rounds):
            fresh = [
                app.using(queue=f"own{n}", timeout=None).enqueue(f"{TASKS}.{name}", *args)
                for n in range(workers)
                for name, args in (
                    ("hold_interpreter", (str(flag), seconds)),
                    ("block_loop", (float(seconds),)),
                    ("never_gives_way", (seconds / 4,)),
                )
            ]
            held += fresh
            until = time.monotonic() + 20 * seconds
            while not all(job.refresh().status.ended for job in fresh):
                app.using(queue="load").enqueue_many(f"{TASKS}.add", [(i, i) for i in range(100)])
                pause(rng.choice(started), rng.uniform(0.5, 4.5))
                assert time.monotonic() < until
    assert {(job.status, job.attempt, job.row.crashes) for job in held} == {(Status.SUCCEEDED, 1, 0)}
    assert count(conn, "SELECT count(*) FROM pgjobs.workers WHERE dead_at IS NOT NULL AND misses >= 7") == 0
    assert count(conn, "SELECT count(*) FROM pgjobs.failures") == 0


def pause(worker: WorkerProcess, seconds: float) -> None:
    """Stops a worker, parent and all, for a while."""
    os.killpg(worker.popen.pid, signal.SIGSTOP)
    time.sleep(seconds)
    os.killpg(worker.popen.pid, signal.SIGCONT)


# -- SIGTERM


@pytest.fixture
def moves(conn: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """Notes in ``moves`` when a job's status changes, by the database's clock."""
    conn.execute("""
        CREATE TABLE moves (id uuid, was text, became text, at timestamptz DEFAULT clock_timestamp());
        CREATE FUNCTION note_move() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO moves (id, was, became) VALUES (NEW.id, OLD.status, NEW.status);
            RETURN NULL;
        END $$;
        CREATE TRIGGER move AFTER UPDATE ON pgjobs.jobs FOR EACH ROW
            WHEN (OLD.status <> NEW.status) EXECUTE FUNCTION note_move()
    """)
    return conn


REST = """
    SELECT extract(epoch FROM again.at - back.at)::float8
      FROM moves AS back
     CROSS JOIN LATERAL (SELECT min(at) AS at FROM moves
                          WHERE id = back.id AND was = 'queued' AND at > back.at) AS again
     WHERE back.was = 'running' AND back.became = 'queued'
"""


def test_jobs_that_a_stopped_worker_gives_back_are_claimed_within_a_second(
    app: PgJobs, database_url: str, flag: Path, moves: psycopg.Connection[Any]
) -> None:
    """By an idle worker, from the release on: those that ran, and those that waited for a slot."""
    with WorkerProcess(database_url, "-c", "2", "--shutdown-timeout", "0.3").ready() as leaving:
        held = [app.enqueue(f"{TASKS}.hold", str(flag)) for _ in range(2)]
        eventually(lambda: began(flag, *held))
        with WorkerProcess(database_url, "-c", "8").ready() as other:
            leaving.signal(signal.SIGTERM)
            assert leaving.leave() == 0
            eventually(lambda: count(moves, f"SELECT count(*) FROM ({REST}) AS rest (s) WHERE s IS NOT NULL") == 2)
            rests = [row[0] for row in moves.execute(REST.encode()).fetchall()]
            assert max(rests) < 1.0
            flag.unlink()
            assert {job.get(timeout=10) for job in held} == set(other.children())
    assert [(job.attempt, job.row.crashes, job.failures()) for job in held] == [(1, 0, [])] * 2


def test_sigterm_loses_no_job_and_burns_no_attempt(
    app: PgJobs, database_url: str, moves: psycopg.Connection[Any]
) -> None:
    """Under load, again and again: 4 times here, 50 in ``make nightly``."""
    signals = 50 if LONG else 4
    done = 0
    with ExitStack() as stack:
        workers = [stack.enter_context(WorkerProcess(database_url)).ready() for _ in range(2)]
        for number in range(signals):
            done += len(app.using().enqueue_many(f"{TASKS}.echo", [("x",)] * 1500))
            leaving = workers.pop(0)
            time.sleep(0.2 * (number % 3))  # the load is at another point each time
            leaving.signal(signal.SIGTERM)
            assert leaving.leave() == 0
            workers.append(stack.enter_context(WorkerProcess(database_url)).ready())
        eventually(lambda: count(moves, "SELECT count(*) FROM pgjobs.jobs WHERE finished_at IS NULL") == 0, 60)
    assert moves.execute("SELECT status, attempt, crashes, count(*) FROM pgjobs.jobs GROUP BY 1, 2, 3").fetchall() == [
        ("succeeded", 1, 0, done)
    ]
    assert moves.execute("SELECT reason, exception, message, traceback FROM pgjobs.failures LIMIT 3").fetchall() == []


# -- poison


def test_worker_is_back_within_a_second_after_a_job_has_killed_its_process(
    app: PgJobs, database_url: str, flag: Path
) -> None:
    """From the death to the result of the next job; two more seconds where other tests have the machine busy."""
    waits = []
    for _ in range(3):
        with WorkerProcess(database_url).ready() as worker:
            killer = app.enqueue(f"{TASKS}.kill_me", times=1)
            eventually(lambda worker=worker: worker.said("died"))
            died_at = time.monotonic()
            app.enqueue(f"{TASKS}.pid").get(timeout=15)
            waits.append(time.monotonic() - died_at)
            assert killer.get(timeout=15) == "survived"
    assert min(waits) < (1.0 if LONG else 3.0), waits
