"""Jobs that were in a death which nobody could explain: they run one at a time, and the table says which one runs."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from typing import Final

from pgjobs import statements
from pgjobs.link import Link
from pgjobs.run import Outcome, Run, released
from pgjobs.worker.slots import Slots

PATIENCE_S: Final = 1.0
"""A suspect that has waited here for so long goes back, for another worker to run."""

AWAY_S: Final = 5.0
"""How long it stays away then."""


class Suspects:
    """The suspects that a worker has claimed.

    When a host dies, nobody knows which of its jobs is to blame. Each becomes a suspect. Of several suspects one runs
    at a time, beside jobs that are none, and before it begins its row says so: if this host dies too, that job is
    charged with a crash, and no other.
    """

    def __init__(self, link: Link, slots: Slots) -> None:
        self._link = link
        self._slots = slots
        self._waiting: deque[Run] = deque()
        self._running: Run | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, runs: Iterable[Run]) -> None:
        """Takes claimed suspects."""
        self._waiting.extend(runs)

    def see_to(self, *, claiming: bool) -> list[Outcome]:
        """Starts the next one if none runs; returns the outcomes of those that go back."""
        if not self._waiting:
            return []
        if not claiming:
            back = [released(run) for run in self._waiting]
            self._waiting.clear()
            return back
        return [*self._start_next(), *self._send_away()]

    def _start_next(self) -> list[Outcome]:
        if self._running is not None and self._slots.holds(self._running):
            return []
        run = self._waiting.popleft()
        if not self._link.one(statements.begin_suspect(run.id, run.claim.id)):
            return [released(run)]  # somebody holds its row, or it is not ours any more
        self._running = run
        self._slots.add([run])
        return []

    def _send_away(self) -> list[Outcome]:
        away: list[Outcome] = []
        while self._waiting and time.perf_counter() - self._waiting[0].received > PATIENCE_S:
            run = self._waiting.popleft()
            away.append(Outcome(run, "scheduled", 0.0, reason="waits to run apart", delay_s=AWAY_S, refund=1))
        return away
