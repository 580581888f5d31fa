"""Workers that begin, beat, leave and die."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from pgjobs.job import Template
from pgjobs.statements.query import QUERIES, Rows, Statement, column, nothing, rows


def register(
    worker: UUID,
    *,
    supervisor: UUID,
    name: str,
    host: str,
    pid: int,
    process: str,
    queues: Sequence[str],
    slots: int,
    quiet: bool = False,
) -> Statement[None]:
    """Makes a worker known."""
    params = {
        "id": worker,
        "supervisor": supervisor,
        "name": name,
        "host": host,
        "pid": pid,
        "process": process,
        "queues": list(queues),
        "slots": slots,
        "quiet": quiet,
    }
    return Statement(QUERIES["register"], params, nothing)


def retire(worker: UUID) -> Statement[None]:
    """Takes a worker's leave."""
    return Statement(QUERIES["retire"], {"worker": worker}, nothing)


def declare_dead(workers: Sequence[UUID]) -> Statement[list[UUID]]:
    """Marks workers dead; returns those that were not yet."""
    return Statement(QUERIES["declare_dead"], {"workers": list(workers)}, column)


def reconcile(worker: UUID) -> Statement[Rows]:
    """Rows of (claim id, job ids) that a worker holds in the database's eyes."""
    return Statement(QUERIES["reconcile"], {"worker": worker}, rows)


def neighbours(boot: str, pids: str) -> Statement[Rows]:
    """Rows of (worker id, name, process id, what it said of itself) of one boot of one machine."""
    return Statement(QUERIES["neighbours"], {"boot": boot, "pids": pids}, rows)


def alive(worker: UUID) -> Statement[tuple[bool, int]]:
    """Whether a worker counts as alive, and how many do."""
    return Statement(QUERIES["alive"], {"worker": worker}, lambda rows: (rows[0][0], rows[0][1]))


def publish_tasks(
    tasks: Sequence[Template], schemas: Sequence[str], docs: Sequence[str | None]
) -> Statement[list[str]]:
    """Says which tasks a worker runs; returns the names of those that are new, or other than before."""
    params = {
        "names": [task.task for task in tasks],
        "queues": [task.queue for task in tasks],
        "priorities": [task.priority for task in tasks],
        "max_attempts": [task.max_attempts for task in tasks],
        "timeouts": [task.timeout for task in tasks],
        "schemas": list(schemas),
        "docs": list(docs),
    }
    return Statement(QUERIES["publish_tasks"], params, column)
