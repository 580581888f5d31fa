"""What a worker counts, sent to a StatsD server once a second: by its supervisor, from sums, over UDP.

Nobody waits for it, and what is lost on the way is lost: the rollups in the database miss nothing.
"""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Final, Literal
from uuid import UUID

import msgspec

from pgjobs.connections.database import Database
from pgjobs.errors import ConfigurationError
from pgjobs.supervisor.metrics import QueueGauge
from pgjobs.supervisor.monitor import QueueGauges, address
from pgjobs.worker.tally import BUCKETS, Histogram, Sums

Format = Literal["statsd", "dogstatsd"]

EVERY_S: Final = 1.0
MAX_PACKET: Final = 1_432
"""Bytes of a datagram that no ordinary network has to split."""

_TYPICAL: Final = (
    BUCKETS[0] / 2,
    *((low + high) / 2 for low, high in pairwise(BUCKETS)),
    BUCKETS[-1],
)
"""A duration of each bucket, in seconds."""

_NO_NAME: Final = re.compile(r"[^A-Za-z0-9_-]")
_SPECIAL: Final = re.compile(r"[|,#\s]")

Tags = Mapping[str, str]


class Statsd:
    """Sums up what processes tell, and sends it. From the supervisor's loop alone.

    Args:
        where: HOST:PORT.
        form: statsd puts what tells metrics apart into their names, dogstatsd into tags.

    Raises:
        ConfigurationError: no such address.
    """

    def __init__(self, where: str, form: Format = "statsd") -> None:
        host, port = address(where, "--statsd")
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        except OSError as error:
            raise ConfigurationError(f"--statsd {where} is not found ({error}); give another address") from None
        family, kind, protocol, _, address_ = found
        self._address = address_
        self._socket = socket.socket(family, kind, protocol)
        self._socket.setblocking(False)
        self._write = _tagged if form == "dogstatsd" else _plain
        self._slots: dict[int, tuple[int, int]] = {}
        self._gauges: QueueGauges | None = None
        self._sent_at = time.monotonic()
        self._clear()

    def _clear(self) -> None:
        self._jobs: Counter[tuple[str, str, str]] = Counter()
        self._counts: Counter[str] = Counter()
        self._timers: dict[tuple[str, str], Histogram] = {}

    def measure(self, database: Database, holder: UUID) -> None:
        """Says which database the queues are in."""
        quiet = QueueGauges(database, holder, lambda event: None)  # the heartbeat says what is wrong
        quiet.start()
        self._gauges = quiet

    def hear(self, number: int, document: object) -> None:
        """Takes what a process says; what makes no sense is dropped."""
        with contextlib.suppress(msgspec.ValidationError):
            sums = msgspec.convert(document, Sums)
            self._slots[number] = (sums.busy, sums.slots)
            self.absorb(sums)

    def absorb(self, sums: Sums) -> None:
        """Adds sums."""
        for task, queue, status, jobs in sums.jobs:
            self._jobs[task, queue, status] += jobs
        self._counts.update(sums.counts)
        for name, histograms in (("job_run", sums.runs), ("job_wait", sums.waits)):
            for task, histogram in histograms.items():
                self._timers.setdefault((name, task), Histogram.empty()).merge(histogram)

    def count(self, name: str) -> None:
        """Counts one of what only the supervisor sees."""
        self._counts[name] += 1

    def gone(self, number: int) -> None:
        """Notes that a process has no slots any more."""
        self._slots.pop(number, None)

    def turned(self, *, processes: int, ready: int, reachable: bool) -> None:
        """Sends what has come together, once a second."""
        now = time.monotonic()
        if now - self._sent_at < EVERY_S:
            return
        self._sent_at = now
        standing = {"processes": processes, "processes_ready": ready, "database_up": int(reachable)}
        self._send(standing)

    def close(self) -> None:
        """Sends the last counts."""
        self._send({})
        if self._gauges is not None:
            self._gauges.stop()
        self._socket.close()

    def _send(self, standing: Mapping[str, int]) -> None:
        for packet in _packets(self._lines(standing)):
            with contextlib.suppress(OSError):  # nobody listens, or the buffer is full
                self._socket.sendto(packet, self._address)
        self._clear()

    def _lines(self, standing: Mapping[str, int]) -> Iterator[str]:
        for (task, queue, status), jobs in self._jobs.items():
            yield self._write("jobs", {"task": task, "queue": queue, "status": status}, f"{jobs}|c")
        for name, count in self._counts.items():
            yield self._write(name, {}, f"{count}|c")
        for (name, task), histogram in self._timers.items():
            for typical_s, count in _typical(histogram):
                rate = f"|@{1 / count:.6g}" if count > 1 else ""
                yield self._write(name, {"task": task}, f"{typical_s * 1000:.6g}|ms{rate}")
        for name, value in standing.items():
            yield self._write(name, {}, f"{value}|g")
        if standing:
            yield self._write("slots", {}, f"{sum(total for _, total in self._slots.values())}|g")
            yield self._write("slots_busy", {}, f"{sum(busy for busy, _ in self._slots.values())}|g")
            for gauge in self._gauges.read(patience_s=0.0) if self._gauges is not None else ():
                yield from self._queue(gauge)

    def _queue(self, queue: QueueGauge) -> Iterator[str]:
        for status in ("queued", "running", "scheduled"):
            jobs: int = getattr(queue, status)
            yield self._write("queue_jobs", {"queue": queue.queue, "status": status}, f"{jobs}|g")
        yield self._write("queue_oldest_wait_seconds", {"queue": queue.queue}, f"{queue.oldest_s or 0.0:.6g}|g")


def _typical(histogram: Histogram) -> Iterator[tuple[float, int]]:
    """A duration for each bucket that is not empty, and how many it stands for: their sum is the true one."""
    guess = sum(count * typical for count, typical in zip(histogram.counts, _TYPICAL, strict=True))
    for count, typical in zip(histogram.counts, _TYPICAL, strict=True):
        if count:
            yield typical * histogram.total / guess, count


def _plain(name: str, tags: Tags, value: str) -> str:
    path = ".".join(["pgjobs", name, *(_NO_NAME.sub("_", text) for text in tags.values())])
    return f"{path}:{value}"


def _tagged(name: str, tags: Tags, value: str) -> str:
    shown = ",".join(f"{key}:{_SPECIAL.sub('_', text)}" for key, text in tags.items())
    return f"pgjobs.{name}:{value}" + (f"|#{shown}" if shown else "")


def _packets(lines: Iterable[str]) -> Iterator[bytes]:
    """Lines by the datagram."""
    packet = b""
    for line in lines:
        more = line.encode(errors="replace")
        if packet and len(packet) + 1 + len(more) > MAX_PACKET:
            yield packet
            packet = b""
        packet = packet + b"\n" + more if packet else more
    if packet:
        yield packet
