"""What a worker reads beside its claims: new lanes, jobs below its bounds, and what others have noted."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from pgjobs import PgJobs, statements
from pgjobs.connections.link import Link
from pgjobs.job import new_id
from pgjobs.statements import NO_BOUND, Range
from pgjobs.worker.life import Life
from pgjobs.worker.runtime import Worker
from tests.model import world
from tests.support import eventually, stop_sweeping

pytestmark = pytest.mark.server

LANES = [(queue, priority) for queue in ("a", "b", "b.c", "default", "z") for priority in (-100, -1, 0, 1, 5, 100)]


@pytest.fixture
def link(jobs: PgJobs) -> Any:
    made = Link(jobs.database, "test")
    yield made
    made.close()


def put(conn: psycopg.Connection[Any], *lanes: tuple[str, int], count: int = 2) -> None:
    with conn.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO pgjobs.jobs (task, queue, priority) SELECT 'none', %s, %s FROM generate_series(1, %s)",
            [(*lane, count) for lane in lanes],
        )


def low(worker: Worker) -> int:
    """The worker's bound of the default lane."""
    lanes = worker._life_now().claimer._lanes
    return lanes.low(("default", 0)) if ("default", 0) in lanes.known else 0


@contextmanager
def ticked_by_hand(jobs: PgJobs, conn: psycopg.Connection[Any]) -> Iterator[Life]:
    """A worker that has just said that it is idle, and claims when the test has it tick."""
    with jobs.worker(shutdown_timeout=0) as worker:
        life = worker._life_now()
        life.claiming.stop()
        assert life.claiming.join(10)
        conn.execute("DELETE FROM pgjobs.idlers")
        life.claimer.reconnected()
        life.claimer.tick()
        yield life
        life._link.close()


@pytest.mark.parametrize("seed", range(30))
def test_every_unknown_lane_is_found_and_no_known_one(seed: int, link: Link, conn: psycopg.Connection[Any]) -> None:
    chance = random.Random(seed)
    there = chance.sample(LANES, chance.randint(0, 12))
    known = chance.sample(LANES, chance.randint(0, 8))
    put(conn, *there)
    found = link.one(statements.new_lanes(known, queues_too=True))
    assert sorted(found) == sorted(set(there) - set(known))
    named = link.one(statements.new_lanes(known, queues_too=False))
    assert sorted(named) == sorted(lane for lane in set(there) - set(known) if lane[0] in {queue for queue, _ in known})


def test_strays_are_the_live_positions_of_a_range(link: Link, conn: psycopg.Connection[Any]) -> None:
    put(conn, ("a", 0), ("b", 0), count=10)
    conn.execute("UPDATE pgjobs.jobs SET expires_at = now() - interval '1 s' WHERE position = 3")
    conn.execute("UPDATE pgjobs.jobs SET status = 'succeeded', position = NULL WHERE position = 7")
    a, b = ("a", 0), ("b", 0)
    assert link.one(statements.strays([Range(a, 3, 8), Range(b, 0, 11), Range(("c", 0))])) == [Range(a, 4, 7)]
    assert sorted(link.one(statements.strays([Range(a), Range(b)]))) == [Range(a, 1, 11), Range(b, 11, 21)]


def test_claim_takes_the_positions_of_its_range_alone(link: Link, conn: psycopg.Connection[Any]) -> None:
    put(conn, ("a", 0), ("b", 0), count=10)
    ids = dict(conn.execute("SELECT position, id FROM pgjobs.jobs").fetchall())
    worker = world.register(link)
    ranges = [Range(("a", 0), 3, 6), Range(("b", 0), 19)]
    taken = {row[0] for row in link.one(statements.claim(worker, new_id(), ranges, 100))}
    assert taken == {ids[position] for position in (3, 4, 5, 19, 20)}


def test_noted_bounds_only_rise_until_the_sequence_begins_anew(link: Link, conn: psycopg.Connection[Any]) -> None:
    put(conn, ("a", 0), count=100)
    for low in (50, 70, 60):
        link.one(statements.note_lanes([Range(("a", 0), low), Range(("b", 3), 1)]))
    assert sorted(link.one(statements.noted_lanes())) == [Range(("a", 0), 70, NO_BOUND), Range(("b", 3), 1, NO_BOUND)]
    conn.execute("SELECT setval('pgjobs.positions', 40)")
    assert link.one(statements.noted_lanes()) == [Range(("b", 3), 1, NO_BOUND)]
    link.one(statements.note_lanes([Range(("a", 0), 30)]))
    assert Range(("a", 0), 30, NO_BOUND) in link.one(statements.noted_lanes())


def test_worker_begins_where_the_last_one_stood(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    """Within the thousand positions that are not worth a note."""
    task = jobs.task(name="work")(lambda i: i)
    task.enqueue_many([(i,) for i in range(3_000)])
    with jobs.worker() as worker:
        eventually(lambda: low(worker) >= 3_000, timeout_s=30)
    assert conn.execute("SELECT low > 2000 FROM pgjobs.lanes").fetchall() == [(True,)]
    with jobs.worker() as worker:
        task.enqueue(1).get(10)
        assert low(worker) > 2_000


def test_what_nobody_was_told_of_is_found_below_the_bound(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    """As after a restore, or where somebody writes positions by hand."""
    task = jobs.task(name="work")(lambda i: i)
    task.enqueue_many([(i,) for i in range(3_000)])
    with jobs.worker() as worker:
        eventually(lambda: low(worker) >= 3_000, timeout_s=30)
        row = conn.execute(
            "INSERT INTO pgjobs.jobs (task, args, position) VALUES ('work', '{\"i\": 7}', 5) RETURNING id"
        ).fetchone()
        assert row is not None
        assert jobs.job(row[0]).get(60) == 7
        assert low(worker) >= 3_000, "for all that the bound has not fallen"


def test_job_whose_transaction_was_open_for_long_starts_at_its_commit(
    jobs: PgJobs, conn: psycopg.Connection[Any], database_url: str
) -> None:
    """By the bound's own reading: nobody notifies, and the sweep is an hour away."""
    task = jobs.task(name="work")(lambda i: i)
    with jobs.worker() as worker, psycopg.connect(database_url) as late:
        claimer = worker._life_now().claimer
        task.enqueue(1).get(10)  # the lane is known: to find a new one is for the sweep
        row = late.execute(
            "INSERT INTO pgjobs.jobs (task, args) VALUES ('work', '{\"i\": 7}') RETURNING id, position"
        ).fetchone()
        assert row is not None
        stop_sweeping(claimer)

        def passed_over() -> bool:
            task.enqueue(1).get(10)
            return low(worker) > row[1]

        eventually(passed_over, timeout_s=30)
        late.commit()
        eventually(lambda: task.enqueue(1).get(10) and jobs.job(row[0]).status.ended)


def test_more_restored_jobs_than_there_is_room_for_are_all_taken(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    """One claim from the old place took as many as fit; the others waited for the sweep, a claim each second."""
    task = jobs.task(name="work")(lambda i: i)
    task.enqueue_many([(i,) for i in range(3_000)])
    with jobs.worker(concurrency=1) as worker:
        claimer = worker._life_now().claimer
        eventually(lambda: low(worker) >= 3_000, timeout_s=30)
        stop_sweeping(claimer)
        ids = [
            row[0]
            for row in conn.execute(
                "INSERT INTO pgjobs.jobs (task, args, position) SELECT 'work', '{\"i\": 7}', n"
                " FROM generate_series(1, 2000) AS n RETURNING id"
            ).fetchall()
        ]
        conn.execute("SELECT pg_notify('pgjobs.jobs', 'restored 0 1 default')")
        jobs.wait(ids, 20)
    assert conn.execute("SELECT DISTINCT status FROM pgjobs.jobs").fetchall() == [("succeeded",)]


def test_what_lies_below_is_kept_in_mind_while_there_is_no_room(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    """A cycle that only records had taken the hint and made no claim: the jobs waited for the sweep."""
    task = jobs.task(name="work")(lambda i: i)
    task.enqueue_many([(i,) for i in range(3_000)])
    with jobs.worker(concurrency=1, shutdown_timeout=0) as worker:
        life = worker._life_now()
        eventually(lambda: low(worker) >= 3_000, timeout_s=30)
        stop_sweeping(life.claimer)
        life.claiming.stop()
        assert life.claiming.join(10)
        row = conn.execute(
            "INSERT INTO pgjobs.jobs (task, args, position) VALUES ('work', '{\"i\": 7}', 5) RETURNING id"
        ).fetchone()
        assert row is not None
        assert life.claimer.hint_restored("default", 0, 5)
        life.claimer._cycle([], 0)
        life.claimer._cycle([], 1)
        life.claimer._begin_arrived()
        assert [run.id for run in life.slots.held] == [row[0]]
        life._link.close()


def test_first_job_of_a_lane_that_came_just_before_the_flag_does_not_wait_for_the_next_sweep(
    jobs: PgJobs, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever enqueued it saw no flag, and the looks after that asked known lanes alone: a second and a half."""
    monkeypatch.setattr("pgjobs.worker.claiming.pace.POLL_S", 60.0)
    monkeypatch.setattr("pgjobs.worker.claiming.sweep.rest_after", lambda took_s: 60.0)
    jobs.task(name="work")(lambda i: i)
    with ticked_by_hand(jobs, conn) as life:
        assert conn.execute("SELECT count(*) FROM pgjobs.idlers").fetchone() == (1,)
        conn.execute("INSERT INTO pgjobs.jobs (task, queue, args) VALUES ('work', 'new', '{\"i\": 7}')")
        life.claimer.tick()
        assert conn.execute("SELECT queue, status FROM pgjobs.jobs").fetchall() == [("new", "running")]


def test_worker_looks_as_soon_as_the_sweep_is_due(
    jobs: PgJobs, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that came between its looks waited for the next of them: two seconds for a lane that nobody told of."""
    monkeypatch.setattr("pgjobs.worker.claiming.claimer.POLL_S", 60.0)
    monkeypatch.setattr("pgjobs.worker.claiming.pace.POLL_S", 60.0)
    jobs.task(name="work")(lambda i: i)
    with jobs.worker() as worker:
        pace = worker._life_now().claimer._pace
        eventually(lambda: pace._flagged_at is not None and not pace.settling)
        (new,) = conn.execute(
            "INSERT INTO pgjobs.jobs (task, queue, args) VALUES ('work', 'new', '{\"i\": 7}') RETURNING id"
        ).fetchone() or (None,)
        assert jobs.job(new).get(20) == 7


def test_worker_that_forgets_lanes_is_told_of_jobs_while_it_has_room(
    jobs: PgJobs, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Busy, it took its flag away as any other: the next job of a lane that it had forgotten waited for the sweep."""
    monkeypatch.setattr("pgjobs.worker.claiming.lanes.KEPT", 1)
    monkeypatch.setattr("pgjobs.worker.claiming.pace.BUSY_S", 0.0)
    monkeypatch.setattr("pgjobs.worker.claiming.hints.RUMOURS", 1)
    work = jobs.task(name="work")(lambda i: i)
    with ticked_by_hand(jobs, conn) as life:
        for i, queue in enumerate(["a", "b", "c"] * 2):
            job = work.using(queue=queue).enqueue(i)
            life.claimer.hint(queue, 0)
            life.claimer.tick()
            assert job.refresh().attempt == 1, "each rumour proves true"
        assert conn.execute("SELECT count(*) FROM pgjobs.idlers").fetchone() == (1,)
