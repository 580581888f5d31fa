"""Which lanes a worker claims from, in which order, and where their live positions begin (the low bounds).

Below its bound a lane has dead index entries, which a claim never reads, and perhaps a job whose transaction was open
when the bound passed over it. Two things find that one: the bound itself, at the reading that finds the transactions of
that moment over, and the sweep, which relies on nothing.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import filterfalse, islice
from typing import Any, Final

from pgjobs.statements import LOWEST, NO_BOUND, Lane, Range, Row, Rows
from pgjobs.worker.subscription import Subscription

REFRESH_S: Final = 0.02
SETTLE_S: Final = 0.02
"""A candidate for a bound takes effect when it is this old and the transactions of its moment are over…"""

PATIENCE_S: Final = 1.0
"""…at the latest when it is this old."""

FORGET_S: Final = 10.0
"""A lane without jobs for this long is no longer asked, if there are many; the sweep finds it again."""

KEPT: Final = 50
"""So many lanes are asked though they are empty: an index descent each costs less than to find one of them again."""

PRIVATE: Final = "@"
"""With this the names of private queues begin, and no other."""

AGE_S: Final = 0.1
"""How often the ages of waiting jobs are read, where they count."""

FIRST: Final = -1
"""The rank of a worker's private queue: before all others."""

NOTED: Final = 1_000
"""A bound that has risen by this much is worth telling to workers to come."""


class Bound:
    """Where the live positions of one lane begin. It only rises.

    Attributes:
        low: claims begin here.
        late: from here up to low there may be jobs that committed late, all of them by now; None if there are not.
    """

    __slots__ = ("_candidates", "_doubt", "_settled", "late", "low", "lowest", "noted", "rank", "seen_at", "swept")

    def __init__(self, now: float, rank: int = 0) -> None:
        self.rank = rank
        self.low = LOWEST
        self.lowest: int | None = None
        self.late: int | None = None
        self.seen_at = now
        self.noted = 0
        self.swept = 0
        self._candidates: deque[tuple[float, int, int]] = deque()
        self._settled = LOWEST
        self._doubt: int | None = None

    def note(self, now: float, lowest: int | None, drawn: int, xmin: int, xmax: int) -> None:
        """Takes a reading: the lowest live position, or None; a position drawn before the reading's snapshot.

        While a transaction stays open that was open when the bound passed over (the doubt), the positions passed over
        since are unsettled. When it is over, whatever it has left there is visible to the next claim.
        """
        self.lowest = lowest
        if lowest is not None:
            self.seen_at = now
        current = drawn if lowest is None else lowest
        self._candidates.append((now, xmax, current))
        ripe: int | None = None
        while self._candidates:
            noted_at, horizon, position = self._candidates[0]
            if xmin >= horizon and now - noted_at >= SETTLE_S:
                ripe = position
            elif now - noted_at > PATIENCE_S:
                ripe, self._doubt = position, horizon
            else:
                break
            self._candidates.popleft()
        if ripe is not None:
            self.low = max(self.low, min(ripe, current))
        if self._doubt is None:
            self._settled = self.low
        elif xmin >= self._doubt:
            if self._settled < self.low:
                self.late = self._settled if self.late is None else min(self.late, self._settled)
            self._settled, self._doubt = self.low, None

    def adopt(self, low: int) -> None:
        """Begins where another worker's bound stood."""
        if low > self.low:
            self.low = self.noted = self._settled = low


class Lanes:
    """The lanes that a worker knows, with their bounds.

    Args:
        private: a queue that nobody else serves; its lane is looked at when somebody has told of a job there, or the
            sweep has found one.
        aging_s: a lane gains a point of priority for each so many seconds that its first job has waited.

    Attributes:
        private: the same.
        paused: the queues that are not claimed from; their lanes stay known, and their bounds where they are.
    """

    def __init__(self, subscription: Subscription, private: str = "@", aging_s: float | None = None) -> None:
        self._subscription = subscription
        self._aging_s = aging_s
        self._points: dict[Lane, float] = {}
        self._aged_at = 0.0
        self.private = private
        self.paused: frozenset[str] = frozenset()
        self._bounds: dict[Lane, Bound] = {}
        self._drawn = 0
        self._refreshed_at = 0.0
        self._turn = 0
        self.reset()

    def reset(self) -> None:
        """Drops all bounds: after a reconnect the sequence may lie behind (a promoted standby's)."""
        now = time.monotonic()
        self._bounds = {lane: Bound(now, bound.rank) for lane, bound in self._bounds.items()}
        self.meet((name, 0) for name in self._subscription.names)
        self._drawn = 0

    @property
    def known(self) -> list[Lane]:
        """Every lane that claims ask."""
        return list(self._bounds)

    def knows(self, lane: Lane) -> bool:
        """Whether claims ask the lane."""
        return lane in self._bounds

    @property
    def may_be_new(self) -> bool:
        """Whether queues may be served that are not known yet."""
        return self._subscription.flags == ["*"]

    @property
    def forgetful(self) -> bool:
        """Whether queues are forgotten that have had no jobs for a while."""
        return self.may_be_new and len(self._bounds) > KEPT

    def serves(self, queue: str) -> bool:
        """Whether the queue is one of ours."""
        return self._rank(queue) is not None

    def _rank(self, queue: str) -> int | None:
        if queue.startswith(PRIVATE):
            return FIRST if queue == self.private else None
        return self._subscription.rank(queue)

    def is_paused(self, queue: str) -> bool:
        """Whether nothing is claimed from the queue for now."""
        return queue in self.paused

    def meet(self, lanes: Iterable[Lane]) -> bool:
        """Takes lanes that have jobs; returns whether one of ours was not known."""
        now = time.monotonic()
        fresh = False
        for lane in lanes:
            if (bound := self._bounds.get(lane)) is not None:
                bound.seen_at = now
            elif (rank := self._rank(lane[0])) is not None:
                self._bounds[lane] = Bound(now, rank)
                fresh = True
        return fresh

    def adopt(self, noted: Sequence[Range]) -> None:
        """Takes the bounds that other workers have noted: what is dead to them is dead to us."""
        self.meet(lane for lane, _, _ in noted)
        for lane, low, _ in noted:
            if bound := self._bounds.get(lane):
                bound.adopt(low)

    def preferred(self) -> list[Lane]:
        """The lanes in the order in which they are to be claimed from: rank, then priority, then age."""
        place = {rank: index for index, rank in enumerate((FIRST, *self._subscription.order()))}

        def key(lane: Lane) -> tuple[int, float, int]:
            bound = self._bounds[lane]
            return (
                place[bound.rank],
                -lane[1] - self._points.get(lane, 0.0),
                NO_BOUND if bound.lowest is None else bound.lowest,
            )

        lanes = [lane for lane in self._bounds if lane[0] not in self.paused] if self.paused else list(self._bounds)
        return sorted(lanes, key=key) if len(lanes) > 1 else lanes

    def to_age(self) -> list[Range]:
        """The lanes whose first jobs' ages are to be read, if it is time and makes a difference."""
        if self._aging_s is None or len(self._bounds) < 2 or time.monotonic() - self._aged_at < AGE_S:
            return []
        return [Range(lane, self._bounds[lane].low) for lane in self.preferred()]

    def age(self, ages: dict[Lane, float]) -> None:
        """Takes the ages: they count as points of priority, so that what waits at a low one starves no more."""
        self._aged_at = time.monotonic()
        assert self._aging_s is not None  # noqa: S101 - nobody has asked otherwise
        self._points = {lane: age_s // self._aging_s for lane, age_s in ages.items()}

    def low(self, lane: Lane) -> int:
        """The bound of a lane."""
        return self._bounds[lane].low

    def to_refresh(self, preferred: Sequence[Lane]) -> list[Range]:
        """Where to read, if it is time, from which position lanes live: of many, the first ones and some others."""
        if time.monotonic() - self._refreshed_at < REFRESH_S:
            return []
        if len(preferred) <= KEPT:
            return [Range(lane, self._bounds[lane].low) for lane in preferred]
        self._turn = (self._turn + KEPT) % len(self._bounds)
        others = islice(self._bounds, self._turn, self._turn + KEPT)
        return [Range(lane, self._bounds[lane].low) for lane in {*preferred[:KEPT], *others}]

    def refresh(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Takes the rows of ``statements.bounds``; forgets lanes that have been empty for long."""
        now = self._refreshed_at = time.monotonic()
        for queue, priority, lowest, last, xmin, xmax in rows:
            if bound := self._bounds.get((queue, priority)):
                # In an empty lane the bound rises to a position drawn before this snapshot was taken: one drawn since
                # may belong to a transaction that the horizon does not know. So it does where the lowest one was never
                # drawn, but made up by whoever wrote the row: all that is to come is below that.
                made_up = lowest is not None and lowest > last
                bound.note(now, None if made_up else lowest, self._drawn, xmin, xmax)
        if rows:
            self._drawn = max(self._drawn, rows[0][3])
        if len(self._bounds) > KEPT:
            self._forget(now)
        own = self._bounds.get((self.private, 0))
        if own is not None and now - own.seen_at > FORGET_S:
            del self._bounds[self.private, 0]

    def _forget(self, now: float) -> None:
        named = set(self._subscription.names)
        for lane, bound in list(self._bounds.items()):
            if now - bound.seen_at > FORGET_S and not (lane[1] == 0 and lane[0] in named):
                del self._bounds[lane]

    # -- what lies below

    def late(self) -> list[Range]:
        """Where jobs may have been committed late, all of them by now; each range is given once."""
        found: list[Range] = []
        for lane, bound in self._bounds.items():
            if bound.late is not None:
                found.append(Range(lane, bound.late, bound.low))
                bound.late = None
        return found

    def passed_over(self, span: int) -> list[Range]:
        """The next positions to sweep in each lane, so many at most: downwards, and from the bound again after 0.

        Below 0 are jobs that go before all others: few, and looked for at once.
        """
        ranges: list[Range] = []
        for lane, bound in self._bounds.items():
            if lane[0] in self.paused:
                continue
            high = bound.swept or bound.low
            bound.swept = max(0, high - span)
            if high > bound.swept:
                ranges.append(Range(lane, bound.swept, high))
            if bound.swept == 0 and bound.low > 0:
                ranges.append(Range(lane, LOWEST, 0))
        return ranges

    def to_note(self) -> list[Range]:
        """The bounds that are worth telling; each once."""
        ranges = [Range(lane, bound.low) for lane, bound in self._bounds.items() if bound.low - bound.noted >= NOTED]
        for lane, low, _ in ranges:
            self._bounds[lane].noted = low
        return ranges


def in_order(rows: Rows, lanes: Sequence[Lane]) -> Sequence[Row]:
    """A claim's jobs in the order in which they start: by lane and age; those that go first, the last one first."""
    ordered = sorted(rows)
    if any(map(_goes_first, ordered)):
        ordered = [*filter(_goes_first, reversed(ordered)), *filterfalse(_goes_first, ordered)]
    if len(lanes) > 1:
        place = {lane: index for index, lane in enumerate(lanes)}
        ordered.sort(key=lambda row: place[row[2], row[3]])
    return ordered


def _goes_first(row: Row) -> bool:
    options: Any = row[-1]
    return isinstance(options, dict) and "lifo" in options
