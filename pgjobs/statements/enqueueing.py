"""New jobs, and telling workers of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from pgjobs.job import Draft, Template
from pgjobs.statements.query import QUERIES, Query, Statement, column, is_true, nothing, scalar


def enqueue(row: Template, job_id: UUID, args: str) -> Statement[bool]:
    """Adds one plain job; returns whether an idle worker should be told."""
    return Statement(QUERIES["enqueue"], _common(row) | {"id": str(job_id), "args": args}, is_true, keeps_plan=True)


class Added(NamedTuple):
    """The jobs that were added, whether an idle worker should be told, and their lowest position."""

    ids: set[UUID]
    idle: bool
    lowest: int | None


def enqueue_many(row: Template, ids: Sequence[UUID], drafts: Sequence[Draft]) -> Statement[Added]:
    """Adds a chunk of jobs, which differ in id, key and arguments alone."""
    params = _common(row) | {
        "ids": [str(job_id) for job_id in ids],
        "args": [draft.args for draft in drafts],
        "keys": [draft.key for draft in drafts],
        "meta": row.meta,
        "run_at": row.run_at,
        "delay": row.delay,
        "lifo": row.lifo,
    }
    return Statement(
        QUERIES["enqueue_many"],
        params,
        lambda rows: Added(set(map(UUID, rows[0][0] or ())), rows[0][1], rows[0][2]),
        keeps_plan=len(drafts) == 1,
    )


def enqueue_here(row: Template, job_id: UUID, draft: Draft, worker: UUID, claim_id: UUID) -> Statement[datetime | None]:
    """Adds one job under a claim of a worker; returns when it was created, None if the worker is dead."""
    own = {"id": str(job_id), "args": draft.args, "meta": row.meta, "worker": str(worker), "claim": str(claim_id)}
    return Statement(QUERIES["enqueue_here"], _common(row) | own, scalar)


def broadcast(row: Template, args: str) -> Statement[list[UUID]]:
    """Adds a job for each worker that lives; returns their ids."""
    params = _common(row) | {"args": args, "meta": row.meta}
    return Statement(QUERIES["broadcast"], params, lambda rows: [UUID(row[0]) for row in rows])


def depth(queue: str, limit: int) -> Statement[int]:
    """How many jobs are queued in a queue, limit at most."""
    return Statement(QUERIES["depth"], {"queue": queue, "limit": limit}, scalar)


def _common(row: Template) -> dict[str, Any]:
    return {
        "task": row.task,
        "queue": row.queue,
        "priority": row.priority,
        "max_attempts": row.max_attempts,
        "timeout": row.timeout,
        "ttl": row.ttl,
        "options": row.options,
    }


def free_keys(keys: Sequence[str]) -> Statement[list[UUID]]:
    """Takes keys away from jobs that have kept them for long enough; returns those jobs."""
    return Statement(QUERIES["free_keys"], {"keys": list(keys)}, column)


def holders(keys: Sequence[str]) -> Statement[dict[str, UUID]]:
    """The jobs that hold some keys."""
    return Statement(QUERIES["holders"], {"keys": list(keys)}, lambda rows: {row[0]: UUID(row[1]) for row in rows})


def replace_args(key: str, args: str, delay: timedelta | None) -> Statement[list[UUID]]:
    """Gives the waiting job that holds a key other arguments, and another start if a delay is given."""
    return Statement(QUERIES["replace_args"], {"key": key, "args": args, "delay": delay}, column)


def copy() -> Query:
    """The COPY that takes (id, task, queue, priority, max_attempts, timeout, args, options)."""
    return QUERIES["copy"]


def somebody_idle(queue: str) -> Statement[bool]:
    """Whether a worker waits for work on the queue."""
    return Statement(QUERIES["somebody_idle"], {"queue": queue}, is_true)


def notify(payload: str) -> Statement[None]:
    """Sends a hint to the workers and clients of the schema."""
    return Statement(QUERIES["notify"], {"payload": payload}, nothing, keeps_plan=True)


def tell_of(row: Template) -> Statement[None]:
    """Tells the workers that there is work in the lane of a job."""
    return notify(f"queued {row.priority} {row.queue}")


def tell_of_first(row: Template, position: int) -> Statement[None]:
    """Tells the workers of a job that goes before those that wait in its lane."""
    return notify(f"restored {row.priority} {position} {row.queue}")
