"""The database goes away and comes back: no job is lost, and workers go on by themselves."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from pgjobs import PgJobs, Status
from pgjobs.connections import listener
from pgjobs.embedded import ControlledServer
from pgjobs.events import DatabaseAway, DatabaseBack, Event
from pgjobs.migrations import migrate
from pgjobs.worker.claiming import pace
from tests.proxy import Proxy
from tests.support import eventually, scratch_directory

pytestmark = [pytest.mark.server, pytest.mark.slow]

RESUME_S = 5.0


@pytest.fixture(scope="module")
def server() -> Iterator[ControlledServer]:
    with scratch_directory() as directory:
        server = ControlledServer(directory / "home")
        server.start()
        try:
            yield server
        finally:
            server.stop("fast")


@pytest.fixture
def own(server: ControlledServer) -> Iterator[PgJobs]:
    """A queue on a server that the test may stop."""
    with psycopg.connect(server.url, autocommit=True) as conn:
        conn.execute("DROP SCHEMA IF EXISTS pgjobs CASCADE")
    migrate(server.url)
    jobs = PgJobs(server.url)
    yield jobs
    jobs.close()


def counts(url: str) -> dict[str, int]:
    with psycopg.connect(url, autocommit=True) as conn:
        return dict(conn.execute("SELECT status, count(*)::int FROM pgjobs.jobs GROUP BY status").fetchall())


@pytest.mark.parametrize("rounds", [3])
def test_server_that_is_stopped_at_once_and_restarted_under_load_loses_no_job(
    own: PgJobs, server: ControlledServer, rounds: int
) -> None:
    ran: list[int] = []
    accepted: list[Any] = []
    events: list[Event] = []
    over = threading.Event()

    @own.task
    def work(i: int) -> int:
        time.sleep(0.002)
        ran.append(i)
        return i

    @own.task
    async def awork(i: int) -> int:
        ran.append(i)
        return i

    def produce() -> None:
        i = 0
        while not over.is_set():
            i += 1
            try:
                accepted.append((work if i % 2 else awork).enqueue(i).id)
            except psycopg.OperationalError:
                time.sleep(0.05)

    producer = threading.Thread(target=produce)
    producer.start()
    with own.worker(concurrency=8, emit=events.append):
        for _ in range(rounds):
            time.sleep(0.7)
            server.stop("immediate")
            time.sleep(0.3)
            server.start()
            back = time.monotonic()
            before = len(ran)
            eventually(lambda before=before: len(ran) > before + 20, timeout_s=RESUME_S)
            assert time.monotonic() - back < RESUME_S
        over.set()
        producer.join()
        eventually(lambda: set(counts(server.url)) == {"succeeded"}, timeout_s=20)
    with psycopg.connect(server.url) as conn:
        stored = {row[0] for row in conn.execute("SELECT id FROM pgjobs.jobs")}
        assert set(accepted) <= stored, "every enqueue that returned is there"
        assert conn.execute("SELECT count(*) FROM pgjobs.jobs WHERE attempt <> 1").fetchone() == (0,)
        assert conn.execute("SELECT count(*) FROM pgjobs.failures").fetchone() == (0,)
    away = [event for event in events if isinstance(event, DatabaseAway)]
    back_again = [event for event in events if isinstance(event, DatabaseBack)]
    assert len(away) <= 2 * rounds, "an outage is told once, not at every try"
    assert len(back_again) >= 1


def test_worker_waits_for_a_server_for_as_long_as_it_takes(own: PgJobs, server: ControlledServer) -> None:
    add = own.task(name="add")(lambda a, b: a + b)
    with own.worker() as worker:
        assert add.enqueue(1, 2).get(timeout=15) == 3
        server.stop("immediate")
        time.sleep(4)
        assert worker.id
        server.start()
        assert own.task(name="add")(lambda a, b: a + b) is not None
        assert add.enqueue(2, 3).get(timeout=RESUME_S) == 5


def test_job_that_ran_while_the_server_was_away_is_recorded_when_it_is_back(
    own: PgJobs, server: ControlledServer
) -> None:
    started, go = threading.Event(), threading.Event()
    runs: list[int] = []

    @own.task
    def hold() -> str:
        runs.append(1)
        started.set()
        go.wait(20)
        return "kept"

    job = hold.enqueue()
    with own.worker():
        assert started.wait(15)
        server.stop("immediate")
        go.set()
        time.sleep(1)
        server.start()
        assert job.get(timeout=RESUME_S) == "kept"
    assert runs == [1], "an outage of the server reaps nobody"


def kill(conn: psycopg.Connection[Any], name: str) -> int:
    rows = conn.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = %s AND datname = current_database()",
        [name],
    ).fetchall()
    return len(rows)


def test_pick_up_goes_on_when_the_listening_connection_is_killed(
    jobs: PgJobs, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    add = jobs.task(name="add")(lambda a, b: a + b)
    with jobs.worker():
        add.enqueue(1, 2).get(timeout=15)
        time.sleep(0.7)
        assert kill(conn, "pgjobs listener") == 1
        assert add.enqueue(1, 2).get(timeout=10) == 3
        time.sleep(0.7)
        eventually(
            lambda: (
                conn.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgjobs listener'"
                    " AND datname = current_database()"
                ).fetchone()
                == (1,)
            )
        )
        monkeypatch.setattr(pace, "POLL_S", 60.0)
        for _ in range(6):
            time.sleep(0.45)
            add.enqueue(1, 2).get(timeout=20)  # it listens again, and need not wait for its next look


def test_pick_up_goes_on_when_the_listening_connection_is_swallowed_and_it_is_made_anew(
    jobs: PgJobs, direct_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To TCP such a connection is in good health. Until that is noticed, the worker finds by polling what there is."""
    monkeypatch.setattr(listener, "QUIET_S", 4.0)
    monkeypatch.setattr(listener, "ANSWER_S", 1.0)
    add = jobs.task(name="add")(lambda a, b: a + b)
    host = urlsplit(direct_url)
    proxy = Proxy(host.hostname or "", host.port or 5432)
    monkeypatch.setenv("PGJOBS_LISTEN_URL", host._replace(netloc=f"{host.username}@127.0.0.1:{proxy.port}").geturl())
    events: list[Event] = []
    with contextlib.closing(proxy), jobs.worker(emit=events.append):
        wait_of(add)
        proxy.swallow()
        waits = [wait_of(add)]
        assert proxy.dead, "the silence has not ended yet, or this test sees nothing"
        waits += [wait_of(add) for _ in range(2)]
        assert max(waits) < 3, "pick-up by polling: each second, and a fifth"
        proxy.relent()
        eventually(lambda: any(isinstance(event, DatabaseBack) for event in events), timeout_s=25)
        monkeypatch.setattr(pace, "POLL_S", 60.0)
        assert max(wait_of(add) for _ in range(4)) < 20, "it listens again, and need not wait for its next look"


def wait_of(task: Any) -> float:
    """How long an idle worker takes to pick up a job, in seconds."""
    time.sleep(0.7)
    job = task.enqueue(1, 2)
    eventually(lambda: job.refresh().status is Status.SUCCEEDED, timeout_s=20)
    assert job.row.started_at is not None
    return (job.row.started_at - job.row.created_at).total_seconds()


@pytest.mark.parametrize("name", ["pgjobs worker", "pgjobs upkeep", "pgjobs beat"])
def test_every_service_makes_its_connection_anew(name: str, jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    add = jobs.task(name="add")(lambda a, b: a + b)
    with jobs.worker() as worker:
        eventually(lambda: kill(conn, name))
        assert add.enqueue(1, 2).get(timeout=15) == 3
        assert add.using(delay=0.2).enqueue(1, 2).get(timeout=15) == 3
        eventually(
            lambda: (
                conn.execute(
                    "SELECT beat > 0 AND seen_at > now() - interval '4 seconds' FROM pgjobs.workers WHERE id = %s",
                    [worker.id],
                ).fetchone()
                == (True,)
            )
        )


def test_worker_that_can_beat_no_more_is_reaped_and_its_jobs_run_elsewhere(
    jobs: PgJobs, conn: psycopg.Connection[Any]
) -> None:
    """Nobody says that it is dead: seven beats are missed, one a second."""
    gate = threading.Event()
    runs: list[int] = []

    @jobs.task
    def hold() -> str:
        runs.append(1)
        if len(runs) == 1:
            gate.wait(30)
            return "by the silent"
        return "by another"

    job = hold.enqueue()
    silent = jobs.worker(supervised=True, name="silent")
    silent.start()
    eventually(lambda: runs)
    conn.execute("UPDATE pgjobs.workers SET seen_at = seen_at - interval '10 seconds'")
    started = time.monotonic()
    with jobs.worker(name="other"):
        assert job.get(timeout=20) == "by another"
    assert 5 < time.monotonic() - started < 15
    assert (job.refresh().row.crashes, job.attempt) == (0, 1), "who had begun is not known: it is a suspect"
    assert [failure.reason for failure in job.failures()] == ["worker lost"]
    gate.set()
    silent.stop(timeout=1)
    assert job.refresh().result == "by another"
    assert job.status is Status.SUCCEEDED
