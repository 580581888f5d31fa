"""Which lanes a worker claims from, in which order, and where their live positions begin (the low bounds)."""

from __future__ import annotations

import fnmatch
import random
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pgjobs.config import queue_name
from pgjobs.errors import OptionError
from pgjobs.statements import NO_BOUND, Lane

REFRESH_S: Final = 0.05
SETTLE_S: Final = 0.1
"""A candidate for a bound takes effect when it is this old and the transactions of its moment are over…"""

PATIENCE_S: Final = 1.0
"""…at the latest when it is this old."""

FORGET_S: Final = 10.0
"""A lane without jobs for this long is no longer asked; the sweep finds it again."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """Which queues a worker serves: names and patterns, in strict order or by weight.

    ``mail,default`` serves mail first; ``*`` serves all, by priority, then age; ``mail:3,default:1`` looks at mail
    first three times in four.
    """

    patterns: tuple[str, ...]
    weights: tuple[float, ...] | None = None

    @classmethod
    def parse(cls, text: str | Sequence[str]) -> Subscription:
        """Reads ``a,b``, ``a:3,b:1``, ``*``, ``mail.*`` or a list of such names.

        Raises:
            OptionError: no queue, a name that cannot be one, or weights for only some.
        """
        parts = [part.strip() for part in (text.split(",") if isinstance(text, str) else text) if part.strip()]
        if not parts:
            raise OptionError("no queue is named; give names such as 'mail,default', or '*' for all")
        names, weights = zip(*(_weighted(part) for part in parts), strict=True)
        for name in names:
            queue_name(name.replace("*", "x").replace("?", "x"))
        given = [weight for weight in weights if weight is not None]
        if given and len(given) < len(weights):
            raise OptionError(f"queues {text!r} have weights for some only; give all of them one, or none")
        return cls(names, tuple(given) or None)

    def __str__(self) -> str:
        if self.weights is None:
            return ",".join(self.patterns)
        return ",".join(f"{name}:{weight:g}" for name, weight in zip(self.patterns, self.weights, strict=True))

    @property
    def names(self) -> list[str]:
        """The queues that are named in full."""
        return [pattern for pattern in self.patterns if not _is_glob(pattern)]

    @property
    def flags(self) -> list[str]:
        """The queues under which an idle worker asks to be told; ``*`` where it follows a pattern."""
        return ["*"] if any(_is_glob(pattern) for pattern in self.patterns) else list(self.patterns)

    def rank(self, queue: str) -> int | None:
        """The place of a queue in the written order; None if it is not served."""
        for index, pattern in enumerate(self.patterns):
            if pattern == queue or (_is_glob(pattern) and fnmatch.fnmatchcase(queue, pattern)):
                return index
        return None

    def order(self) -> list[int]:
        """The ranks in the order in which they are preferred this time."""
        if self.weights is None:
            return list(range(len(self.patterns)))
        # Efraimidis and Spirakis, 2006: sorting by u^(1/weight) draws without replacement by weight.
        keys = [random.random() ** (1 / weight) for weight in self.weights]  # noqa: S311
        return sorted(range(len(keys)), key=keys.__getitem__, reverse=True)


def _weighted(part: str) -> tuple[str, float | None]:
    name, colon, weight = part.rpartition(":")
    if not colon or not weight.replace(".", "", 1).isdigit():
        return part, None
    if float(weight) <= 0:
        raise OptionError(f"queue {part!r} has no weight; give one above 0")
    return name, float(weight)


def _is_glob(pattern: str) -> bool:
    return "*" in pattern or "?" in pattern


class Bound:
    """Where the live positions of one lane begin. It only rises; what commits late below it is found by the sweep."""

    __slots__ = ("candidates", "low", "lowest", "seen_at")

    def __init__(self, now: float) -> None:
        self.low = 0
        self.lowest: int | None = None
        self.seen_at = now
        self.candidates: deque[tuple[float, int, int]] = deque()

    def note(self, now: float, lowest: int | None, drawn: int, xmin: int, xmax: int) -> None:
        """Takes a reading: the lowest live position, or None; a position drawn before the reading's snapshot."""
        self.lowest = lowest
        if lowest is not None:
            self.seen_at = now
        current = drawn if lowest is None else lowest
        self.candidates.append((now, xmax, current))
        ripe: int | None = None
        while self.candidates and _is_ripe(self.candidates[0], now, xmin):
            ripe = self.candidates.popleft()[2]
        if ripe is not None:
            self.low = max(self.low, min(ripe, current))


def _is_ripe(candidate: tuple[float, int, int], now: float, xmin: int) -> bool:
    age = now - candidate[0]
    return (age >= SETTLE_S and xmin >= candidate[1]) or age > PATIENCE_S


class Lanes:
    """The lanes that a worker knows, with their bounds."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription
        self._bounds: dict[Lane, Bound] = {}
        self._drawn = 0
        self._refreshed_at = 0.0
        self.reset()

    def reset(self) -> None:
        """Drops all bounds: after a reconnect the sequence may lie behind (a promoted standby's)."""
        now = time.monotonic()
        self._bounds = {lane: Bound(now) for lane in self._bounds}
        for name in self._subscription.names:
            self._bounds.setdefault((name, 0), Bound(now))
        self._drawn = 0

    def serves(self, queue: str) -> bool:
        """Whether the queue is one of ours."""
        return self._subscription.rank(queue) is not None

    def meet(self, lanes: Iterable[Lane]) -> bool:
        """Takes lanes that have jobs; returns whether one of ours was not known."""
        now = time.monotonic()
        fresh = False
        for lane in lanes:
            if (bound := self._bounds.get(lane)) is not None:
                bound.seen_at = now
            elif self.serves(lane[0]):
                self._bounds[lane] = Bound(now)
                fresh = True
        return fresh

    def preferred(self) -> list[Lane]:
        """The lanes in the order in which they are to be claimed from: rank, then priority, then age."""
        place = {rank: index for index, rank in enumerate(self._subscription.order())}

        def key(lane: Lane) -> tuple[int, int, int]:
            rank = self._subscription.rank(lane[0])
            lowest = self._bounds[lane].lowest
            return (place[rank or 0], -lane[1], NO_BOUND if lowest is None else lowest)

        return sorted(self._bounds, key=key) if len(self._bounds) > 1 else list(self._bounds)

    def lows(self, lanes: Sequence[Lane]) -> list[int]:
        """The bounds of lanes."""
        return [self._bounds[lane].low for lane in lanes]

    def refresh_due(self) -> bool:
        """Whether it is time to read where the live positions begin."""
        return time.monotonic() - self._refreshed_at >= REFRESH_S

    def refresh(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Takes the rows of ``statements.bounds``; forgets lanes that have been empty for long."""
        now = self._refreshed_at = time.monotonic()
        for queue, priority, lowest, _, xmin, xmax in rows:
            if bound := self._bounds.get((queue, priority)):
                # In an empty lane the bound rises to a position drawn before this snapshot was taken: one drawn since
                # may belong to a transaction that the horizon does not know.
                bound.note(now, lowest, self._drawn, xmin, xmax)
        if rows:
            self._drawn = max(self._drawn, rows[0][3])
        kept = set(self._subscription.names)
        for lane, bound in list(self._bounds.items()):
            if now - bound.seen_at > FORGET_S and not (lane[1] == 0 and lane[0] in kept):
                del self._bounds[lane]
