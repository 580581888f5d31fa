"""Compares what was promised with what the table, the runs and the producers say."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg

from tests.chaos import tasks
from tests.chaos.scene import Scene, Told

Run = tuple[int, float, bool]
"""The process in which a run began, when, and whether it noted its end."""


@dataclass(frozen=True)
class Promise:
    """A promise, how often it was put to the test, and what was found."""

    name: str
    tried: str
    found: str
    kept: bool


def check(scene: Scene, ended: bool, codes: list[int]) -> list[Promise]:
    """Reads everything back."""
    runs = read_runs(scene.runs)
    with scene.connect() as conn:
        promises = [
            _lost(conn, scene.told, ended),
            _rolled_back(conn, scene.told, runs),
            *_as_expected(conn),
            _completions(conn),
            _effects(conn),
            _fenced(conn),
            _reaped(conn, scene),
        ]
    promises += [_rescue(scene.killed, runs), _back(scene.back_s), _workers_lived(scene, codes)]
    promises.append(zero("LISTEN connections dead and not made anew", "at the end", scene.deaf))
    return promises


def evidence(scene: Scene) -> str:
    """The jobs that have not ended as they should, with what holds them, and what the workers said."""
    parts: list[str] = []
    expected = {kind.name: kind.ends for kind in tasks.KINDS}
    with scene.connect() as conn:
        for query in (
            "SELECT kind, failures, jobs FROM chaos.committed JOIN pgjobs.jobs USING (id)"
            "  LEFT JOIN LATERAL (SELECT json_agg(failure) FROM pgjobs.failures AS failure"
            "                      WHERE job_id = jobs.id) AS failure (failures) ON true"
            " WHERE status <> %(expected)s::jsonb->>kind",
            "SELECT * FROM pgjobs.claims",
            "SELECT name, pid, beat, misses, seen_at::text, dead_at::text FROM pgjobs.workers",
        ):
            rows = conn.execute(query.encode(), {"expected": json.dumps(expected)}).fetchall()
            parts += [query, *map(str, rows), ""]
    parts += [
        "slowest rescues",
        *map(str, rescues(scene.killed, read_runs(scene.runs))[:-30:-1]),
        "kills",
        *map(str, scene.killed.items()),
        "",
    ]
    for worker in scene.processes:
        parts += [f"worker {worker.popen.pid}", *worker.lines, ""]
    return "\n".join(parts)


def read_runs(path: Path) -> dict[UUID, list[Run]]:
    """The runs of each job, in order."""
    runs: dict[UUID, list[Run]] = defaultdict(list)
    for line in path.read_text().splitlines() if path.exists() else []:
        job_id, pid, at = line[1:].split()
        each = runs[UUID(job_id)]
        if line.startswith("+"):
            each.append((int(pid), float(at), False))
        else:
            each[-1] = (*each[-1][:2], True)
    return runs


def rescues(killed: dict[int, float], runs: dict[UUID, list[Run]]) -> list[tuple[float, UUID, list[Run]]]:
    """From the kill of a process to the next run of what ran there."""
    return sorted(
        (again - killed[pid], job_id, each)
        for job_id, each in runs.items()
        for (pid, began, ended), (_, again, _) in pairwise(each)
        if pid in killed and began <= killed[pid] < again and not ended
    )


def count(conn: psycopg.Connection[Any], query: str) -> int:
    """The number that a query returns."""
    row = conn.execute(query.encode()).fetchone()
    assert row is not None
    return int(row[0])


def zero(name: str, tried: str, found: int, more: str = "") -> Promise:
    """A promise that something never happens."""
    return Promise(name, tried, f"{found:,}{more}", found == 0)


def _lost(conn: psycopg.Connection[Any], told: Told, ended: bool) -> Promise:
    """Whatever was acknowledged is there, whatever the ledger has is there, and all of it has ended."""
    there = {row[0] for row in conn.execute("SELECT id FROM pgjobs.jobs")}
    committed = {row[0] for row in conn.execute("SELECT id FROM chaos.committed")}
    missing = len((told.acknowledged | committed) - there)
    open_ = count(conn, "SELECT count(*) FROM pgjobs.jobs WHERE finished_at IS NULL")
    return Promise(
        "committed jobs lost, or never ended",
        f"{len(told.acknowledged | committed):,} jobs",
        f"{missing + open_:,}" + ("" if ended else "; work was left when the time was up"),
        missing + open_ == 0 and ended,
    )


def _rolled_back(conn: psycopg.Connection[Any], told: Told, runs: Iterable[UUID]) -> Promise:
    there = {row[0] for row in conn.execute("SELECT id FROM pgjobs.jobs")}
    return zero(
        "rolled-back jobs that ran, or are there",
        f"{len(told.rolled_back):,} jobs",
        len(told.rolled_back & (there | set(runs))),
    )


def _as_expected(conn: psycopg.Connection[Any]) -> list[Promise]:
    """Good jobs succeed, whatever happened to their workers; bad ones fail, and nobody else with them."""
    expected = {kind.name: kind.ends for kind in tasks.KINDS}
    rows = conn.execute(
        "SELECT committed.kind, jobs.status, coalesce(jobs.reason, ''), count(*)::int"
        "  FROM chaos.committed JOIN pgjobs.jobs USING (id) GROUP BY 1, 2, 3"
    ).fetchall()
    good = [row for row in rows if expected[row[0]] == "succeeded"]
    bad = [row for row in rows if expected[row[0]] != "succeeded"]
    wrong_good = [row for row in good if row[1] != "succeeded"]
    wrong_bad = [row for row in bad if row[1] != expected[row[0]]]
    poison = sum(row[3] for row in wrong_good if row[2] == "poison")
    return [
        zero(
            "good jobs that did not succeed",
            f"{sum(row[3] for row in good):,} jobs",
            sum(row[3] for row in wrong_good),
            f" ({poison} of them hit by three kills)" if poison else "",
        ),
        zero(
            "jobs that crash, hang or hold the interpreter and did not fail",
            f"{sum(row[3] for row in bad):,} jobs",
            sum(row[3] for row in wrong_bad),
        ),
    ]


def _completions(conn: psycopg.Connection[Any]) -> Promise:
    """Each completion adds to the rollups in its own transaction: a second one would be counted there."""
    recorded = count(conn, "SELECT coalesce(sum(jobs), 0) FROM pgjobs.rollups WHERE status = 'succeeded'")
    succeeded = count(conn, "SELECT count(*) FROM pgjobs.jobs WHERE status = 'succeeded'")
    return zero("completions recorded beside the one of each job", f"{succeeded:,} jobs", abs(recorded - succeeded))


def _effects(conn: psycopg.Connection[Any]) -> Promise:
    wrong = count(
        conn,
        "SELECT count(*) FROM (SELECT n, count(*) AS effects FROM chaos.effects GROUP BY n) AS effect"
        "  FULL JOIN (SELECT (args->>'n')::bigint AS n FROM pgjobs.jobs"
        "              WHERE task LIKE '%.effect' AND status = 'succeeded') AS job USING (n)"
        " WHERE effects IS DISTINCT FROM 1 OR job.n IS NULL",
    )
    effects = count(conn, "SELECT count(*) FROM chaos.effects")
    return zero("effects missing or doubled, of jobs that complete in their transaction", f"{effects:,} effects", wrong)


def _fenced(conn: psycopg.Connection[Any]) -> Promise:
    left = count(conn, "SELECT count(*) FROM pgjobs.claims") + count(
        conn, "SELECT count(*) FROM pgjobs.jobs WHERE status = 'running'"
    )
    return zero("claims or running jobs left behind", "at the end", left)


def _reaped(conn: psycopg.Connection[Any], scene: Scene) -> Promise:
    """Dead by silence is who was paused or killed; the others' deaths were reported by their parents.

    A row that was never beaten is a registration whose reply was lost: the worker has registered once more since.
    """
    rows = conn.execute(
        "SELECT name, pid FROM pgjobs.workers WHERE dead_at IS NOT NULL AND misses >= 7 AND beat > 0"
    ).fetchall()
    living = [
        name for name, pid in rows if pid not in scene.killed and not any(name.startswith(x) for x in scene.excused)
    ]
    pauses = "pauses, outages, partitions"
    return zero("living workers believed dead", pauses, len(living), f" ({', '.join(living)})" if living else "")


def _rescue(killed: dict[int, float], runs: dict[UUID, list[Run]]) -> Promise:
    waits = [wait for wait, _, _ in rescues(killed, runs)]
    if not waits:
        return Promise("rescue after SIGKILL", "no job was hit", "", True)
    p99 = waits[min(len(waits) - 1, int(len(waits) * 0.99))]
    found = f"p50 {statistics.median(waits):.1f} s, p99 {p99:.1f} s, longest {waits[-1]:.1f} s"
    return Promise("rescue after SIGKILL, other faults included", f"{len(waits):,} jobs", found, p99 <= 15)


def _back(back_s: list[float]) -> Promise:
    if not back_s:
        return Promise("back at work after a crash of the server", "none", "", True)
    found = f"median {statistics.median(back_s):.1f} s, longest {max(back_s):.1f} s"
    return Promise("back at work after a crash of the server", f"{len(back_s)} crashes", found, max(back_s) <= 5)


def _workers_lived(scene: Scene, codes: list[int]) -> Promise:
    wrong = [*scene.trouble, *(f"exit code {code} at the end" for code in codes if code)]
    return zero(
        "workers that left without being told, or not in order", "all", len(wrong), f" ({wrong})" if wrong else ""
    )


def once(path: Path) -> Promise:
    """Without faults every job runs once."""
    runs = read_runs(path)
    return zero(
        "jobs that ran twice without a fault", f"{len(runs):,} jobs", sum(len(each) > 1 for each in runs.values())
    )
