"""When a worker looks for work, and when it says that it waits to be told of some."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from pgjobs import statements
from pgjobs.statements import Statement

POLL_S: Final = 1.0
"""How often an idle worker looks, notified or not (±20 %)."""

RAMP_S: Final = (0.0, 0.005, 0.020, 0.080, 0.320)
"""Looks after setting the idle flag: an enqueue just before it saw no flag, and told nobody."""

FLAG_S: Final = 5.0
"""How often an idle worker renews its flag; one older than 15 s does not count."""

BUSY_LOOK_S: Final = 0.002
"""A worker without a flag that found less than it wanted looks again this soon: nobody will tell it."""

BUSY_S: Final = 0.2
"""A worker that has had work for this long takes its flag away."""


class Pace:
    """The rhythm of one worker's looks, and its idle flags. Instants are of time.monotonic.

    A flag says that somebody should tell this worker of new work. It is set in the transaction of a claim that found
    nothing, and taken away when the worker has had work for a while.

    Attributes:
        look_at: when to look next.
        settling: the flag has just been set, and whoever did not see it yet may still commit jobs.
    """

    def __init__(self, worker: UUID, flags: Sequence[str]) -> None:
        self._worker = worker
        self._flags = list(flags)
        self._flagged_at: float | None = None
        self._busy_since: float | None = None
        self._ramp: list[float] = []
        self._asked = False
        self.look_at = 0.0
        self.settling = False

    def look_now(self) -> None:
        """Makes a look due, also where one is under way, which may have come too early; from any thread."""
        self._asked = True
        self.look_at = 0.0

    def before(self) -> None:
        """Says that a claim is about to be made: it sees all that was told of until now."""
        self._asked = False

    def reset(self) -> None:
        """Forgets the flag, which a database that was away may have lost."""
        self._flagged_at = None
        self.settling = False
        self.look_at = 0.0

    def must_unflag(self, room: int) -> bool:
        """Whether the flag still stands though every slot has been taken for a while."""
        if room or self._flagged_at is None or self._busy_since is None:
            return False
        return time.monotonic() - self._busy_since > BUSY_S

    def flag(self, claim_id: UUID, room: int, *, forgetful: bool = False) -> list[Statement[Any]]:
        """What sets, renews or takes away the flag, where that is due.

        Renewed as well right after work: where single jobs come one by one, each look at rest finds the next one, and
        only the claim that goes with a completion finds nothing.

        Args:
            forgetful: there may be lanes that claims do not ask, and of their next jobs somebody has to tell. So the
                flag stays while there is room, whatever the claim finds.
        """
        now = time.monotonic()
        busy_s = None if self._busy_since is None else now - self._busy_since
        if self._flagged_at is None:
            due = busy_s is None
        elif busy_s is not None and busy_s > BUSY_S and not (forgetful and room):
            self._flagged_at = None
            return [statements.busy(self._worker)]
        else:
            due = now - self._flagged_at > FLAG_S
        if not (due and room):
            return []
        stays = forgetful and self._flagged_at is not None
        return [statements.idle(self._worker, None if stays else claim_id, self._flags)]

    def after(self, found: int, room: int, *, again: bool, flagged: bool) -> bool:
        """Plans the next look after a claim; returns whether there is nothing to claim for now.

        Args:
            again: there are lanes that the claim did not know yet.
            flagged: it has set the flag.
        """
        now = time.monotonic()
        if flagged:
            if self._flagged_at is None:
                self._ramp = list(RAMP_S)
            self._flagged_at = now
        if found:
            self._busy_since = self._busy_since or now
            self._ramp = []
            self.settling = False
            if found >= room or again or self._asked:
                self.look_at = 0.0
            else:
                self.look_at = now + (BUSY_LOOK_S if self._flagged_at is None else _poll_s())
            return False
        self._busy_since = None
        if again or self._asked or self._flagged_at is None:
            self.look_at = 0.0
        else:
            self.settling = bool(self._ramp)
            self.look_at = now + (self._ramp.pop(0) if self._ramp else _poll_s())
        return self.look_at > now


def _poll_s() -> float:
    return POLL_S * random.uniform(0.8, 1.2)  # noqa: S311 - keeps workers from looking in step
