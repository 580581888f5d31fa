"""What a worker has been told: which lanes have got work, and what lies below its bounds."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from typing import Final

from pgjobs.config import MAX_PRIORITY
from pgjobs.statements import LOWEST, NO_BOUND, Lane, Range, Rows
from pgjobs.worker.claiming.lanes import FORGET_S, Lanes
from pgjobs.worker.claiming.pace import Pace

RUMOURS: Final = 500
"""So many lanes that are not known are believed in a while: anybody who can connect may tell of any number."""


class Hints:
    """Takes hints from any thread, and hands them to the claim that follows."""

    def __init__(self, lanes: Lanes, pace: Pace) -> None:
        self._lanes = lanes
        self._pace = pace
        self._lock = threading.Lock()
        self._fresh: set[Lane] = set()
        self._below: dict[Lane, Range] = {}
        self._rumours: set[Lane] = set()
        self._rumours_until = 0.0

    def queued(self, queue: str, priority: int) -> bool:
        """Says that a lane has got work; returns whether it is to be claimed now."""
        if not (self._may_come(queue, priority) and self._believes((queue, priority))):
            return False
        with self._lock:
            self._fresh.add((queue, priority))
            if self._lanes.is_paused(queue):
                return False
            self._pace.look_now()
        return True

    def _may_come(self, queue: str, priority: int) -> bool:
        return self._lanes.serves(queue) and abs(priority) <= MAX_PRIORITY

    def _believes(self, lane: Lane) -> bool:
        """Whether a lane is known, or there is room for a new one: every claim asks it until it is forgotten.

        The sweep finds the others, if they have jobs.
        """
        if self._lanes.knows(lane):
            return True
        with self._lock:
            if (now := time.monotonic()) >= self._rumours_until:
                self._rumours, self._rumours_until = set(), now + FORGET_S
            if len(self._rumours) < RUMOURS:
                self._rumours.add(lane)
            return lane in self._rumours

    def proved(self, rows: Rows) -> None:
        """Takes the jobs of a claim: what was told of their lanes was true, and counts no more."""
        if self._rumours:
            with self._lock:
                self._rumours.difference_update((row[2], row[3]) for row in rows)

    def restored(self, queue: str, priority: int, position: int) -> bool:
        """Says that jobs went back to old places, which may lie below our bound."""
        if position >= NO_BOUND or not (self._may_come(queue, priority) and self._believes((queue, priority))):
            return False
        self.look_below([Range((queue, priority), max(LOWEST, position))])
        return self.queued(queue, priority)

    def look_below(self, ranges: Iterable[Range]) -> None:
        """Lets the next claim begin there too. The jobs are committed: one claim with room for all of them will do."""
        with self._lock:
            for lane, low, high in ranges:
                known = self._below.get(lane, Range(lane, low, high))
                self._below[lane] = Range(lane, min(low, known.low), max(high, known.high))
                if not self._lanes.is_paused(lane[0]):
                    self._pace.look_now()

    def take(self) -> tuple[bool, dict[Lane, Range]]:
        """Hands over what is known, for the claim to follow: whether there are new lanes, and what lies below bounds.

        What lies below the bounds of a paused queue is kept until it is resumed.
        """
        self._pace.before()
        with self._lock:
            fresh, self._fresh = self._fresh, set()
            known, self._below = self._below, {}
            below: dict[Lane, Range] = {}
            for lane, under in known.items():
                (self._below if self._lanes.is_paused(lane[0]) else below)[lane] = under
        return self._lanes.meet([*known, *fresh]), below

    def ranges(self, lanes: Sequence[Lane], below: dict[Lane, Range]) -> list[Range]:
        """Where to claim: each lane from its bound on, and before that from what lies below."""
        ranges: list[Range] = []
        for lane in lanes:
            bound = self._lanes.low(lane)
            if (under := below.get(lane)) is not None and under.low < bound:
                ranges.append(Range(lane, under.low, min(under.high, bound)))
            ranges.append(Range(lane, bound))
        return ranges
