"""How long the reports take beside ten million finished and a million queued jobs: ``python -m benchmarks.reports``.

The rollups are those of a month: 20 tasks in 5 queues. Each view is read five times as a dashboard would read it; the
median counts. ``--scale 0.01`` is a try.
"""

from __future__ import annotations

import argparse
import compileall
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks import document
from pgjobs import embedded
from pgjobs.bench import measures
from pgjobs.bench.measures import Database

ROOT: Final = Path(__file__).parents[1]
REPEATS: Final = 5
INFO_MS: Final = 300
VIEW_MS: Final = 200
STEP: Final = 500_000
TASKS, QUEUES = 20, 5

VIEWS: Final = {
    "queue_stats": "SELECT * FROM pgjobs_bench.queue_stats",
    "task_stats": "SELECT * FROM pgjobs_bench.task_stats",
    "worker_stats": "SELECT * FROM pgjobs_bench.worker_stats",
    "running": "SELECT * FROM pgjobs_bench.running",
    "waits": "SELECT * FROM pgjobs_bench.waits",
    "failed_by_fingerprint": "SELECT * FROM pgjobs_bench.failed_by_fingerprint",
    "throughput_minute, an hour": (
        "SELECT * FROM pgjobs_bench.throughput_minute WHERE minute >= now() - interval '1 hour'"
    ),
    "throughput_hour, a day": "SELECT * FROM pgjobs_bench.throughput_hour WHERE hour >= now() - interval '1 day'",
    "throughput_day, a month": "SELECT * FROM pgjobs_bench.throughput_day WHERE day >= now() - interval '30 days'",
    "history, the latest 50": "SELECT * FROM pgjobs_bench.history ORDER BY id DESC LIMIT 50",
}

JOBS: Final = """
    INSERT INTO pgjobs_bench.jobs (task, queue, args, status, position, created_at, started_at, finished_at)
    SELECT 'task' || n %% %(tasks)s, 'queue' || n %% %(queues)s, '{"i": 1}', %(status)s,
           CASE WHEN %(status)s = 'queued' THEN nextval('pgjobs_bench.positions') END,
           now(), CASE WHEN %(status)s = 'succeeded' THEN now() END, CASE WHEN %(status)s = 'succeeded' THEN now() END
      FROM generate_series(1, %(count)s) AS n
"""
MONTH: Final = """
    INSERT INTO pgjobs_bench.rollups (minute, queue, task, status, bucket, jobs, seconds)
    SELECT minute, 'queue' || task %% %(queues)s, 'task' || task, status, bucket, 10, 0.1
      FROM (SELECT generate_series(date_trunc('minute', now()) - interval '2 days', now(), '1 minute') AS minute
            UNION ALL
            SELECT generate_series(date_trunc('hour', now()) - interval '30 days', now() - interval '3 days', '1 hour')
           ) AS minutes,
           generate_series(0, %(tasks)s - 1) AS task,
           (VALUES ('succeeded', 3), ('succeeded', 4), ('failed', 3)) AS ends (status, bucket)
"""
FAILURES: Final = """
    INSERT INTO pgjobs_bench.failures (job_id, attempt, failed_at, reason, exception, message, traceback, fingerprint)
    SELECT id, 1, now(), 'error', 'ValueError', 'broken', 'a traceback', 'print' || row_number() OVER () %% 50
      FROM (SELECT id FROM pgjobs_bench.jobs LIMIT %(failures)s) AS job
"""


def fill(database: Database, finished: int, queued: int) -> None:
    """Fills the tables as a month of work would."""
    database.fresh()
    sizes = {"tasks": TASKS, "queues": QUEUES, "failures": 10_000}
    for status, count in (("succeeded", finished), ("queued", queued)):
        for low in range(0, count, STEP):
            database.conn.execute(JOBS.encode(), sizes | {"status": status, "count": min(STEP, count - low)})
    database.conn.execute(MONTH.encode(), sizes)
    database.conn.execute(FAILURES.encode(), sizes)
    database.conn.execute("VACUUM ANALYZE")
    database.conn.execute("CHECKPOINT")


def timed_ms(call: Callable[[], Any]) -> float:
    """The median time of a call."""
    times: list[float] = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times)


def measure(database: Database) -> list[dict[str, Any]]:
    """The time of ``pgjobs info``, its start included, and of every view."""
    compileall.compile_dir(ROOT / "pgjobs", quiet=1)  # as an installation does
    info = [sys.executable, "-m", "pgjobs", "info", "--url", database.url, "--schema", measures.SCHEMA]
    version = [sys.executable, "-m", "pgjobs", "--version"]
    rows: list[dict[str, Any]] = [
        {"name": "`pgjobs info`", "goal": INFO_MS, "ms": timed_ms(lambda: _quietly(info))},
        {"name": "`pgjobs --version`, the start alone", "ms": timed_ms(lambda: _quietly(version))},
    ]
    for name, query in VIEWS.items():
        view, comma, how = name.partition(",")
        took = timed_ms(partial(_read, database, query))
        rows.append({"name": f"`{view}`{comma}{how}", "goal": VIEW_MS, "ms": took})
    return rows


def _read(database: Database, query: str) -> None:
    database.conn.execute(query.encode()).fetchall()


def _quietly(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--dry", action="store_true", help="print, and write nothing")
    options = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="pgjobs-reports-"))
    home.chmod(0o711)
    try:
        with embedded.server(home / "home") as url:
            database = Database(url)
            try:
                finished, queued = int(10_000_000 * options.scale), int(1_000_000 * options.scale)
                fill(database, finished, queued)
                rows = measure(database)
                shape = measures.shape(database)
            finally:
                database.close()
    finally:
        shutil.rmtree(home, ignore_errors=True)
    for row in rows:
        print(f"  {row['name']:40} {row['ms']:8.1f} ms")
    if not options.dry:
        document.store("reports", {"shape": shape, "finished": finished, "queued": queued, "rows": rows})


if __name__ == "__main__":
    main()
