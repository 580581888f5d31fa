"""``pgjobs bench``: how fast the queue is here, on one's own server, with every completion durable."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pgjobs.bench import measures
from pgjobs.bench.measures import Database

Values = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Measure:
    """One line of the table: what it says, its unit, and what takes its figures."""

    name: str
    unit: str
    take: Callable[[Database], Values]


@dataclass(slots=True)
class Report:
    """What was measured: the shape of the machine, and for each measure the values of every round."""

    shape: dict[str, Any]
    units: dict[str, str] = field(default_factory=dict[str, str])
    rounds: dict[str, list[Values]] = field(default_factory=lambda: defaultdict(list))

    def medians(self) -> dict[str, dict[str, float]]:
        """For each measure the median of its rounds, value by value."""
        return {
            name: {key: statistics.median(values[key] for values in taken) for key in taken[0]}
            for name, taken in self.rounds.items()
        }

    def document(self) -> dict[str, Any]:
        """As JSON."""
        figures = [
            {"name": name, "unit": self.units[name], "medians": medians, "rounds": self.rounds[name]}
            for name, medians in self.medians().items()
        ]
        return {"shape": self.shape, "figures": figures}


def standard(jobs: int) -> list[Measure]:
    """The measures of a run; drains have so many jobs."""

    def drained(task: str, count: int, **more: int) -> Callable[[Database], Values]:
        return lambda database: measures.drain(database, task, count, **more)

    def rate(take: Callable[..., float], *args: int) -> Callable[[Database], Values]:
        return lambda database: {"jobs/s": take(database, *args)}

    def latency(take: Callable[..., list[float]], *args: Any, **more: Any) -> Callable[[Database], Values]:
        return lambda database: measures.quantiles(take(database, *args, **more))

    few, pooled = max(500, jobs // 25), jobs // 5
    return [
        Measure(f"drain {jobs:,} coroutines, 1 process", "jobs/s", drained("noop", jobs)),
        Measure(f"drain {jobs:,} coroutines, 2 processes", "jobs/s", drained("noop", jobs, processes=2)),
        Measure(f"drain {jobs:,} coroutines, 4 processes", "jobs/s", drained("noop", jobs, processes=4)),
        Measure("  bare claim and complete, the floor of that", "jobs/s", rate(measures.claim_and_complete, jobs)),
        Measure(f"drain {jobs:,} functions in threads", "jobs/s", drained("noop_thread", jobs)),
        Measure(f"drain {pooled:,} functions in 2 pool processes", "jobs/s", drained("noop_process", pooled, slots=2)),
        Measure("enqueue one by one", "jobs/s", rate(measures.enqueue_each, few)),
        Measure("  bare INSERT, the floor of that", "jobs/s", rate(measures.insert_each, few)),
        Measure("enqueue by 10 coroutines", "jobs/s", rate(measures.enqueue_async, few, 10)),
        Measure(f"enqueue {jobs:,} in bulk", "jobs/s", rate(measures.enqueue_bulk, jobs)),
        Measure("  bare COPY, the floor of that", "jobs/s", rate(measures.copy_bulk, jobs)),
        Measure("pick-up, idle worker", "ms", latency(measures.pick_up, 300)),
        Measure("pick-up beside 1,000 jobs a second", "ms", latency(measures.pick_up, 300, load=1_000)),
        Measure("pick-up from the caller's COMMIT", "ms", latency(measures.pick_up_from_commit, 300)),
        Measure("enqueue → get", "ms", latency(measures.round_trip, 300)),
        Measure("start of scheduled jobs, late by", "ms", latency(measures.scheduled, 400)),
        Measure("row to recorded end at 1,000 jobs a second", "ms", latency(measures.together, 1_000, 3.0)),
        Measure("memory", "MB", lambda database: measures.memory(database, jobs)),
    ]


def run(
    url: str, chosen: Sequence[Measure], rounds: int, progress: Callable[[str], None] = lambda name: None
) -> Report:
    """Takes measures, in turn within each round, so that a slow minute of the machine hits all of them.

    Args:
        url: a database in which the schema pgjobs_bench may be dropped.
    """
    database = Database(url)
    try:
        report = Report(measures.shape(database))
        for _ in range(rounds):
            for measure in chosen:
                progress(measure.name)
                report.units[measure.name] = measure.unit
                report.rounds[measure.name].append(measure.take(database))
        return report
    finally:
        database.close()
