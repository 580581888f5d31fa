"""The functions that steer: what they read, in which order they lock, and that no job on hold is ever out of reach."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final
from uuid import UUID

import psycopg
import pytest

from pgjobs import PgJobs, statements
from pgjobs.connections.link import Link
from pgjobs.job import new_id
from pgjobs.statements import Range, Statement
from tests.model import world
from tests.support import eventually
from tests.test_budgets import buffers, explain

pytestmark = pytest.mark.server

MANY: Final = 20_000
UNREACHABLE: Final = """
    SELECT count(*) FROM pgjobs.jobs AS job
     WHERE status = 'blocked' AND NOT EXISTS (SELECT FROM pgjobs.holds AS held WHERE held.job_id = job.id)
"""


def park(conn: psycopg.Connection[Any], task: str, count: int) -> None:
    """Has jobs of a task stand as if they had been claimed while it was paused."""
    conn.execute(
        "WITH job AS (INSERT INTO pgjobs.jobs (task, status, position, reason)"
        " SELECT %s, 'blocked', NULL, 'paused' FROM generate_series(1, %s) RETURNING id)"
        " INSERT INTO pgjobs.holds (job_id, kind, name, position)"
        " SELECT id, 'task', %s, nextval('pgjobs.positions') FROM job",
        [task, count, task],
    )


def test_resumption_reads_nothing_of_tasks_that_stay_paused(conn: psycopg.Connection[Any]) -> None:
    for task in ("a", "c"):
        conn.execute("SELECT pgjobs.pause('task', %s)", [task])
        park(conn, task, MANY)
    conn.execute("VACUUM ANALYZE pgjobs.jobs")
    conn.execute("VACUUM ANALYZE pgjobs.holds")
    assert buffers(explain(conn, statements.unpark())) < 1_000, "nothing is to be done"
    park(conn, "b", 10)
    assert buffers(explain(conn, statements.unpark())) < 1_000
    assert conn.execute("SELECT pgjobs.unpark()").fetchone() == (10,)


@pytest.mark.parametrize("statement", ["hold", "unhold", "move", "run_now"])
def test_jobs_are_found_by_their_ids(statement: str, jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    task = jobs.task(name="work")(lambda i: i)
    delay = "1h" if statement == "run_now" else 0
    ids = task.using(delay=delay).enqueue_many([(i,) for i in range(MANY)])[:20]
    if statement == "unhold":
        jobs.hold(ids)
    conn.execute("VACUUM ANALYZE pgjobs.jobs")
    made = {
        "hold": statements.hold(ids, "why"),
        "unhold": statements.unhold(ids),
        "move": statements.move(ids, "mail", 3),
        "run_now": statements.run_now(ids),
    }[statement]
    assert buffers(explain(conn, made, planned=False)) < 1_500


def test_steering_from_many_sides_neither_deadlocks_nor_loses_a_job(
    jobs: PgJobs, direct_url: str, conn: psycopg.Connection[Any]
) -> None:
    task = jobs.task(name="work")(lambda i: i)
    ids = task.enqueue_many([(i,) for i in range(20)])
    ids += task.using(delay="1h").enqueue_many([(i,) for i in range(20)])
    calls = [
        "SELECT pgjobs.hold(%s)",
        "SELECT pgjobs.unhold(%s)",
        "SELECT pgjobs.move(%s, 'mail', 1)",
        "SELECT pgjobs.prioritize(%s, 5)",
        "SELECT pgjobs.run_now(%s)",
        "SELECT pgjobs.cancel(%s)",
        "SELECT pgjobs.retry(%s)",
    ]
    errors: list[BaseException] = []

    def steer(seed: int) -> None:
        dice = random.Random(seed)
        try:
            with psycopg.connect(direct_url, autocommit=True) as own:
                for _ in range(100):
                    own.execute(dice.choice(calls), [dice.sample(ids, 15)])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=steer, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors, [str(e) for e in errors]
    assert conn.execute(UNREACHABLE).fetchone() == (0,)
    jobs.unhold(ids)
    assert conn.execute("SELECT count(*) FROM pgjobs.jobs WHERE status = 'blocked'").fetchone() == (0,)
    assert conn.execute("SELECT count(*) FROM pgjobs.holds").fetchone() == (0,)
    assert conn.execute("SELECT count(*) FROM pgjobs.jobs").fetchone() == (40,)


# -- what happens between the choice, the locks and the act


@pytest.fixture
def link(jobs: PgJobs) -> Iterator[Link]:
    made = Link(jobs.database, "test")
    yield made
    made.close()


STEERING: Final[dict[str, Callable[[list[UUID]], Statement[list[UUID]]]]] = {
    "hold": lambda ids: statements.hold(ids, None),
    "move": lambda ids: statements.move(ids, "other", None),
    "run_now": statements.run_now,
}


@pytest.mark.parametrize("what", STEERING)
def test_job_that_began_to_run_while_another_was_waited_for_runs_on(
    what: str, jobs: PgJobs, link: Link, conn: psycopg.Connection[Any], direct_url: str
) -> None:
    """It was committed after the first statement had looked, so that one has not locked it."""
    worker, claim_id, late = world.register(link), new_id(), new_id()
    first = jobs.enqueue("work").id
    conn.execute("UPDATE pgjobs.jobs SET status = 'scheduled', position = NULL, due_at = now() + interval '1 hour'")
    with psycopg.connect(direct_url) as holder, psycopg.connect(direct_url) as producer:
        holder.execute("SELECT FROM pgjobs.jobs FOR UPDATE")
        producer.execute(
            "INSERT INTO pgjobs.jobs (id, task, status, position, due_at)"
            " VALUES (%s, 'work', 'scheduled', NULL, now())",
            [late],
        )
        with ThreadPoolExecutor(1) as pool:
            steered = pool.submit(jobs.database.run, STEERING[what]([first, late]))
            eventually(lambda: waiting(conn))
            producer.commit()
            # What steers reads the job as it stood before this transaction.
            link.begin()
            assert link.step(statements.promote()) == 1
            assert [row[0] for row in link.step(statements.claim(worker, claim_id, [Range(world.LANE)], 9))] == [late]
            (claimer,) = link.conn.execute("SELECT pg_backend_pid()").fetchone() or (0,)
            holder.rollback()
            eventually(lambda: steered.done() or waiting(conn, claimer))
            link.commit()
            assert steered.result(10) == [first]
    assert world.complete(link, claim_id, [late]) == [late]


def waiting(conn: psycopg.Connection[Any], for_pid: int | None = None) -> bool:
    """Whether a session waits for the lock of another one, or of this one."""
    blocked = conn.execute(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        "   AND (%(pid)s::int IS NULL OR %(pid)s = ANY (pg_blocking_pids(pid)))",
        {"pid": for_pid},
    ).fetchone()
    return blocked is not None and blocked[0] > 0


RUN_NOW: Final = "SELECT pgjobs.run_now(array_agg(id)) FROM pgjobs.jobs"
RETRY: Final = "SELECT pgjobs.retry(array_agg(id)) FROM pgjobs.jobs"
SUCCEED: Final = "UPDATE pgjobs.jobs SET status = 'succeeded'"


@pytest.mark.parametrize(
    ("act", "chosen", "meanwhile", "status"),
    [
        (lambda ids: statements.delete(ids, ["failed"]), "failed", RETRY, "queued"),
        (lambda ids: statements.retry(ids, ["failed"]), "failed", SUCCEED, "succeeded"),
        (lambda ids: statements.cancel(ids, "", ["scheduled"]), "scheduled", RUN_NOW, "queued"),
        (lambda ids: statements.hold(ids, "", ["scheduled"]), "scheduled", RUN_NOW, "queued"),
        (lambda ids: statements.move(ids, "other", 9, ["scheduled"]), "scheduled", RUN_NOW, "queued"),
    ],
    ids=["delete", "retry", "cancel", "hold", "move"],
)
def test_status_is_looked_at_under_the_lock(
    act: Callable[[list[UUID]], Statement[Any]],
    chosen: str,
    meanwhile: str,
    status: str,
    jobs: PgJobs,
    conn: psycopg.Connection[Any],
    direct_url: str,
) -> None:
    job = jobs.enqueue("work")
    conn.execute(
        "UPDATE pgjobs.jobs SET status = %(chosen)s, position = NULL,"
        " due_at = CASE %(chosen)s WHEN 'scheduled' THEN now() + interval '1 hour' END,"
        " finished_at = CASE %(chosen)s WHEN 'failed' THEN now() END",
        {"chosen": chosen},
    )
    with psycopg.connect(direct_url) as other, ThreadPoolExecutor(1) as pool:
        other.execute(meanwhile)  # type: ignore[call-overload]
        acted = pool.submit(jobs.database.run, act([job.id]))
        eventually(lambda: waiting(conn))
        other.commit()
        assert len(acted.result(10)) == 0
    assert (job.refresh().status, job.queue, job.row.priority) == (status, "default", 0)
