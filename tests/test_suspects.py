"""A job that was in a death, in a worker inside of somebody else's process: it cannot be isolated, so it runs alone."""

from __future__ import annotations

import threading
import time
from typing import Any

import psycopg
import pytest

from pgjobs import PgJobs, Status
from tests.support import eventually

pytestmark = pytest.mark.server


class Overlap:
    """Counts who runs beside whom."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now: list[str] = []
        self.beside: dict[str, set[int]] = {"suspect": set(), "innocent": set()}

    def run(self, kind: str, seconds: float) -> None:
        with self._lock:
            self._now.append(kind)
            self._note()
        time.sleep(seconds)
        with self._lock:
            self._note()
            self._now.remove(kind)

    def _note(self) -> None:
        for kind in self._now:
            self.beside[kind].add(len(self._now) - 1)


@pytest.mark.parametrize("marked", ["options = '{\"suspect\": true}'", "crashes = 1"])
def test_suspect_runs_alone_and_the_others_run_before_and_after(
    marked: str, jobs: PgJobs, conn: psycopg.Connection[Any]
) -> None:
    overlap = Overlap()
    task = jobs.task(name="work")(overlap.run)
    before = task.enqueue_many([("innocent", 0.1)] * 6)
    suspects = task.enqueue_many([("suspect", 0.05)] * 3)
    conn.execute(f"UPDATE pgjobs.jobs SET {marked} WHERE id = ANY(%s)", [suspects])
    after = task.enqueue_many([("innocent", 0.1)] * 6)
    with jobs.worker(concurrency=4):
        for job_id in (*before, *suspects, *after):
            jobs.job(job_id).get(10)
    assert overlap.beside["suspect"] == {0}
    assert max(overlap.beside["innocent"]) > 0, "the others run together"
    assert {jobs.job(job_id).attempt for job_id in (*before, *suspects, *after)} == {1}


def test_mark_is_cleared_when_the_run_has_ended(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    def work(i: int) -> None:
        if i:
            raise ValueError

    task = jobs.task(work)
    ids = task.enqueue_many([(0,), (1,)])
    conn.execute("""UPDATE pgjobs.jobs SET options = '{"suspect": true}'""")
    with jobs.worker():
        eventually(lambda: jobs.job(ids[0]).status is Status.SUCCEEDED)
        eventually(lambda: jobs.job(ids[1]).status is Status.SCHEDULED)
    assert jobs.job(ids[1]).row.options == {}


def test_worker_that_stops_gives_a_waiting_suspect_back(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    gate = threading.Event()
    work = jobs.task(name="work")(lambda i: gate.wait(10) if i == 0 else i)
    first = work.enqueue(0)
    with jobs.worker(concurrency=2) as worker:
        eventually(lambda: worker.begun() == [first.id])
        suspect = work.using(delay=0.05).enqueue(1)
        conn.execute("""UPDATE pgjobs.jobs SET options = '{"suspect": true}' WHERE id = %s""", [suspect.id])
        eventually(lambda: suspect.refresh().status is Status.RUNNING)
        stopping = threading.Thread(target=worker.stop)
        stopping.start()
        time.sleep(0.2)
        gate.set()
        stopping.join(10)
    assert (suspect.refresh().status, suspect.attempt) == (Status.QUEUED, 0)
