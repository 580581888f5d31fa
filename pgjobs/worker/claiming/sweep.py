"""The sweep: finds, now and then, what claims do not see from their bounds: new lanes, and jobs below.

It reads only, and tells the claimer where to look. It relies on no notification and on no bound. The more it costs, the
more seldom and the smaller are its steps: two percent of the time, however many dead entries there are. A worker that
has just gone idle reads again at once, by its own two percent: of a lane that was new just before nobody told it.
"""

from __future__ import annotations

import time
from typing import Final

from pgjobs import statements
from pgjobs.connections.link import Link
from pgjobs.statements import NO_BOUND, Range
from pgjobs.worker.claiming.lanes import Lanes
from pgjobs.worker.service import SHARE, Cost, rest_after

NOTE_S: Final = 1.0
STEP_S: Final = 0.02
"""What a step should take: a claim may have to wait for it."""

FIRST: Final = 5_000
"""Positions in the first step; where there are few dead entries the next ones are soon without limit."""


class Sweep:
    """One worker's sweep.

    Attributes:
        workers: how many workers live: each sweeps the more seldom for it.
    """

    def __init__(self, lanes: Lanes, link: Link) -> None:
        self.workers = 1
        self._lanes = lanes
        self._link = link
        self._span = FIRST
        self._cost = Cost()
        self._begun = False
        self._asked = True
        self._at = 0.0
        self._hurried_at = 0.0
        self._note_at = 0.0

    def soon(self) -> None:
        """Makes a step due, also where one is under way, which may have come too early; from any thread."""
        self._asked = True

    def anew(self) -> None:
        """Begins as at the start: the database may be another."""
        self._begun = False
        self.soon()

    def due(self, *, hurried: bool) -> bool:
        """Whether it is time for a step.

        Args:
            hurried: something may have come that nobody has told of.
        """
        return self._asked or time.monotonic() >= (self._hurried_at if hurried else self._at)

    @property
    def due_in_s(self) -> float:
        """Seconds until it is time for a step where nothing hurries."""
        return self._at - time.monotonic()

    def step(self) -> tuple[bool, list[Range]]:
        """Reads on; returns whether there are new lanes, and where jobs were found below the bounds."""
        self._asked = False
        started = time.monotonic()
        if not self._begun:
            noted = self._link.one(statements.noted_lanes())
            self._lanes.adopt(noted)
        new = self._link.one(
            statements.new_lanes(self._lanes.known, queues_too=self._lanes.may_be_new, private=self._lanes.private)
        )
        fresh = self._lanes.meet(new)
        strays = self._look_below() if self._begun else []
        now = time.monotonic()
        cost_s = self._cost.after(now - started)
        if not self._begun:
            cost_s = 0.0  # it takes long because all is cold; and the next one is compared with it
        self._at = now + rest_after(cost_s * self.workers)
        self._hurried_at = now + SHARE * cost_s
        self._begun = True
        return fresh, strays

    def note(self) -> None:
        """Notes for workers to come where the live positions begin, once a second where that has moved."""
        if time.monotonic() >= self._note_at and (risen := self._lanes.to_note()):
            self._note_at = time.monotonic() + NOTE_S
            self._link.one(statements.note_lanes(risen))

    def _look_below(self) -> list[Range]:
        started = time.monotonic()
        passed = self._lanes.passed_over(self._span)
        if not passed:
            return []
        strays = self._link.one(statements.strays(passed))
        reach = max(high - max(low, 0) for _, low, high in passed)
        took_s = time.monotonic() - started
        if took_s < STEP_S / 4:
            self._span = min(NO_BOUND, 4 * self._span)
        else:
            self._span = max(1_000, int(reach * STEP_S / took_s))
        return strays
