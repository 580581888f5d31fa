"""The functions that steer: what they read, in which order they lock, and that no job on hold is ever out of reach."""

from __future__ import annotations

import random
import threading
from typing import Any, Final

import psycopg
import pytest

from pgjobs import PgJobs, statements
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
