"""The first figures: ``python -m benchmarks.first``, on a durable embedded PostgreSQL, workers as users start them.

Every figure is the median of several rounds, taken in turn, so that a slow minute of the machine hits all of them.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from pgjobs import embedded
from pgjobs.migrations import migrate

SPAN = """
    SELECT count(*) / extract(epoch FROM max(finished_at) - min(started_at))
      FROM pgjobs.jobs WHERE status = 'succeeded'
"""


@contextmanager
def worker(url: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "pgjobs", "worker", "-A", "benchmarks.tasks", "--log-level", "error", *arguments]
    process = subprocess.Popen(command, env=os.environ | {"PGJOBS_URL": url})
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def fresh(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("SET client_min_messages = warning")
        conn.execute("DROP SCHEMA IF EXISTS pgjobs CASCADE")
        migrate(url)
        conn.execute("CHECKPOINT")


def one(url: str, query: str) -> float:
    with psycopg.connect(url, autocommit=True) as conn:
        row = conn.execute(query.encode()).fetchone()
        assert row is not None
        return float(row[0])


def drain(url: str, processes: int, count: int, task: str) -> float:
    """Jobs a second from the first claim to the last recorded completion."""
    from benchmarks import tasks

    fresh(url)
    getattr(tasks, task).enqueue_many([(i,) for i in range(count)])
    with worker(url, "--processes", str(processes)) as process:
        while one(url, "SELECT count(*) FROM pgjobs.jobs WHERE position IS NOT NULL OR status = 'running'"):
            time.sleep(0.05)
            assert process.poll() is None
    return one(url, SPAN)


def enqueue_each(url: str, count: int) -> float:
    from benchmarks.tasks import noop

    fresh(url)
    noop.enqueue(0)
    started = time.perf_counter()
    for i in range(count):
        noop.enqueue(i)
    return count / (time.perf_counter() - started)


def enqueue_bulk(url: str, count: int) -> float:
    from benchmarks.tasks import noop

    fresh(url)
    noop.enqueue(0)
    started = time.perf_counter()
    noop.enqueue_many([(i,) for i in range(count)])
    return count / (time.perf_counter() - started)


def pick_up(url: str, count: int) -> tuple[float, float]:
    """Milliseconds from before enqueue() to the task's first line, on an idle worker: p50, p99."""
    from benchmarks.tasks import started_at

    fresh(url)
    waits: list[float] = []
    with worker(url):
        started_at.enqueue().get(timeout=30)
        for _ in range(count):
            time.sleep(0.005)
            before = time.time()
            waits.append(1000 * (started_at.enqueue().get(timeout=30) - before))
    cuts = statistics.quantiles(waits, n=100)
    return cuts[49], cuts[98]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=50_000)
    options = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="pgjobs-bench-"))
    home.chmod(0o711)
    try:
        with embedded.server(home / "home") as url:
            os.environ["PGJOBS_URL"] = url
            run(url, options.rounds, options.count)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def run(url: str, rounds: int, count: int) -> None:
    version = one(url, "SELECT current_setting('server_version_num')::int / 10000")
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, PostgreSQL {version:.0f}")
    measures: dict[str, Callable[[], Any]] = {
        f"drain {count:,} async no-ops, 1 worker child (jobs/s)": lambda: drain(url, 1, count, "noop"),
        f"drain {count:,} async no-ops, 2 worker children (jobs/s)": lambda: drain(url, 2, count, "noop"),
        f"drain {count:,} thread no-ops, 1 worker child (jobs/s)": lambda: drain(url, 1, count, "noop_in_thread"),
        "enqueue one by one, own transaction each (jobs/s)": lambda: enqueue_each(url, 3_000),
        f"enqueue {count:,} in bulk, one transaction (jobs/s)": lambda: enqueue_bulk(url, count),
        "pick-up by an idle worker (ms, p50 and p99)": lambda: pick_up(url, 500),
    }
    found: dict[str, list[Any]] = defaultdict(list)
    for _ in range(rounds):
        for name, measure in measures.items():
            found[name].append(measure())
    for name, values in found.items():
        if isinstance(values[0], tuple):
            middle = " / ".join(f"{statistics.median(column):.2f}" for column in zip(*values, strict=True))
            print(f"{name:62} {middle}")
        else:
            each = ", ".join(f"{value:,.0f}" for value in values)
            print(f"{name:62} {statistics.median(values):>9,.0f}   ({each})")


if __name__ == "__main__":
    main()
