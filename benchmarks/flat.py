"""What must not slow a drain: a long transaction, history, backlog, waiting jobs, many queues, many workers.

Each case fills tables of its own and drains as many jobs as the clean tables did in the same run; its figure is the
share of the clean speed that is left. ``python -m benchmarks.flat --scale 0.01`` is a try of a minute.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psycopg

from benchmarks import document
from pgjobs import embedded
from pgjobs.bench import measures
from pgjobs.bench.measures import RECORDED, Database

COUNT = 100_000
RATE = (
    "SELECT count(*) / extract(epoch FROM max(finished_at) - min(started_at))"
    f" FROM (SELECT started_at, finished_at FROM pgjobs_bench.jobs ORDER BY id DESC LIMIT {COUNT}) AS last"
)
COLUMNS = {
    "succeeded": ("position, finished_at, started_at", "NULL, now(), now()"),
    "queued": ("position", "nextval('pgjobs_bench.positions')"),
    "scheduled": ("position, due_at", "NULL, now() + interval '1 day' + n * interval '1 ms'"),
    "blocked": ("position", "NULL"),
}

Row = dict[str, Any]


class Flat:
    """The cases, and what they have found."""

    def __init__(self, url: str, scale: float) -> None:
        self.database = Database(url)
        self.rows: list[Row] = []
        self._scale = scale
        self._clean = 1.0

    def run(self, only: Sequence[str]) -> list[Row]:
        """Takes the figures of all cases, or of some; before each the clean tables are measured anew."""
        cases: dict[str, Callable[[], None]] = {
            "clean": lambda: self._note("clean tables", self._clean),
            "finished": lambda: self._beside("finished jobs", "succeeded", 10_000_000),
            "queued": lambda: self._deep(10_000_000),
            "scheduled": lambda: self._beside("scheduled jobs", "scheduled", 1_000_000),
            "blocked": lambda: self._beside("blocked jobs", "blocked", 100_000),
            "queues": lambda: self._queues(1_000),
            "processes": self._many_processes,
            "pinned": lambda: self._pinned(1_000_000),
            "pruned": lambda: self._pruned(500_000),
            "soak": lambda: self._soak(5_000_000),
        }
        for name, case in cases.items():
            if not only or name in only:
                self._clean = statistics.median(self._fresh_drain() for _ in range(3))
                case()
        return self.rows

    def _many_processes(self) -> None:
        two = statistics.median(self._fresh_drain(2) for _ in range(3))
        self._note("2 processes", two)
        sixteen = statistics.median(self._waiting_workers(16) for _ in range(3))
        self._note("16 processes", sixteen, "of the speed with two", two)

    def _note(self, name: str, rate: float, more: str = "", clean: float | None = None) -> None:
        ratio = rate / (clean or self._clean)
        self.rows.append({"name": name, "jobs/s": rate, "ratio": ratio, "note": more})
        print(f"  {name:48} {rate:9,.0f} jobs/s  {ratio:5.2f}  {more}", flush=True)

    def _drain(self, processes: int = 1) -> float:
        before = self.database.number(RECORDED)
        self.database.enqueue("noop", COUNT)
        with self.database.worker("--processes", str(processes)):
            while self.database.number(RECORDED) < before + COUNT:
                time.sleep(0.05)
        return self.database.number(RATE)

    def _waiting_workers(self, processes: int) -> float:
        """The workers are there before the jobs: on two cores they take as long to start as to drain."""
        self.database.fresh()
        with self.database.worker("--processes", str(processes)):
            while self.database.number("SELECT count(*) FROM pgjobs_bench.workers") < processes:
                time.sleep(0.1)
            time.sleep(2)
            self.database.enqueue("noop", COUNT)
            while self.database.number(RECORDED) < COUNT:
                time.sleep(0.05)
        return self.database.number(RATE)

    def _fresh_drain(self, processes: int = 1) -> float:
        self.database.fresh()
        return self._drain(processes)

    def _fill(self, status: str, rows: int) -> None:
        self.database.fresh()
        step = 500_000
        columns, values = COLUMNS[status]
        for low in range(0, rows, step):
            self.database.conn.execute(
                f"INSERT INTO pgjobs_bench.jobs (task, args, status, {columns})"
                f" SELECT 'pgjobs.bench.tasks.noop', '{{\"i\": 1}}', '{status}', {values}"
                f" FROM generate_series(1, {min(step, rows - low)}) AS n".encode()
            )
        self.database.conn.execute("VACUUM ANALYZE pgjobs_bench.jobs")
        self.database.conn.execute("CHECKPOINT")

    def _beside(self, name: str, status: str, rows: int) -> None:
        rows = int(rows * self._scale)
        self._fill(status, rows)
        self._note(f"{rows:,} {name}", statistics.median(self._drain() for _ in range(3)), self._info())

    def _info(self) -> str:
        """How long ``pgjobs info`` takes, its start included."""
        started = time.perf_counter()
        command = [sys.executable, "-m", "pgjobs", "info", "--url", self.database.url, "--schema", measures.SCHEMA]
        subprocess.run(command, check=True, capture_output=True)
        return f"`pgjobs info` takes {1000 * (time.perf_counter() - started):,.0f} ms"

    def _deep(self, rows: int) -> None:
        rows = int(rows * self._scale)
        self._fill("queued", rows)
        more = self._info()
        with self.database.worker():
            while self.database.number(RECORDED) < 20_000:
                time.sleep(0.01)
            begun, began = self.database.number(RECORDED), time.perf_counter()
            target = min(begun + 3 * COUNT, rows)
            while (done := self.database.number(RECORDED)) < target:
                time.sleep(0.01)
            self._note(f"{rows:,} queued jobs", (done - begun) / (time.perf_counter() - began), more)

    def _queues(self, count: int) -> None:
        self.database.fresh()
        for i in range(count):
            numbers = ((k,) for k in range(COUNT // count))
            self.database.jobs.using(queue=f"queue{i}").enqueue_many("pgjobs.bench.tasks.noop", numbers)
        with self.database.worker():
            while self.database.number(RECORDED) < COUNT:
                time.sleep(0.05)
        rate = self.database.number(RATE)
        self._note(f"{count:,} queues", rate)

    def _pinned(self, churn: int) -> None:
        churn = max(COUNT, int(churn * self._scale))
        self.database.fresh()
        with psycopg.connect(self.database.url) as old:
            old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            old.execute("SELECT count(*) FROM pgjobs_bench.jobs")
            for _ in range(churn // COUNT):
                self._drain(2)
            self._note(f"beside a snapshot held for {churn:,} jobs", statistics.median(self._drain() for _ in range(3)))
            waits = self._pick_ups()
            self.rows[-1]["note"] = f"pick-up p50 {waits['p50']:.1f} ms, p99 {waits['p99']:.1f}"
        ended = time.monotonic()
        while True:
            rate, after_s = self._drain(), time.monotonic() - ended
            if rate >= 0.95 * self._clean or after_s > 60:
                self._note("after its end", rate, f"{after_s:.0f} s later")
                return

    def _pick_ups(self) -> dict[str, float]:
        database = self.database
        with database.worker():
            database.ready()
            waits: list[float] = []
            for _ in range(200):
                time.sleep(0.01)
                before = time.time()
                waits.append(1000 * (database.jobs.enqueue("pgjobs.bench.tasks.started_at").get(timeout=30) - before))
        return measures.quantiles(waits)

    def _pruned(self, rows: int) -> None:
        """Pick-up while a history of nine days is deleted, which is kept for one."""
        rows = int(rows * self._scale)
        self._fill("succeeded", 0)
        quiet = self._pick_ups()
        self.database.conn.execute(
            "INSERT INTO pgjobs_bench.jobs (id, task, status, position, started_at, finished_at)"
            " SELECT (substr(time, 1, 8) || '-' || substr(time, 9) || '-7' || substr(noise, 1, 3) || '-8'"
            " || substr(noise, 4, 3) || '-' || substr(noise, 7, 12))::uuid, 'noop', 'succeeded', NULL, age.at, age.at"
            " FROM generate_series(1, $1::int) AS n, md5(n::text) AS noise,"
            " (SELECT now() - interval '9 days' AS at) AS age,"
            " lpad(to_hex((extract(epoch FROM age.at) * 1000)::bigint), 12, '0') AS time".replace("$1", "%s").encode(),
            [rows],
        )
        self.database.conn.execute("UPDATE pgjobs_bench.duties SET state = NULL, next_at = now() WHERE name = 'prune'")
        waits = self._pick_ups()
        left = self.database.number("SELECT count(*) FROM pgjobs_bench.jobs WHERE task = 'noop'")
        figures = f"p50 {waits['p50']:.1f} ms, p99 {waits['p99']:.1f}; else {quiet['p50']:.1f} and {quiet['p99']:.1f}"
        self.rows.append({"name": "pick-up while old jobs are deleted", "note": f"{figures}; {rows - left:,.0f} jobs"})
        print(" ", self.rows[-1])

    def _soak(self, rows: int) -> None:
        """The memory of a worker after a first drain, and after many jobs more."""
        rows = int(rows * self._scale)
        self.database.fresh()
        with self.database.worker() as process:
            child = self.database.ready()
            sizes: list[str] = []
            for count in (COUNT, rows - COUNT):
                before = self.database.number(RECORDED)
                for low in range(0, count, 500_000):
                    self.database.enqueue("noop", min(500_000, count - low))
                while self.database.number(RECORDED) < before + count:
                    time.sleep(0.2)
                sizes.append(f"{measures.megabytes(child):.1f} MB")
            whole = f"supervisor {measures.megabytes(process.pid):.1f} MB"
        self.rows.append({"name": f"memory after {COUNT:,} and {rows:,} jobs", "note": f"{', '.join(sizes)}; {whole}"})
        print(" ", self.rows[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--only", nargs="*", default=[], metavar="CASE", help="finished, pinned, …")
    parser.add_argument("--dry", action="store_true", help="print, and write nothing")
    options = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="pgjobs-flat-"))
    home.chmod(0o711)
    try:
        with embedded.server(home / "home") as url:
            flat = Flat(url, options.scale)
            shape = measures.shape(flat.database)
            try:
                flat.run(options.only)
            finally:
                flat.database.close()
    finally:
        shutil.rmtree(home, ignore_errors=True)
    if not options.dry:
        document.store("flat", {"shape": shape, "rows": document.merged("flat", flat.rows)})


if __name__ == "__main__":
    main()
