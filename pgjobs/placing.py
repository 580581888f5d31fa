"""Puts jobs of any kind into the table: what is to be sent, step by step, and what each answer means.

A generator yields statements and is sent what they returned, so that sync, async and borrowed connections follow it
alike.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from pgjobs import statements
from pgjobs.errors import DuplicateJobError, PgJobsError, QueueFullError
from pgjobs.job import Draft, Template
from pgjobs.statements import Rest, Steps
from pgjobs.terms.depth import Depth
from pgjobs.terms.unique import Unique

FIRST_REST_S: Final = 0.01
LONGEST_REST_S: Final = 1.0
"""How often whoever waits for room looks, at first and at last."""

_TRIES: Final = 3
"""How often a key is asked for anew whose holder ended just when it was looked up."""


@dataclass(slots=True)
class Placed:
    """What became of some calls: for each the id of its job, and whether that is a new one; or all were dropped."""

    ids: list[UUID]
    new: list[bool]
    dropped: bool = False


def place(row: Template, drafts: Sequence[Draft], ids: Sequence[UUID]) -> Steps[Placed]:
    """Adds jobs, sees to those whose key is taken, and tells workers of the others.

    Raises:
        DuplicateJobError: a key is taken, and the policy says so.
        QueueFullError: the queue has no room for them.
    """
    if row.depth is not None and not (yield from _room(row, row.depth, len(drafts))):
        return Placed(list(ids), [False] * len(drafts), dropped=True)
    placed = Placed(list(ids), [False] * len(drafts))
    left = list(range(len(drafts)))
    for _ in range(_TRIES):
        added = yield statements.enqueue_many(row, [ids[i] for i in left], [drafts[i] for i in left])
        for i in left:
            placed.new[i] = ids[i] in added.ids
        yield from _tell(row, added)
        left = [i for i in left if not placed.new[i]]
        if not left:
            return placed
        left = yield from _see_to_taken(row, drafts, placed, left)
        if not left:
            return placed
    raise PgJobsError(
        f"the key of a job of {row.task!r} was taken and freed {_TRIES} times meanwhile; enqueue it again"
    )


def _room(row: Template, depth: Depth, count: int) -> Steps[bool]:
    """Sees whether there is room for so many jobs, or waits for it; False where they are to be dropped.

    Nothing is locked: of several that find room for one job, each takes it.
    """
    rest_s = FIRST_REST_S
    deadline = time.monotonic() + depth.timeout_s
    while True:
        if (yield statements.depth(row.queue, depth.limit)) + count <= depth.limit:
            return True
        if depth.when_full == "drop":
            return False
        left_s = deadline - time.monotonic()
        if depth.when_full == "raise" or count > depth.limit or left_s <= 0:
            raise QueueFullError(row.queue, depth.limit)
        yield Rest(min(rest_s, left_s))
        rest_s = min(LONGEST_REST_S, 2 * rest_s)


def _tell(row: Template, added: statements.Added) -> Steps[None]:
    if row.lifo and added.lowest is not None:
        yield statements.tell_of_first(row, added.lowest)
    elif added.idle:
        yield statements.tell_of(row)


def _see_to_taken(row: Template, drafts: Sequence[Draft], placed: Placed, taken: list[int]) -> Steps[list[int]]:
    """Does what the policy says; returns the calls whose key has become free."""
    assert row.unique is not None  # noqa: S101 - without a key nothing can be taken
    keys = [drafts[i].key or "" for i in taken]
    if (yield statements.free_keys(keys)):  # the holder may have a period, whatever this one has
        return taken
    holders = yield statements.holders(keys)
    for i, key in zip(taken, keys, strict=True):
        if (holder := holders.get(key)) is not None:
            yield from _meet(row, row.unique, drafts[i], placed, i, holder)
    return [i for i, key in zip(taken, keys, strict=True) if key not in holders]


def _meet(row: Template, unique: Unique, draft: Draft, placed: Placed, index: int, holder: UUID) -> Steps[None]:
    if holder == placed.ids[index]:
        placed.new[index] = True  # sent again, since the first reply was lost
        return
    if unique.on_conflict == "raise":
        raise DuplicateJobError(holder, row.task)
    placed.ids[index] = holder
    if unique.on_conflict in ("replace", "debounce"):
        delay = row.delay if unique.on_conflict == "debounce" else None
        yield statements.replace_args(draft.key or "", draft.args, delay)
