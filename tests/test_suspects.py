"""Jobs that were in a death which nobody could explain: one of them at a time, and only that one pays for the next."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest

from pgjobs import Job, PgJobs, Retry, Status, statements
from pgjobs.connections.link import Link
from pgjobs.events import Event, Released
from pgjobs.job import new_id
from pgjobs.running.run import Claim, Run
from pgjobs.statements import Range
from pgjobs.worker.claiming import suspects as module
from pgjobs.worker.claiming.slots import Slots
from pgjobs.worker.claiming.suspects import Suspects
from tests.support import eventually

pytestmark = pytest.mark.server


class Overlap:
    """Counts who runs beside whom."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now: list[str] = []
        self.beside: set[tuple[str, str]] = set()

    def run(self, kind: str, seconds: float) -> None:
        with self._lock:
            self.beside |= {(kind, other) for other in self._now} | {(other, kind) for other in self._now}
            self._now.append(kind)
        time.sleep(seconds)
        with self._lock:
            self._now.remove(kind)


def suspect(conn: psycopg.Connection[Any], *ids: UUID, of: int = 1) -> None:
    conn.execute(
        f"""UPDATE pgjobs.jobs SET options = '{{"suspect": {{"of": {of}}}}}' WHERE id = ANY(%s)""", [list(ids)]
    )


@pytest.fixture
def link(jobs: PgJobs) -> Iterator[Link]:
    link = Link(jobs.database, "test")
    yield link
    link.close()


def test_suspects_run_one_at_a_time_beside_the_others(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    overlap = Overlap()
    task = jobs.task(name="work")(overlap.run)
    marked = task.enqueue_many([("suspect", 0.1)] * 5)
    suspect(conn, *marked)
    others = task.enqueue_many([("innocent", 0.1)] * 12)
    with jobs.worker(concurrency=4):
        for job_id in (*marked, *others):
            jobs.job(job_id).get(10)
    assert ("suspect", "suspect") not in overlap.beside
    assert ("suspect", "innocent") in overlap.beside
    assert {jobs.job(job_id).attempt for job_id in (*marked, *others)} == {1}


def test_row_says_that_a_suspect_runs_and_no_more_when_it_has_ended(
    jobs: PgJobs, conn: psycopg.Connection[Any]
) -> None:
    started, go = threading.Event(), threading.Event()

    @jobs.task(retry=Retry(2, backoff=3600, jitter=False))
    def work() -> None:
        started.set()
        go.wait(10)
        raise ValueError

    job = work.enqueue()
    suspect(conn, job.id)
    with jobs.worker():
        assert started.wait(15)
        assert job.refresh().row.options == {"suspect": {"of": 1, "runs": True}}
        go.set()
        eventually(lambda: job.refresh().status is Status.SCHEDULED)
    assert job.row.options == {}


def claimed(link: Link, jobs: PgJobs, count: int) -> tuple[UUID, UUID, list[Job[Any]]]:
    """A worker that says nothing more, with a claim on some jobs."""
    task = jobs.task(name="work")(lambda i: i)
    ids = task.enqueue_many([(i,) for i in range(count)])
    worker, claim = new_id(), new_id()
    link.one(
        statements.register(worker, supervisor=worker, name="w", host="h", pid=1, process="{}", queues=["*"], slots=1)
    )
    link.one(statements.claim(worker, claim, [Range(("default", 0))], 100))
    return worker, claim, [jobs.job(job_id) for job_id in ids]


def die(link: Link, worker: UUID) -> None:
    link.one(statements.declare_dead([worker]))
    link.one(statements.reap([worker], None, 3, "its host died"))


def test_death_of_a_host_makes_suspects_and_charges_the_one_that_ran(
    link: Link, jobs: PgJobs, conn: psycopg.Connection[Any]
) -> None:
    worker, claim, (first, second, third) = claimed(link, jobs, 3)
    suspect(conn, first.id, second.id)
    assert link.one(statements.begin_suspects([first.id], [claim]))
    die(link, worker)
    fates = [(job.refresh().status, job.row.crashes, job.row.options, job.attempt) for job in (first, second, third)]
    assert fates == [
        (Status.QUEUED, 1, {"suspect": {"of": 1}}, 0),
        (Status.QUEUED, 0, {"suspect": {"of": 1}}, 0),
        (Status.QUEUED, 0, {"suspect": {"of": 16}}, 0),
    ]


def test_suspects_stay_where_their_beginning_cannot_be_written(link: Link, jobs: PgJobs) -> None:
    _, claim, (job,) = claimed(link, jobs, 1)
    run = Run(
        (job.id, "work", "default", 0, 1, 5, 0, None, job.row.created_at, {}, None, {"suspect": {"of": 1}}),
        Claim(claim, 1),
        time.perf_counter(),
        "pgjobs",
    )
    slots: Any = type("Slots", (), {"holds": lambda self, run: False, "add_first": lambda self, runs: None})()
    held = Suspects(link, slots)
    held.add([run])
    with psycopg.connect(jobs.database.url) as other:
        other.execute("LOCK TABLE pgjobs.jobs")
        link.conn.execute("SET lock_timeout = '50ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            held.see_to(claiming=True)
    assert held.waiting == [run]
    assert held.see_to(claiming=True) == []
    assert held.waiting == []


def test_suspect_that_is_given_back_is_not_charged_for_what_comes_later(
    link: Link, jobs: PgJobs, conn: psycopg.Connection[Any]
) -> None:
    worker, claim, (job,) = claimed(link, jobs, 1)
    link.one(statements.begin_suspects([job.id], [claim]))
    link.one(statements.release([claim], [job.id]))
    assert job.refresh().row.options == {"suspect": {"of": 1}}
    other = new_id()
    link.one(statements.claim(worker, other, [Range(("default", 0))], 1))
    die(link, worker)
    assert job.refresh().row.crashes == 0


def test_job_that_takes_its_host_down_three_times_is_poison(
    link: Link, jobs: PgJobs, conn: psycopg.Connection[Any]
) -> None:
    worker, claim, (job,) = claimed(link, jobs, 1)
    for crashes in range(3):
        assert link.one(statements.begin_suspects([job.id], [claim]))
        die(link, worker)
        assert job.refresh().row.crashes == crashes + 1
        worker, claim = new_id(), new_id()
        link.one(
            statements.register(
                worker, supervisor=worker, name="w", host="h", pid=1, process="{}", queues=["*"], slots=1
            )
        )
        link.one(statements.claim(worker, claim, [Range(("default", 0))], 1))
    assert (job.status, job.reason) == (Status.FAILED, "poison")


def test_suspect_whose_row_somebody_holds_goes_back(link: Link, jobs: PgJobs, database_url: str) -> None:
    _, claim, (job,) = claimed(link, jobs, 1)
    with psycopg.connect(database_url) as app:
        app.execute("SELECT FROM pgjobs.jobs WHERE id = %s FOR UPDATE", [job.id])
        assert not link.one(statements.begin_suspects([job.id], [claim]))
    assert not link.one(statements.begin_suspects([job.id], [new_id()])), "nor is one of another claim"


def test_suspect_that_waits_too_long_goes_to_another_worker(
    jobs: PgJobs, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.1)
    monkeypatch.setattr(module, "AWAY_S", 0.3)
    gate = threading.Event()
    work = jobs.task(name="work")(lambda i: gate.wait(40) if i == 0 else i)
    first, second = work.enqueue(0), work.enqueue(1)
    suspect(conn, first.id, second.id)
    said: list[Event] = []
    jobs.subscribe(said.append, Released)
    with jobs.worker(concurrency=4):
        eventually(lambda: first.refresh().row.options == {"suspect": {"of": 1, "runs": True}})
        eventually(lambda: second.refresh().reason == "waits to run apart")
        assert (second.status, second.attempt) == (Status.SCHEDULED, 0)
        eventually(lambda: Released(1, "they wait to run apart") in said)
        with jobs.worker(concurrency=4):
            assert second.get(30) == 1
        gate.set()
        first.get(15)


def test_suspect_that_was_away_returns_to_its_place(link: Link, jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    """Else a rescued job would go behind whatever was enqueued since."""
    worker, claim, (first, second) = claimed(link, jobs, 2)
    suspect(conn, first.id)
    places = dict(conn.execute("SELECT unnest(job_ids), unnest(positions) FROM pgjobs.claims").fetchall())
    assert set(link.one(statements.release([claim] * 2, [first.id, second.id], 0.0)).ids) == {first.id, second.id}
    assert (first.refresh().status, first.reason, first.attempt) == (Status.SCHEDULED, "waits to run apart", 0)
    assert first.row.options == {"suspect": {"of": 1, "place": places[first.id]}}
    assert second.refresh().row.options == {"suspect": {"of": 1, "place": places[second.id]}}
    jobs.task(name="other")(lambda: 1).enqueue()
    assert link.one(statements.promote()) == 2
    assert dict(conn.execute("SELECT id, position FROM pgjobs.jobs WHERE task = 'work'").fetchall()) == places
    claim = new_id()
    assert [row[0] for row in link.one(statements.claim(worker, claim, [Range(("default", 0))], 2))] == [
        first.id,
        second.id,
    ]
    link.one(statements.release([claim], [first.id], 3600))
    assert first.refresh().row.due_at is not None
    assert link.one(statements.promote()) == 0, "it stays away for as long as it was told"


@pytest.mark.parametrize("place", ["1000000000", "1e400", '"x"', "null", "[]", "0.5", "-1e9", "9" * 30])
def test_place_that_was_never_drawn_is_none(
    place: str, link: Link, jobs: PgJobs, conn: psycopg.Connection[Any]
) -> None:
    work = jobs.task(name="work")(lambda: 1)
    job = work.using(delay=3600).enqueue()
    conn.execute("""UPDATE pgjobs.jobs SET due_at = now(), reason = 'waits to run apart',
                           options = jsonb_build_object('suspect', jsonb_build_object('of', 1, 'place', %s::jsonb))""",
                 [place])  # fmt: skip
    assert link.one(statements.promote()) == 1
    (drawn,) = (
        conn.execute("SELECT position = (SELECT last_value FROM pgjobs.positions) FROM pgjobs.jobs").fetchone() or ()
    )
    assert drawn, job


def test_others_run_while_suspects_wait(
    jobs: PgJobs, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many wait for their turn, they take no slot and no room, and those that begin go first."""
    monkeypatch.setattr(module, "PATIENCE_S", 60.0)
    gate = threading.Event()
    work = jobs.task(name="work")(lambda i: gate.wait(40) if i == 0 else i)
    marked = work.enqueue_many([(i,) for i in range(10)])
    suspect(conn, *marked)
    other = work.enqueue(10)
    with jobs.worker(concurrency=2):
        assert other.get(15) == 10
        assert [jobs.job(job_id).status for job_id in marked] == [Status.RUNNING] * 10
        gate.set()
        for job_id in marked:
            jobs.job(job_id).get(15)


def test_worker_that_stops_gives_a_waiting_suspect_back(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    gate = threading.Event()
    work = jobs.task(name="work")(lambda i: gate.wait(40) if i == 0 else i)
    first, second = work.enqueue(0), work.enqueue(1)
    suspect(conn, first.id, second.id)
    with jobs.worker(concurrency=2) as worker:
        eventually(lambda: worker.begun() == [first.id])
        stopping = threading.Thread(target=worker.stop)
        stopping.start()
        eventually(lambda: second.refresh().status is Status.QUEUED)
        gate.set()
        stopping.join(10)
    assert (first.refresh().status, second.refresh().attempt) == (Status.SUCCEEDED, 0)


def test_nothing_waits_where_no_suspect_was_claimed(link: Link) -> None:
    class NoLink:
        def one(self, statement: Any) -> None:
            raise AssertionError("a plain job costs no statement")

    waiting = Suspects(NoLink(), Slots(1, lambda: None))  # type: ignore[arg-type]
    assert waiting.see_to(claiming=True) == []
    row = (new_id(), "work", "default", 0, 1, 5, 0, None, None, {}, None, {"suspect": {"of": 1}})
    waiting.add([Run(row, Claim(new_id(), 1), 0.0, "pgjobs")])
    assert [outcome.ending for outcome in waiting.see_to(claiming=False)] == ["released"]
    assert len(waiting) == 0


def test_many_suspects_run_at_once_and_are_narrowed_down(
    link: Link, jobs: PgJobs, conn: psycopg.Connection[Any]
) -> None:
    """Sixteen, four, one; one that is alone when its host dies pays, and the others keep what they were."""
    worker, claim, (first, second) = claimed(link, jobs, 2)
    suspect(conn, first.id, second.id, of=16)
    for of, crashes in ((4, 0), (1, 0), (1, 1)):
        assert link.one(statements.begin_suspects([first.id], [claim])) == {(first.id, claim)}
        die(link, worker)
        assert (first.refresh().row.options, first.row.crashes) == ({"suspect": {"of": of}}, crashes)
        assert (second.refresh().row.options, second.row.crashes) == ({"suspect": {"of": 16}}, 0)
        worker, claim = new_id(), new_id()
        link.one(
            statements.register(
                worker, supervisor=worker, name="w", host="h", pid=1, process="{}", queues=["*"], slots=1
            )
        )
        link.one(statements.claim(worker, claim, [Range(("default", 0))], 2))


@pytest.mark.parametrize(("of", "at_once"), [(16, 8), (4, 4), (1, 1)])
def test_as_many_suspects_run_at_once_as_their_rows_say(
    of: int, at_once: int, jobs: PgJobs, conn: psycopg.Connection[Any]
) -> None:
    lock = threading.Lock()
    running: list[int] = []
    most: list[int] = []

    @jobs.task
    def work(i: int) -> None:
        with lock:
            running.append(i)
            most.append(len(running))
        time.sleep(0.3)
        with lock:
            running.remove(i)

    ids = work.enqueue_many([(i,) for i in range(8)])
    suspect(conn, *ids, of=of)
    with jobs.worker(concurrency=8):
        for job_id in ids:
            jobs.job(job_id).get(20)
    assert max(most) == at_once
