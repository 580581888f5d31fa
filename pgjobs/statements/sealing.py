"""Encrypted arguments and results, under new keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from pgjobs.statements.query import QUERIES, Statement, column


def sealed_jobs(after: UUID, limit: int) -> Statement[list[tuple[UUID, str | None, str | None]]]:
    """The next jobs after an id that are stored encrypted: (id, token of args, token of result)."""
    params = {"after": str(after), "limit": limit}
    return Statement(QUERIES["sealed_jobs"], params, lambda rows: [(row[0], row[1], row[2]) for row in rows])


class Resealed(NamedTuple):
    """Tokens that stand in a job, and those that shall; None for what stays."""

    id: UUID
    old_args: str | None
    new_args: str | None
    old_result: str | None
    new_result: str | None


def reseal(jobs: Sequence[Resealed]) -> Statement[list[UUID]]:
    """Puts new tokens in the place of old ones; returns the jobs that were free."""
    params = {
        "ids": [str(job.id) for job in jobs],
        "old_args": [job.old_args for job in jobs],
        "new_args": [job.new_args for job in jobs],
        "old_results": [job.old_result for job in jobs],
        "new_results": [job.new_result for job in jobs],
    }
    return Statement(QUERIES["reseal"], params, column)
