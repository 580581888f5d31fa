"""Workers and producers whose clocks are wrong by an hour: only the database's clock counts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

import psycopg
import pytest

from pgjobs import Job, PgJobs, Status
from tests import clock
from tests.apps import basic
from tests.processes import WorkerProcess, pgjobs
from tests.support import eventually

pytestmark = [pytest.mark.slow, pytest.mark.skipif(clock.missing() is not None, reason=str(clock.missing()))]

TASKS = "tests.apps.basic"
HOUR_S = 3600


@pytest.fixture
def app(jobs: PgJobs) -> PgJobs:
    """The tasks of the application, enqueued in the test's database."""
    for task in basic.jobs.tasks.values():
        jobs.task(name=task.name, **task.options)(task.function)
    return jobs


@pytest.fixture(params=[HOUR_S, -HOUR_S], ids=["ahead", "behind"])
def wrong(request: pytest.FixtureRequest) -> int:
    """By how many seconds a clock is wrong."""
    return int(request.param)


@pytest.fixture
def worker(wrong: int, database_url: str) -> Iterator[WorkerProcess]:
    """A worker with such a clock."""
    with WorkerProcess(database_url, **clock.wrong_by(wrong)) as process:
        yield process.ready()


def database_time(conn: psycopg.Connection[Any]) -> Any:
    row = conn.execute("SELECT now()").fetchone()
    assert row is not None
    return row[0]


def due_in(conn: psycopg.Connection[Any], job: Job[Any]) -> float | None:
    row = conn.execute(
        "SELECT extract(epoch FROM due_at - now())::float8 FROM pgjobs.jobs WHERE id = %s", [job.id]
    ).fetchone()
    return row and row[0]


def test_the_clock_of_such_a_process_is_wrong(app: PgJobs, worker: WorkerProcess, wrong: int) -> None:
    """Else nothing here would say anything."""
    assert app.enqueue(f"{TASKS}.clock").get(timeout=10) == pytest.approx(time.time() + wrong, abs=60)


def test_delay_timeout_and_retry_follow_the_databases_clock(
    app: PgJobs, worker: WorkerProcess, conn: psycopg.Connection[Any]
) -> None:
    delayed = app.using(delay=1).enqueue(f"{TASKS}.add", 1, 2)
    timed = app.using(timeout=1, retry=1).enqueue(f"{TASKS}.never_gives_way", 30.0)
    retried = app.enqueue(f"{TASKS}.boom")  # twice, without a rest
    began = time.monotonic()
    assert delayed.get(timeout=10) == 3
    assert 0.9 < time.monotonic() - began < 5
    eventually(lambda: timed.refresh().status is Status.FAILED)
    assert timed.reason == "timeout"
    eventually(lambda: retried.refresh().status is Status.FAILED)
    assert retried.attempt == 2
    for job in (delayed, timed, retried):
        row = job.refresh().row
        assert row.started_at is not None
        assert row.finished_at is not None
        assert row.created_at <= row.started_at <= row.finished_at <= database_time(conn)


@pytest.mark.parametrize(("age_s", "rest_s"), [(0, 1), (HOUR_S // 2, 60)])
def test_job_that_cannot_run_rests_for_as_long_as_it_has_waited(
    age_s: int, rest_s: int, app: PgJobs, worker: WorkerProcess, conn: psycopg.Connection[Any]
) -> None:
    job = app.using(queue="later", delay=60).enqueue("nobody.knows")
    conn.execute(
        "UPDATE pgjobs.jobs SET created_at = now() - %s * interval '1 second', run_at = now(),"
        " due_at = now() WHERE id = %s",
        [age_s, job.id],
    )
    eventually(lambda: job.refresh().reason == "unknown task")
    rest = due_in(conn, job)
    assert rest is None or rest == pytest.approx(rest_s, abs=2)


def test_nobody_is_believed_dead_and_duties_go_round_once(
    app: PgJobs, database_url: str, conn: psycopg.Connection[Any]
) -> None:
    """Twelve seconds, for a silent worker is dead after ten. Two clocks would begin each other's rounds anew."""
    with (
        WorkerProcess(database_url, **clock.wrong_by(HOUR_S)).ready(),
        WorkerProcess(database_url, **clock.wrong_by(-HOUR_S)).ready(),
        app.worker(queues="other"),
    ):
        eventually(lambda: (states(conn)["expire"] or {}).get("whole") is not None, timeout_s=20)
        until, rounds = time.monotonic() + 12, []
        while time.monotonic() < until:
            app.enqueue(f"{TASKS}.add", 1, 2).get(timeout=10)
            rounds.append(states(conn))
            time.sleep(0.1)
    now = database_time(conn)
    assert {(each["expire"] or {})["whole"][:10] for each in rounds} <= {now.strftime("%Y-%m-%d")}
    changes = sum(before["expire"] != after["expire"] for before, after in pairwise(rounds))
    assert changes <= 1, "once, where an hour has just ended"
    assert conn.execute("SELECT count(*) FROM pgjobs.workers WHERE misses >= 7").fetchone() == (0,)


def states(conn: psycopg.Connection[Any]) -> dict[str, Any]:
    return dict(conn.execute("SELECT name, state FROM pgjobs.duties").fetchall())


def test_jobs_of_a_producer_with_a_wrong_clock_are_kept_for_their_time_and_pruned(
    app: PgJobs, database_url: str, wrong: int, conn: psycopg.Connection[Any]
) -> None:
    """Their ids say another hour. None goes before its time, and all go when the day's stragglers are looked for."""
    done = pgjobs(database_url, "enqueue", f"{TASKS}.add", ":1", ":2", **clock.wrong_by(wrong))
    assert done.returncode == 0, done.stderr
    ((job_id, said_s),) = conn.execute(
        "SELECT id, extract(epoch FROM created_at)::float8"
        " - ('x' || substr(replace(id::text, '-', ''), 1, 12))::bit(48)::bigint / 1000.0 FROM pgjobs.jobs"
    ).fetchall()
    assert float(said_s) == pytest.approx(-wrong, abs=10), "the id is of the producer's clock"
    with app.worker():
        assert app.job(job_id).get(timeout=10) == 3
        look_after_retention(conn)
        assert conn.execute("SELECT count(*) FROM pgjobs.jobs").fetchone() == (1,), "its day has not passed"
    age(conn, job_id, hours=30)
    with app.worker():
        look_after_retention(conn)
        assert conn.execute("SELECT count(*) FROM pgjobs.jobs").fetchone() == (0,)


def look_after_retention(conn: psycopg.Connection[Any]) -> None:
    """Has the workers prune now, as on another day."""
    conn.execute("UPDATE pgjobs.duties SET next_at = now(), ran_at = NULL, state = NULL WHERE name = 'prune'")
    eventually(
        lambda: conn.execute("SELECT ran_at IS NOT NULL FROM pgjobs.duties WHERE name = 'prune'").fetchone() == (True,)
    )


def age(conn: psycopg.Connection[Any], job_id: UUID, hours: int) -> None:
    """Makes a job so much older, its id included."""
    older = UUID(int=job_id.int - (hours * 3_600_000 << 80))
    conn.execute(
        "UPDATE pgjobs.jobs SET id = %s, created_at = created_at - %s, finished_at = finished_at - %s WHERE id = %s",
        [older, timedelta(hours=hours), timedelta(hours=hours), job_id],
    )
