"""What is measured of a peer, by the same notes for all.

A drain is timed from the first job's start to the last completion *recorded*, where the peer keeps a record, else to
the last job's start: a Redis peer with these settings acknowledges, and remembers nothing. Every job must have run, and
once.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final

import psycopg

from benchmarks.peers.environment import Bench, Unavailable

LATENCIES = 200
PAUSE_S = 0.02
DRAIN_LIMIT_S = 120.0


def enqueue_each(bench: Bench) -> float:
    """Jobs a second, one call and one commit each."""
    bench.fresh()
    count = 2_000
    clocks = bench.clocks(count, 0)
    return (count - 100) / (clocks[-1] - clocks[100])


def enqueue_bulk(bench: Bench) -> float:
    """Jobs a second by the peer's fastest call."""
    bench.fresh()
    return bench.bulk(bench.peer.jobs)


def drain(bench: Bench, processes: int) -> float:
    """Recorded completions a second, from a backlog."""
    bench.fresh()
    _lay(bench)
    return _drained(bench, processes)


def held(bench: Bench) -> float:
    """Recorded completions a second of a second backlog, while a transaction has held its snapshot since the first."""
    bench.fresh()
    _lay(bench)
    with _snapshot(bench):
        _drained(bench, 2)
        bench.notes.write_bytes(b"")
        _lay(bench)
        return _drained(bench, 1)


def pick_up(bench: Bench) -> list[float]:
    """Milliseconds from before the enqueue call to the start of the job, by an idle worker."""
    bench.fresh()
    with bench.workers(1):
        bench.bulk(10)
        bench.until_noted(10, 60)
        time.sleep(2.0)
        bench.notes.write_bytes(b"")
        clocks = bench.clocks(LATENCIES, PAUSE_S)
        bench.until_noted(LATENCIES, 60)
    return [1000 * (start - clocks[i]) for i, start in bench.starts()]


def _lay(bench: Bench) -> None:
    bench.bulk(bench.peer.jobs)
    if not bench.peer.on_redis:
        with psycopg.connect(bench.database, autocommit=True) as conn:
            conn.execute("VACUUM ANALYZE")


def _drained(bench: Bench, processes: int) -> float:
    count = bench.peer.jobs
    with bench.workers(processes):
        bench.until_noted(count, DRAIN_LIMIT_S)
        recorded = 0.0 if bench.peer.on_redis else bench.until_recorded()
    starts = bench.starts()
    twice = [i for i, times in Counter(i for i, _ in starts).items() if times > 1]
    if twice:
        raise Unavailable(f"{len(twice):,} of {count:,} jobs were run more than once")
    clocks = [clock for _, clock in starts]
    return count / (max(recorded, *clocks) - min(clocks))


@contextmanager
def _snapshot(bench: Bench) -> Generator[None]:
    with psycopg.connect(bench.database) as conn:
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        conn.execute("SELECT count(*) FROM pg_class")
        yield


Values = dict[str, float]

MEASURES: Final[dict[str, Callable[[Bench], Values]]] = {
    "drain 1": lambda bench: {"drain 1": drain(bench, 1)},
    "drain 2": lambda bench: {"drain 2": drain(bench, 2)},
    "held": lambda bench: {"held": held(bench)},
    "enqueue": lambda bench: {"enqueue": enqueue_each(bench)},
    "bulk": lambda bench: {"bulk": enqueue_bulk(bench)},
    "pick-up": lambda bench: _quantiles(pick_up(bench)),
}
"""By name: the parts of a round, and the values that each adds to a peer's row."""


def _quantiles(values: list[float]) -> Values:
    return {"p50": statistics.median(values), "p99": statistics.quantiles(values, n=100)[98]}
