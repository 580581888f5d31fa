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
"""Where none could begin for so long, those that wait go back, for other workers to run."""

KEPT_S: Final = 5.0
"""So long one waits where others begin: there may be workers with nothing to do."""

AWAY_S: Final = 5.0
"""How long it stays away then. Its place in the queue is kept."""

MOST: Final = 2_000
"""So many wait here; a fleet's death leaves any number of them, and they stand before all else."""


class Suspects:
    """The suspects that a worker has claimed.

    When a host dies, nobody knows which of its jobs is to blame. Each becomes a suspect. Sixteen suspects run at once,
    beside jobs that are none, and before they begin their rows say so. If this host dies too, these sixteen are
    narrowed down: of them four run at once, then one, and one that ran alone when its host died is charged with a
    crash. So the innocent lose little time, and the guilty is found in a few deaths.

    Those that wait for their turn take no slot and no room: other jobs are claimed and run meanwhile.
    """

    def __init__(self, link: Link, slots: Slots) -> None:
        self._link = link
        self._slots = slots
        self._waiting: deque[Run] = deque()
        self._running: list[Run] = []
        self._began_at = 0.0

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
        self._began_at = time.perf_counter()
        ready = [run for run in runs if run.key in began]
        for run in ready:
            run.ready = self._began_at
        self._running += ready
        self._slots.add_first(ready)
        # Somebody holds the rows of the others, or they are not ours any more.
        return [released(run) for run in runs if run.key not in began]

    def _send_away(self) -> list[Outcome]:
        now = time.perf_counter()
        patience_s = KEPT_S if now - self._began_at < PATIENCE_S else PATIENCE_S
        away: list[Run] = []
        while self._waiting and (len(self._waiting) > MOST or now - self._waiting[0].received > patience_s):
            away.append(self._waiting.popleft())
        return [released(run, AWAY_S) for run in away]
