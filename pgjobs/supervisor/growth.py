"""More processes as jobs wait, fewer as slots are idle."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from itertools import count
from typing import Final

from pgjobs import statements
from pgjobs.connections.link import Link
from pgjobs.supervisor.process import Process, Settings
from pgjobs.supervisor.scale import Load, Scale
from pgjobs.worker.service import Cost, rest_after
from pgjobs.worker.subscription import Subscription

SCALE_S: Final = 1.0
"""How often is asked whether there should be more processes, or fewer."""

logger = logging.getLogger("pgjobs.worker")


class Growth:
    """Does what ``Scale`` decides: ``turn`` is called by the supervisor's loop, ``ask`` by its heartbeat.

    Args:
        most: how many processes there may be.
        start: starts a process under a number.
    """

    def __init__(
        self,
        settings: Settings,
        most: int,
        start: Callable[[int], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._scale = Scale(settings.processes, most, settings.scale_wait, settings.scale_idle, clock)
        self._clock = clock
        self._slots = settings.concurrency
        self._queues = settings.queues
        self._start = start
        self._turn_at = 0.0
        self._ask_at = 0.0
        self._cost = Cost()
        self._must_ask = False
        self._waited_s = 0.0

    def turn(self, staying: Collection[Process], planned: Collection[int]) -> None:
        """Starts a process, has one leave, or does nothing.

        Args:
            staying: those that live and are to stay.
            planned: the numbers of those that will be started anyhow.
        """
        if self._clock() < self._turn_at:
            return
        self._turn_at = self._clock() + SCALE_S
        busy = {child.popen.pid: len(child.board.begun()) for child in staying if child.is_ready}
        total = len(staying) + len(planned)
        load = Load(total, total - len(busy), len(busy) * self._slots, sum(busy.values()))
        waited_s, self._waited_s = self._waited_s, 0.0
        step = self._scale.decide(load, waited_s)
        if step > 0:
            logger.info("one process more, %d now: a job has waited for %.0f s, all slots busy", total + 1, waited_s)
            taken = {child.number for child in staying} | set(planned)
            self._start(next(number for number in count() if number not in taken))
        elif step < 0:
            logger.info("one process fewer, %d now: its slots have been idle", total - 1)
            min(staying, key=lambda child: (busy.get(child.popen.pid, 0), -child.number)).drain()
        self._must_ask = self._scale.wants_to_know(load)

    def ask(self, link: Link) -> None:
        """Asks how long jobs wait, where that matters; the longer the answer takes, the more seldom."""
        if not self._must_ask or (asked_at := self._clock()) < self._ask_at:
            return
        served = Subscription.parse(self._queues)
        waits = link.one(statements.longest_wait())
        self._waited_s = max((wait for queue, wait in waits.items() if served.rank(queue) is not None), default=0.0)
        self._ask_at = self._clock() + rest_after(self._cost.after(self._clock() - asked_at))
