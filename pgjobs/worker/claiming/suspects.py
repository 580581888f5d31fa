"""Jobs that were in a death which nobody could explain: few of them run at once, and the table says which ones."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from typing import Final

from pgjobs import statements
from pgjobs.connections.link import Link
from pgjobs.running.outcome import Outcome, released
from pgjobs.running.run import Run
from pgjobs.worker.claiming.slots import Slots

PATIENCE_S: Final = 1.0
"""A suspect that has waited here for so long goes back, for another worker to run."""

AWAY_S: Final = 5.0
"""How long it stays away then."""


class Suspects:
    """The suspects that a worker has claimed.

    When a host dies, nobody knows which of its jobs is to blame. Each becomes a suspect. Sixteen suspects run at once,
    beside jobs that are none, and before they begin their rows say so. If this host dies too, these sixteen are
    narrowed down: of them four run at once, then one, and one that ran alone when its host died is charged with a
    crash. So the innocent lose little time, and the guilty is found in a few deaths.
    """

    def __init__(self, link: Link, slots: Slots) -> None:
        self._link = link
        self._slots = slots
        self._waiting: deque[Run] = deque()
        self._running: list[Run] = []

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def waiting(self) -> list[Run]:
        """Those that have not begun."""
        return list(self._waiting)

    def add(self, runs: Iterable[Run]) -> None:
        """Takes claimed suspects."""
        self._waiting.extend(runs)

    def see_to(self, *, claiming: bool) -> list[Outcome]:
        """Starts as many as may run at once; returns the outcomes of those that go back."""
        if not self._waiting:
            return []
        if not claiming:
            back = [released(run) for run in self._waiting]
            self._waiting.clear()
            return back
        return [*self._start(), *self._send_away()]

    def _start(self) -> list[Outcome]:
        self._running = [run for run in self._running if self._slots.holds(run)]
        runs: list[Run] = []
        for run in self._waiting:
            together = [*self._running, *runs, run]
            if len(together) > min(each.among for each in together):
                break
            runs.append(run)
        if not runs:
            return []
        began = self._link.one(statements.begin_suspects([run.id for run in runs], [run.claim.id for run in runs]))
        for _ in runs:  # not before: the statement may fail
            self._waiting.popleft()
        ready = [run for run in runs if run.key in began]
        self._running += ready
        self._slots.add(ready)
        # Somebody holds the rows of the others, or they are not ours any more.
        return [released(run) for run in runs if run.key not in began]

    def _send_away(self) -> list[Outcome]:
        away: list[Outcome] = []
        while self._waiting and time.perf_counter() - self._waiting[0].received > PATIENCE_S:
            run = self._waiting.popleft()
            away.append(Outcome(run, "scheduled", 0.0, reason="waits to run apart", delay_s=AWAY_S, refund=1))
        return away
