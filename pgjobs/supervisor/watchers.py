"""Whoever watches a worker from outside, and what its supervisor tells them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, cast
from uuid import UUID

from pgjobs import telemetry
from pgjobs.connections.database import Database
from pgjobs.events import Event
from pgjobs.supervisor.children import Children
from pgjobs.supervisor.health import Health, Standing
from pgjobs.supervisor.notify import Notifier
from pgjobs.supervisor.process import Settings
from pgjobs.worker.tally import Tally

if TYPE_CHECKING:
    from pgjobs.supervisor.metrics import Metrics
    from pgjobs.supervisor.monitor import Monitor
    from pgjobs.supervisor.statsd import Format, Statsd

logger = logging.getLogger("pgjobs.worker")


class Watchers:
    """systemd, whoever asks by HTTP, and a StatsD server: each where it was asked for.

    Raises:
        ConfigurationError: nobody can listen, or be found, at an address of the settings.
    """

    def __init__(self, settings: Settings) -> None:
        self._tally = Tally(telemetry.Log())
        counted = settings.http or settings.statsd
        self.emit: Callable[[Event], None] = self._tally if counted else telemetry.Log()
        """Takes the supervisor's own events."""
        self._monitor = _monitor(settings, self.emit)
        self._statsd = _statsd(settings)
        self._notifier = Notifier()

    def start(self) -> None:
        """Answers from now on."""
        if self._monitor is not None:
            self._monitor.start()
            logger.info("watch me at %s/live, /ready and /metrics", self._monitor.url)

    def measure(self, database: Database, holder: UUID) -> None:
        """Says which database the queues are in, and under which id they are to be measured."""
        for watcher in (self._monitor, self._statsd):
            if watcher is not None:
                watcher.measure(database, holder)

    def stopping(self) -> None:
        """Says that the worker was asked to stop."""
        self._notifier.stopping()

    def close(self) -> None:
        """Answers no more."""
        for watcher in (self._monitor, self._statsd):
            if watcher is not None:
                watcher.close()

    # -- what is counted

    def hear(self, pid: int, sums: object) -> None:
        """Adds what a process has counted."""
        for counter in self._counters:
            counter.hear(pid, sums)

    def gone(self, pid: int) -> None:
        """Says that a process has exited."""
        for counter in self._counters:
            counter.gone(pid)

    def count(self, name: str) -> None:
        """Counts one of what only the supervisor sees."""
        for counter in self._counters:
            counter.count(name)

    @property
    def _counters(self) -> list[Metrics | Statsd]:
        found: list[Metrics | Statsd] = [] if self._monitor is None else [self._monitor.metrics]
        return found if self._statsd is None else [*found, self._statsd]

    # -- how it stands

    def turned(self, children: Children, *, is_stopping: bool, reached_at: float) -> None:
        """Leaves for whoever asks how things stand, the loop itself being never asked; and tells who does not ask."""
        self._notifier.turned(ready=children.is_any_ready)
        if self._monitor is None and self._statsd is None:
            return
        standings = [Standing(each.popen.pid, each.is_ready, each.still_s) for each in children]
        health = Health(time.monotonic(), standings, is_stopping, reached_at)
        sums = self._tally.take()
        for counter in self._counters:
            counter.absorb(sums)
        if self._monitor is not None:
            self._monitor.health = health
        if self._statsd is not None:
            ready = sum(each.ready for each in standings)
            self._statsd.turned(processes=len(standings), ready=ready, reachable=health.reaches_database)


def _monitor(settings: Settings, emit: Callable[[Event], None]) -> Monitor | None:
    if settings.http is None:
        return None
    from pgjobs.supervisor.monitor import Monitor  # an HTTP server is 2 MB, which few supervisors need

    return Monitor(settings.http, settings.stall_timeout, emit)


def _statsd(settings: Settings) -> Statsd | None:
    if settings.statsd is None:
        return None
    from pgjobs.supervisor.statsd import Statsd

    return Statsd(settings.statsd, cast("Format", settings.statsd_format))
