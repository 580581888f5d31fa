"""What metrics and traces cost a worker: ``python -m benchmarks.watched``.

Each round drains no-ops with nothing, with ``--http`` and with a span for each run, every second one backwards.
Each drain is compared with the plain one of its own round, and the median of the rounds counts: a machine that others
use too is as slow for both. CPU is that of supervisor and child, their start and end included.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Final, NamedTuple

from pgjobs import embedded
from pgjobs.bench.measures import RECORDED, Database
from pgjobs.bench.tasks import SCHEMA
from pgjobs.statements import QUERIES

PLAIN: Final = "plain"
WAYS: Final = {PLAIN: (), "metrics": ("--http", "127.0.0.1:0"), "traces": ("-A", "benchmarks.traced:jobs")}
RATE: Final = QUERIES["bench_rate"].text(SCHEMA)


class Drain(NamedTuple):
    """Jobs a second by the database's clock, and microseconds of CPU a job."""

    rate: float
    cpu_us: float


def drain(database: Database, count: int, options: tuple[str, ...]) -> Drain:
    """Runs a worker until a backlog is recorded."""
    database.fresh()
    database.enqueue("noop", count)
    before_s = _cpu_s()
    with database.worker(*options) as process:
        while database.number(RECORDED) < count:
            time.sleep(0.05)
            if process.poll() is not None:
                raise RuntimeError("the worker has ended")
    return Drain(database.number(RATE), 1e6 * (_cpu_s() - before_s) / count)


def _cpu_s() -> float:
    """CPU of the workers that have ended so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=8)
    options = parser.parse_args()
    found: dict[str, list[Drain]] = {way: [] for way in WAYS}
    home = Path(tempfile.mkdtemp(prefix="pgjobs-watched-"))
    home.chmod(0o711)
    with embedded.server(home / "home") as url:
        database = Database(url)
        for number in range(options.rounds):
            for way in list(WAYS)[:: -1 if number % 2 else 1]:
                found[way].append(drain(database, options.jobs, WAYS[way]))
            print(number, {way: tuple(map(round, drains[-1])) for way, drains in found.items()}, flush=True)
        database.close()
    for way, drains in found.items():
        pairs = list(zip(drains, found[PLAIN], strict=True))
        slower = statistics.median(100 * (1 - mine.rate / plain.rate) for mine, plain in pairs)
        cpu_us = statistics.median(mine.cpu_us - plain.cpu_us for mine, plain in pairs)
        print(f"{way}: {slower:.1f} % slower, {cpu_us:+.1f} µs of CPU a job, load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
