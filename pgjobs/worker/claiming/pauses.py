"""What is paused, as one worker knows it: read when somebody has told of a change, and every few seconds."""

from __future__ import annotations

import time
from typing import Final

from pgjobs import statements
from pgjobs.connections.link import Link
from pgjobs.statements import Paused
from pgjobs.worker.claiming.lanes import Lanes

READ_S: Final = 3.0
"""How often the pauses are read where nobody has told of one."""

DOUBT_S: Final = 0.2
"""How old they may be where they make a difference: a job that was put on hold for nothing would be claimed again."""


class Pauses:
    """Tells the lanes which queues are paused, and the admission which tasks."""

    def __init__(self, lanes: Lanes, link: Link) -> None:
        self._lanes = lanes
        self._link = link
        self._known = Paused(frozenset(), frozenset())
        self._read_at = 0.0
        self._at = 0.0

    def changed(self) -> None:
        """Says that there is something new; from any thread."""
        self._at = 0.0

    @property
    def any_(self) -> bool:
        """Whether anything is paused."""
        return bool(self._known.tasks or self._known.queues)

    def stops(self, task: str, queue: str) -> bool:
        """Whether a job that was claimed, or enqueued to run here, is not to run."""
        if task not in self._known.tasks and queue not in self._known.queues:
            return False
        self._at = min(self._at, self._read_at + DOUBT_S)
        return True

    @property
    def due(self) -> bool:
        """Whether it is time to read them."""
        return time.monotonic() >= self._at

    def see_to(self) -> bool:
        """Reads the pauses if it is time; returns whether a queue has been resumed."""
        if not self.due:
            return False
        now = time.monotonic()
        self._read_at, self._at = now, now + READ_S
        before, self._known = self._known, self._link.one(statements.paused())
        self._lanes.paused = self._known.queues
        return bool(before.queues - self._known.queues)
