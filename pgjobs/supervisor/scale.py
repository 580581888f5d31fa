"""How many processes there should be, between the least and the most."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Load:
    """How the processes that claim jobs stand.

    Attributes:
        processes: how many there are, those that start included, those that leave not.
        starting: how many of them do not claim yet.
        slots: how many jobs can run at once.
        busy: how many do.
    """

    processes: int
    starting: int
    slots: int
    busy: int


class Scale:
    """Decides, one process at a time, whether there should be more or fewer.

    One more where a job has waited for ``wait_s`` although every slot was taken, and no process is just starting: it
    may be all that is needed. One fewer where for ``idle_s`` without a break the jobs that ran would have fitted into
    one process fewer. After each step both times begin anew. The conditions lie a process apart, so that no steady load
    has it go up and down.

    Args:
        least, most: the bounds.
        wait_s: seconds that a job may wait.
        idle_s: seconds for which a process must have been too many.
    """

    def __init__(
        self, least: int, most: int, wait_s: float, idle_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._least = least
        self._most = most
        self._wait_s = wait_s
        self._idle_s = idle_s
        self._clock = clock
        self._grew_at = float("-inf")
        self._idle_since: float | None = None

    def wants_to_know(self, load: Load) -> bool:
        """Whether it matters now how long jobs wait: where slots are free, or no process may be added, it does not."""
        return self._may_grow(load) and load.busy >= load.slots

    def decide(self, load: Load, waited_s: float) -> Literal[-1, 0, 1]:
        """What to do: start a process, have one leave, or nothing.

        Args:
            waited_s: for how long the longest waiting job had waited when every slot was taken; 0 where none did, or
                nobody has asked.
        """
        now = self._clock()
        if waited_s >= self._wait_s and self._may_grow(load):
            self._grew_at = now
            self._idle_since = None
            return 1
        if not self._has_one_too_many(load):
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = now
        elif now - self._idle_since >= self._idle_s:
            self._idle_since = None
            return -1
        return 0

    def _may_grow(self, load: Load) -> bool:
        rested = self._clock() - self._grew_at >= self._wait_s
        return rested and not load.starting and load.processes < self._most

    def _has_one_too_many(self, load: Load) -> bool:
        if load.processes <= self._least or load.starting:
            return False
        return load.busy <= load.slots - load.slots / load.processes
