"""The ledger notices each kind of wrong; without that, its zeros would say nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import psycopg
import pytest

from pgjobs import PgJobs
from pgjobs.job import new_id
from tests.chaos import ledger
from tests.chaos.scene import APP, Scene, Told

pytestmark = pytest.mark.server


class Staged:
    """A scene after the fact: a hundred good jobs and one bad one, all ended as they should."""

    def __init__(self, url: str, conn: psycopg.Connection[Any], directory: Path) -> None:
        self.conn = conn
        self.told = Told()
        self.runs = directory / "runs"
        self.lines: list[str] = []
        self.killed: dict[int, float] = {}
        self.codes = [0, 0]
        conn.execute("CREATE SCHEMA chaos")
        conn.execute("CREATE TABLE chaos.committed (id uuid PRIMARY KEY, kind text NOT NULL)")
        conn.execute("CREATE TABLE chaos.effects (n bigint NOT NULL)")
        jobs = PgJobs(url)
        ids: list[UUID] = []
        for kind, count in (("quick", 95), ("effect", 5), ("exits", 1)):
            task = jobs.task(name=f"{APP}.{kind}", retry=1)(_end if kind != "exits" else _fail)
            new = task.enqueue_many([(n,) for n in range(count)])
            conn.cursor().executemany("INSERT INTO chaos.committed VALUES (%s, %s)", [(each, kind) for each in new])
            ids += new
        conn.cursor().executemany("INSERT INTO chaos.effects VALUES (%s)", [(n,) for n in range(5)])
        with jobs.worker(burst=True) as worker:
            worker.wait()
        jobs.close()
        self.told.acknowledged.update(ids)
        self.told.rolled_back.add(new_id())
        self.lines = [f"+{job_id.hex} 7 {time.monotonic():.3f}" for job_id in ids]
        self.scene = cast(
            "Scene",
            SimpleNamespace(
                told=self.told,
                runs=self.runs,
                killed=self.killed,
                excused=set(),
                back_s=[0.5],
                trouble=[],
                deaf=0,
                connect=self.connect,
            ),
        )

    @contextmanager
    def connect(self) -> Iterator[psycopg.Connection[Any]]:
        yield self.conn

    def broken(self) -> list[str]:
        """The promises that the ledger finds broken."""
        self.runs.write_text("\n".join(self.lines) + "\n")
        promises = [*ledger.check(self.scene, True, self.codes), ledger.once(self.runs)]
        return [promise.name for promise in promises if not promise.kept]


def _end(n: int) -> None: ...


def _fail(n: int) -> None:
    raise ValueError


@pytest.fixture
def staged(database_url: str, conn: psycopg.Connection[Any], tmp_path: Path) -> Staged:
    return Staged(database_url, conn, tmp_path)


def test_all_is_well_where_nothing_was_done(staged: Staged) -> None:
    assert staged.broken() == []


def run_again(staged: Staged) -> None:
    staged.lines.append(staged.lines[0])


def run_rolled_back(staged: Staged) -> None:
    staged.lines.append(f"+{next(iter(staged.told.rolled_back)).hex} 7 {time.monotonic():.3f}")


def rescue_late(staged: Staged) -> None:
    staged.killed[7] = time.monotonic() + 1
    staged.lines.append(f"{staged.lines[0].rpartition(' ')[0]} {time.monotonic() + 30:.3f}")


def exit_wrongly(staged: Staged) -> None:
    staged.codes[0] = 1


def stay_deaf(staged: Staged) -> None:
    staged.scene.deaf = 1  # type: ignore[misc]


def sql(statement: str) -> Callable[[Staged], None]:
    return lambda staged: staged.conn.execute(statement.encode()) and None


SUCCEED = "UPDATE pgjobs.rollups SET jobs = jobs + 1 WHERE status = 'succeeded' AND task LIKE '%quick'"
WRONGS: dict[str, tuple[Callable[[Staged], None], str]] = {
    "a job vanishes": (
        sql("DELETE FROM pgjobs.jobs WHERE id = (SELECT id FROM chaos.committed WHERE kind = 'exits')"),
        "committed jobs lost, or never ended",
    ),
    "a job never ends": (
        sql(
            "UPDATE pgjobs.jobs SET status = 'queued', position = 1, finished_at = NULL"
            " WHERE id = (SELECT id FROM chaos.committed WHERE kind = 'exits')"
        ),
        "committed jobs lost, or never ended",
    ),
    "a rolled-back job ran": (run_rolled_back, "rolled-back jobs that ran, or are there"),
    "a good job failed": (
        sql("UPDATE pgjobs.jobs SET status = 'failed' WHERE task LIKE '%quick' AND args->>'n' = '7'"),
        "good jobs that did not succeed",
    ),
    "a bad job succeeded": (
        sql("UPDATE pgjobs.jobs SET status = 'succeeded' WHERE task LIKE '%exits'"),
        "jobs that crash, hang or hold the interpreter and did not fail",
    ),
    "a completion was recorded twice": (sql(SUCCEED), "completions recorded beside the one of each job"),
    "an effect is missing": (
        sql("DELETE FROM chaos.effects WHERE n = 3"),
        "effects missing or doubled, of jobs that complete in their transaction",
    ),
    "an effect is doubled": (
        sql("INSERT INTO chaos.effects VALUES (3)"),
        "effects missing or doubled, of jobs that complete in their transaction",
    ),
    "a claim is left": (
        sql(
            "INSERT INTO pgjobs.claims (id, worker_id, job_ids, positions)"
            " VALUES (gen_random_uuid(), gen_random_uuid(), '{}', '{}')"
        ),
        "claims or running jobs left behind",
    ),
    "a living worker was reaped": (
        sql(
            "INSERT INTO pgjobs.workers (id, supervisor_id, name, host, pid, process, queues, slots, dead_at,"
            " misses, beat)"
            " SELECT id, id, 'w', 'h', 1, '{}', '{*}', 1, now(), 7, 9 FROM gen_random_uuid() AS id"
        ),
        "living workers believed dead",
    ),
    "a rescue came late": (rescue_late, "rescue after SIGKILL, other faults included"),
    "a worker left wrongly": (exit_wrongly, "workers that left without being told, or not in order"),
    "a listener stays deaf": (stay_deaf, "LISTEN connections dead and not made anew"),
    "a job ran twice": (run_again, "jobs that ran twice without a fault"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONGS)
def test_wrong_is_noticed(wrong: str, staged: Staged) -> None:
    do, promise = WRONGS[wrong]
    do(staged)
    assert promise in staged.broken()
