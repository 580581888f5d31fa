"""A rolling restart: fresh processes follow the present ones, slot by slot, and no slot stands empty meanwhile."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable
from typing import Final, Protocol

START_S: Final = 300.0
"""How long a fresh process may take until it claims jobs; then the old ones go on without it."""

logger = logging.getLogger("pgjobs.worker")


class Member(Protocol):
    """A process, as a rolling restart sees it."""

    number: int

    @property
    def is_ready(self) -> bool: ...
    @property
    def is_leaving(self) -> bool: ...
    def dismiss(self) -> None: ...
    def kill(self, why: str) -> None: ...


class Roll:
    """Starts a process beside an old one, has the old one leave once the fresh one claims, then turns to the next.

    ``step`` is called by the supervisor's loop, again and again, until it returns False.

    Args:
        olds: the processes that are to be replaced.
        spawn: starts a fresh process for a number.
    """

    def __init__(
        self, olds: Iterable[Member], spawn: Callable[[int], Member], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._olds = deque(olds)
        self._spawn = spawn
        self._clock = clock
        self._old: Member | None = None
        self._fresh: Member | None = None
        self._started_at = 0.0

    def step(self, alive: Collection[Member]) -> bool:
        """Goes on, if it can, with the processes that live; returns whether there is anything left to do."""
        if self._fresh is not None:
            self._await_fresh()
        elif self._old is not None and self._old in alive:
            pass  # it drains
        else:
            self._begin_next(alive)
        return self._old is not None

    def _begin_next(self, alive: Collection[Member]) -> None:
        self._old = None
        while self._olds and self._old is None:
            old = self._olds.popleft()
            if old in alive and not old.is_leaving:  # whoever was told to leave meanwhile is not followed
                self._old = old
                self._fresh = self._spawn(old.number)
                self._started_at = self._clock()

    def _await_fresh(self) -> None:
        assert self._old is not None and self._fresh is not None  # noqa: S101, PT018 - they come together
        if self._fresh.is_ready:
            self._fresh = None
            self._old.dismiss()
        elif self._clock() - self._started_at > START_S:
            self._fresh.kill(f"it was not ready within {START_S:.0f} s")

    def is_fresh(self, member: Member) -> bool:
        """Whether this is the fresh process that is awaited: where it ends, the restart has failed."""
        return member is self._fresh

    def is_followed(self, member: Member) -> bool:
        """Whether a fresh process is there, or on its way, to follow this one."""
        return member is self._old

    def abandon(self) -> int | None:
        """Ends the restart, with the old processes that are left; returns the number of a slot that nobody has now."""
        fresh, self._fresh = self._fresh, None
        self._olds.clear()
        if fresh is not None:
            fresh.dismiss()
        return None if self._old is None else self._old.number
