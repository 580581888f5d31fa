"""What jobs say while they run, and what they leave behind."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from pgjobs.arguments import codec
from pgjobs.job import FileRow, LogRow
from pgjobs.report import Child, Said
from pgjobs.statements.query import QUERIES, Statement, column, nothing


def report(said: Sequence[Said]) -> Statement[set[Any]]:
    """Writes what runs have said; returns the jobs whose rows were written."""
    now = time.time()
    lines = [(each.run, line) for each in said for line in each.lines]
    params = {
        "ids": [str(each.run.id) for each in said],
        "claims": [str(each.run.claim.id) for each in said],
        "progress": [each.progress and codec.dumps(each.progress, limit=None) for each in said],
        "meta": [each.meta and codec.dumps(each.meta, limit=None) for each in said],
        "timeouts": [each.timeout_s for each in said],
        "jobs": [str(run.id) for run, _ in lines],
        "job_claims": [str(run.claim.id) for run, _ in lines],
        "attempts": [run.attempt for run, _ in lines],
        "ages": [max(0.0, now - line.at) for _, line in lines],
        "levels": [line.level for _, line in lines],
        "lines": [line.text for _, line in lines],
    }
    return Statement(QUERIES["report"], params, lambda rows: set(column(rows)))


def enqueue_children(children: Sequence[tuple[tuple[UUID, UUID] | None, Child]]) -> Statement[None]:
    """Adds jobs whose parents (job and claim) have just succeeded; None for one that the caller has completed."""
    columns = list(zip(*(child for _, child in children), strict=True))
    names = (
        "ids", "tasks", "queues", "priorities", "max_attempts", "timeouts", "delays", "run_ats", "ttls", "args",
        "options", "meta", "lifos",
    )  # fmt: skip
    params: dict[str, Any] = {name: list(values) for name, values in zip(names, columns, strict=True)}
    params["parents"] = [None if parent is None else str(parent[0]) for parent, _ in children]
    params["claims"] = [None if parent is None else str(parent[1]) for parent, _ in children]
    return Statement(QUERIES["enqueue_children"], params, nothing)


def logs(job_id: UUID, after: int, limit: int) -> Statement[list[LogRow]]:
    """The log lines of a job after the one with that id."""
    params = {"id": str(job_id), "after": after, "limit": limit}
    return Statement(QUERIES["logs"], params, lambda rows: [LogRow(*row) for row in rows])


def attach(job_id: UUID, claim_id: UUID, name: str, data: bytes, content_type: str | None) -> Statement[bool]:
    """Stores a file; returns whether the claim still held."""
    params = {"id": str(job_id), "claim": str(claim_id), "name": name, "data": data, "content_type": content_type}
    return Statement(QUERIES["attach"], params, bool)


def files(job_id: UUID) -> Statement[list[FileRow]]:
    """What a job has attached."""
    return Statement(QUERIES["files"], {"id": str(job_id)}, lambda rows: [FileRow(*row) for row in rows])


def file(job_id: UUID, name: str) -> Statement[bytes | None]:
    """The contents of one file."""
    return Statement(
        QUERIES["file"], {"id": str(job_id), "name": name}, lambda rows: bytes(rows[0][0]) if rows else None
    )
