"""Which processes are to be started again, and when."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final

from pgjobs.supervisor.process import Process

STEADY_S: Final = 10.0
"""A child that has lived so long is restarted at once when it dies; one that dies sooner, after a growing rest."""

MIN_REST_S: Final = 0.2
MAX_REST_S: Final = 10.0


class Restarts:
    """The numbers under which nobody works for now, each with the time of its restart."""

    def __init__(self) -> None:
        self._planned: list[tuple[float, int]] = []
        self._rests: dict[int, float] = {}

    def __len__(self) -> int:
        return len(self._planned)

    @property
    def numbers(self) -> list[int]:
        """The numbers that wait for their restart."""
        return [number for _, number in self._planned]

    @property
    def rest_s(self) -> float:
        """Seconds until the next restart."""
        return min((at for at, _ in self._planned), default=float("inf")) - time.monotonic()

    def follow(self, child: Process) -> None:
        """Plans who follows one that has exited: at once where it asked for that or lived long, else after a rest."""
        steady = child.recycled or time.monotonic() - child.started_at > STEADY_S
        grown = max(MIN_REST_S, 2 * self._rests.get(child.number, 0.0))
        rest_s = self._rests[child.number] = 0.0 if steady else min(MAX_REST_S, grown)
        self.plan(child.number, rest_s)

    def plan(self, number: int, rest_s: float = MAX_REST_S) -> None:
        """Plans a restart."""
        self._planned.append((time.monotonic() + rest_s, number))

    def have_at_once(self, numbers: Iterable[int]) -> None:
        """Plans these alone, and at once."""
        self._planned = [(0.0, number) for number in numbers]

    def take_due(self) -> list[int]:
        """Takes out the numbers whose time has come."""
        now = time.monotonic()
        due = [number for at, number in self._planned if at <= now]
        self._planned = [(at, number) for at, number in self._planned if at > now]
        return due
