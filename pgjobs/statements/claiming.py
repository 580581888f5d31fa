"""Lanes, claims, low bounds and idle flags."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple, TypeAlias
from uuid import UUID

from pgjobs.statements.query import QUERIES, Rows, Statement, nothing, rows

Lane: TypeAlias = tuple[str, int]
"""A queue and a priority."""

NO_BOUND: Final = 2**63 - 1
LOWEST: Final = -(2**63)
"""Below every position; those of jobs that go first are negative."""


class Range(NamedTuple):
    """The positions of a lane from low on, below high."""

    lane: Lane
    low: int = LOWEST
    high: int = NO_BOUND


def _ranges(ranges: Sequence[Range]) -> dict[str, Any]:
    return {
        "queues": [lane[0] for lane, _, _ in ranges],
        "priorities": [lane[1] for lane, _, _ in ranges],
        "lows": [low for _, low, _ in ranges],
        "highs": [high for _, _, high in ranges],
    }


def claim(worker: UUID, claim_id: UUID, ranges: Sequence[Range], limit: int) -> Statement[Rows]:
    """Takes up to limit jobs from ranges of lanes, in their order of preference."""
    params = {"worker": worker, "claim": claim_id, "limit": limit} | _ranges(ranges)
    return Statement(QUERIES["claim"], params, rows, keeps_plan=True)


def bounds(ranges: Sequence[Range]) -> Statement[Rows]:
    """Rows of (queue, priority, lowest live position or None, last value of the sequence, xmin, xmax)."""
    params = _ranges(ranges)
    del params["highs"]
    return Statement(QUERIES["bounds"], params, rows, keeps_plan=True)


def ages(ranges: Sequence[Range]) -> Statement[dict[Lane, float]]:
    """For how many seconds the first job of each lane has waited; lanes without one are left out."""
    params = _ranges(ranges)
    del params["highs"]
    return Statement(QUERIES["ages"], params, lambda rows: {(row[0], row[1]): row[2] for row in rows})


def new_lanes(known: Iterable[Lane], *, queues_too: bool, private: str | None = None) -> Statement[list[Lane]]:
    """Every lane that has queued jobs and is not known; of the queues of known lanes and private unless queues_too."""
    priorities: dict[str, list[int]] = {} if private is None else {private: []}
    for queue, priority in known:
        priorities.setdefault(queue, []).append(priority)
    queues = sorted(priorities)
    gaps = [
        (queue, above, below)
        for queue in queues
        for above, below in pairwise([-1000, *sorted(priorities[queue]), 1000])
        if below - above > 1
    ]
    params: dict[str, Any] = {
        "afters": ["", *queues] if queues_too else [],
        "befores": [*queues, None] if queues_too else [],
        "queues": [gap[0] for gap in gaps],
        "aboves": [gap[1] for gap in gaps],
        "belows": [gap[2] for gap in gaps],
    }
    return Statement(QUERIES["new_lanes"], params, lambda rows: [(row[0], row[1]) for row in rows])


def strays(ranges: Sequence[Range]) -> Statement[list[Range]]:
    """The narrowest ranges around what may be claimed within some ranges, a thousand jobs in each at most."""
    return Statement(
        QUERIES["strays"], _ranges(ranges), lambda rows: [Range((row[0], row[1]), row[2], row[3] + 1) for row in rows]
    )


def noted_lanes() -> Statement[list[Range]]:
    """What workers have noted: each lane from its low bound on."""
    return Statement(
        QUERIES["noted_lanes"], {}, lambda rows: [Range((row[0], row[1]), row[2], NO_BOUND) for row in rows]
    )


def note_lanes(ranges: Sequence[Range]) -> Statement[None]:
    """Notes where the live positions of lanes begin."""
    params = _ranges(sorted(ranges))
    del params["highs"]
    return Statement(QUERIES["note_lanes"], params, nothing)


def idle(worker: UUID, claim_id: UUID | None, queues: Sequence[str]) -> Statement[bool]:
    """Sets the worker's flags unless the claim, if one is given, found something; returns whether it did set them."""
    params = {"worker": worker, "claim": claim_id, "queues": list(queues)}
    return Statement(QUERIES["idle"], params, bool, keeps_plan=True)


def busy(worker: UUID) -> Statement[None]:
    """Takes the worker's flags away."""
    return Statement(QUERIES["busy"], {"worker": worker}, nothing, keeps_plan=True)
