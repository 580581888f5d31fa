"""New jobs, and telling workers of them."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from pgjobs.job import Template
from pgjobs.statements.query import QUERIES, Query, Statement, is_true, nothing


def enqueue(row: Template, job_id: UUID, args: str) -> Statement[bool]:
    """Adds one job; returns whether an idle worker should be told."""
    params = {
        "id": str(job_id),
        "task": row.task,
        "queue": row.queue,
        "priority": row.priority,
        "max_attempts": row.max_attempts,
        "timeout": row.timeout,
        "ttl": row.ttl,
        "args": args,
        "options": row.options,
    }
    if row.waits:
        params |= {"run_at": row.run_at, "delay": row.delay}
        return Statement(QUERIES["enqueue_due"], params, is_true, prepare=True)
    return Statement(QUERIES["enqueue"], params, is_true, prepare=True)


def enqueue_many(row: Template, ids: Sequence[UUID], args: Sequence[str]) -> Statement[None]:
    """Adds a chunk of jobs, which differ in id and arguments alone."""
    params = {
        "ids": [str(job_id) for job_id in ids],
        "args": list(args),
        "task": row.task,
        "queue": row.queue,
        "priority": row.priority,
        "max_attempts": row.max_attempts,
        "timeout": row.timeout,
        "ttl": row.ttl,
        "options": row.options,
        "run_at": row.run_at,
        "delay": row.delay,
    }
    return Statement(QUERIES["enqueue_many"], params, nothing)


def copy() -> Query:
    """The COPY that takes (id, task, queue, priority, max_attempts, timeout, args, options)."""
    return QUERIES["copy"]


def somebody_idle(queue: str) -> Statement[bool]:
    """Whether a worker waits for work on the queue."""
    return Statement(QUERIES["somebody_idle"], {"queue": queue}, is_true)


def notify(payload: str) -> Statement[None]:
    """Sends a hint to the workers and clients of the schema."""
    return Statement(QUERIES["notify"], {"payload": payload}, nothing)


def tell_of(row: Template) -> Statement[None]:
    """Tells the workers that there is work in the lane of a job."""
    return notify(f"queued {row.priority} {row.queue}")
