"""Reads for monitors: cheap on tables of any size."""

from __future__ import annotations

from collections.abc import Sequence

from pgjobs.statements.explaining import SILENT_S
from pgjobs.statements.query import QUERIES, Statement, column, scalar


def ages_of_queues(queues: Sequence[str] | None = None) -> Statement[dict[str, float]]:
    """For how many seconds the longest waiting job of each queue has waited, the longest first; of all but ``@…``."""
    params = {"queues": None if queues is None else list(queues)}
    return Statement(QUERIES["ages_of_queues"], params, lambda rows: {row[0]: row[1] for row in rows})


def failed_lately(within_s: float, queues: Sequence[str] | None = None) -> Statement[int]:
    """How many jobs have failed within so many seconds, counted by whole minutes."""
    params = {"within": within_s, "queues": None if queues is None else list(queues)}
    return Statement(QUERIES["failed_lately"], params, scalar)


def fallen_silent(within_s: float) -> Statement[list[str]]:
    """The names of workers that have died unseen within so many seconds, or are silent now."""
    return Statement(QUERIES["fallen_silent"], {"within": within_s, "silent": SILENT_S}, column)
