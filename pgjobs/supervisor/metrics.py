"""Sums of what the processes of a worker have counted, in Prometheus' text format.

Written here and not by prometheus-client: its metrics are incremented where things happen, one lock and one call each,
and shared between processes through files. Here sums arrive ready made once a second, so that what is left to do is to
write lines; a supervisor that needs no third-party package for that stays lean.
"""

from __future__ import annotations

import contextlib
import platform
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final, NamedTuple

import msgspec

import pgjobs
from pgjobs.worker.tally import BUCKETS, Histogram, Sums

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Metric:
    """What is exported under a name."""

    kind: str
    help: str
    labels: Sequence[str] = ()


METRICS: Final[Mapping[str, Metric]] = {
    "pgjobs_build_info": Metric("gauge", "1; the release and the Python that run.", ["version", "python"]),
    "pgjobs_jobs_total": Metric(
        "counter",
        "Attempts that ended, as recorded: succeeded, failed, cancelled, retried, snoozed.",
        ["task", "queue", "status"],
    ),
    "pgjobs_job_run_seconds": Metric("histogram", "How long an attempt ran.", ["task"]),
    "pgjobs_job_wait_seconds": Metric(
        "histogram",
        "From the enqueue to the first attempt, by the worker's clock; a delay that was asked for counts.",
        ["task"],
    ),
    "pgjobs_slots": Metric("gauge", "Jobs that can run at once."),
    "pgjobs_slots_busy": Metric("gauge", "Jobs that run."),
    "pgjobs_claims_total": Metric("counter", "Claims that found jobs."),
    "pgjobs_claims_lost_total": Metric("counter", "Outcomes that came too late, since the job was another worker's."),
    "pgjobs_jobs_released_total": Metric("counter", "Jobs given back unrun."),
    "pgjobs_jobs_reaped_total": Metric("counter", "Jobs of dead workers queued again, or given up as poison."),
    "pgjobs_database_up": Metric("gauge", "Whether the last heartbeat reached the database."),
    "pgjobs_database_errors_total": Metric("counter", "Outages of the database, and errors that it has answered."),
    "pgjobs_processes": Metric("gauge", "Processes that live."),
    "pgjobs_processes_ready": Metric("gauge", "Processes that claim jobs."),
    "pgjobs_process_deaths_total": Metric("counter", "Processes that died, or were killed because they had to go."),
    "pgjobs_process_restarts_total": Metric("counter", "Processes started to follow another one."),
    "pgjobs_queue_jobs": Metric("gauge", "Jobs in the whole fleet; estimated beyond 10,000.", ["queue", "status"]),
    "pgjobs_queue_oldest_wait_seconds": Metric("gauge", "Age of the longest waiting queued job.", ["queue"]),
}


class QueueGauge(NamedTuple):
    """How a queue stood when it was last looked at."""

    queue: str
    queued: int
    running: int
    scheduled: int
    oldest_s: float | None


class Metrics:
    """The sums of all processes so far. ``absorb`` and ``count`` and ``text`` from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: Counter[tuple[str, str, str]] = Counter()
        self._runs: dict[str, Histogram] = {}
        self._waits: dict[str, Histogram] = {}
        self._counts: Counter[str] = Counter()
        self._slots: dict[int, tuple[int, int]] = {}

    def hear(self, number: int, document: object) -> None:
        """Takes what a process says; the jobs' code has the pipe too, so what makes no sense is dropped."""
        with contextlib.suppress(msgspec.ValidationError):
            sums = msgspec.convert(document, Sums)
            self._slots[number] = (sums.busy, sums.slots)
            self.absorb(sums)

    def gone(self, number: int) -> None:
        """Notes that a process has no slots any more."""
        self._slots.pop(number, None)

    def count(self, name: str) -> None:
        """Counts one of what only the supervisor sees."""
        with self._lock:
            self._counts[name] += 1

    def absorb(self, sums: Sums) -> None:
        """Adds sums."""
        with self._lock:
            for task, queue, status, jobs in sums.jobs:
                self._jobs[task, queue, status] += jobs
            for mine, theirs in ((self._runs, sums.runs), (self._waits, sums.waits)):
                for task, histogram in theirs.items():
                    mine.setdefault(task, Histogram.empty()).merge(histogram)
            self._counts.update(sums.counts)

    def text(self, *, processes: int, ready: int, reachable: bool, queues: Iterable[QueueGauge]) -> str:
        """All metrics, as Prometheus reads them."""
        with self._lock:
            slots = list(self._slots.values())
            samples: dict[str, Iterable[_Sample]] = {
                "pgjobs_build_info": [_Sample((pgjobs.__version__, platform.python_version()), 1)],
                "pgjobs_jobs_total": [_Sample(names, count) for names, count in sorted(self._jobs.items())],
                "pgjobs_slots": [_Sample((), sum(total for _, total in slots))],
                "pgjobs_slots_busy": [_Sample((), sum(busy for busy, _ in slots))],
                "pgjobs_database_up": [_Sample((), int(reachable))],
                "pgjobs_processes": [_Sample((), processes)],
                "pgjobs_processes_ready": [_Sample((), ready)],
                "pgjobs_queue_jobs": [
                    _Sample((each.queue, status), count)
                    for each in queues
                    for status, count in zip(("queued", "running", "scheduled"), each[1:4], strict=True)
                ],
                "pgjobs_queue_oldest_wait_seconds": [_Sample((each.queue,), each.oldest_s or 0.0) for each in queues],
            }
            histograms = {"pgjobs_job_run_seconds": self._runs, "pgjobs_job_wait_seconds": self._waits}
            lines: list[str] = []
            for name, metric in METRICS.items():
                lines += [f"# HELP {name} {metric.help}", f"# TYPE {name} {metric.kind}"]
                if name in histograms:
                    lines += _histogram_lines(name, histograms[name])
                    continue
                counted = self._counts[name.removeprefix("pgjobs_").removesuffix("_total")]
                for sample in samples.get(name, [_Sample((), counted)]):
                    lines.append(_line(name, zip(metric.labels, sample.values, strict=True), sample.value))
        return "\n".join(lines) + "\n"


class _Sample(NamedTuple):
    values: Sequence[str]
    value: float


def _histogram_lines(name: str, histograms: Mapping[str, Histogram]) -> Iterator[str]:
    bounds = [*map(str, BUCKETS), "+Inf"]
    for task, histogram in sorted(histograms.items()):
        for bound, count in zip(bounds, accumulate(histogram.counts), strict=True):
            yield _line(f"{name}_bucket", [("task", task), ("le", bound)], count)
        yield _line(f"{name}_sum", [("task", task)], histogram.total)
        yield _line(f"{name}_count", [("task", task)], sum(histogram.counts))


def _line(name: str, labels: Iterable[tuple[str, str]], value: Any) -> str:
    shown = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels)
    return f"{name}{{{shown}}} {value}" if shown else f"{name} {value}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
