"""What somebody does to jobs from outside.

Where statuses are given, it is done to those alone that stand in one of them when their rows are locked.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from pgjobs.arguments.codec import Json, text_of
from pgjobs.statements.query import QUERIES, Statement, column


def cancel(ids: Sequence[UUID], reason: str, statuses: Sequence[str] | None = None) -> Statement[dict[UUID, str]]:
    """Cancels jobs; returns the statuses of those that were not over: cancelled, or running until they have stopped."""
    params = {**_of(ids, statuses), "reason": text_of(reason, "reason")}
    return Statement(QUERIES["cancel"], params, lambda rows: {row[0]: row[1] for row in rows})


def retry(ids: Sequence[UUID], statuses: Sequence[str] | None = None) -> Statement[list[UUID]]:
    """Queues ended jobs again; returns those that had ended, but for those of workers that have left."""
    return Statement(QUERIES["retry"], _of(ids, statuses), column)


def misfit(task: str, args: str) -> Statement[str | None]:
    """What is wrong with arguments, by what workers have published of their task; None where nothing is known to be."""
    return Statement(QUERIES["misfit"], {"task": task, "args": args}, lambda rows: rows[0][0] if rows else None)


def published(task: str) -> Statement[dict[str, Json] | None]:
    """The schema of a task's arguments, as its workers have published it; None where none has."""
    return Statement(QUERIES["published"], {"task": task}, lambda rows: rows[0][0] if rows else None)


def retry_with(job_id: UUID, args: str) -> Statement[list[UUID]]:
    """Gives an ended job other arguments, and queues it again; returns it if ``retry`` would."""
    return Statement(QUERIES["retry_with"], {"id": str(job_id), "args": args}, column)


def delete(ids: Sequence[UUID], statuses: Sequence[str] | None = None) -> Statement[list[UUID]]:
    """Deletes jobs; returns those that were there."""
    return Statement(QUERIES["delete"], _of(ids, statuses), column)


def to_be_stopped(ids: Sequence[UUID], claims: Sequence[UUID]) -> Statement[set[tuple[UUID, UUID]]]:
    """Of runs, those that shall end, as job and claim: of jobs that are cancelled, deleted, or another claim's."""
    params = {"ids": list(ids), "claims": list(claims)}
    return Statement(QUERIES["to_be_stopped"], params, lambda rows: {(row[0], row[1]) for row in rows})


def _of(ids: Sequence[UUID], statuses: Sequence[str] | None) -> dict[str, list[str] | None]:
    return {"ids": [str(job_id) for job_id in ids], "statuses": None if statuses is None else list(statuses)}
