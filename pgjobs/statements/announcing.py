"""Messages of jobs that have ended."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from pgjobs.statements.completing import Recorded
from pgjobs.statements.query import QUERIES, Statement


def announce(ids: Iterable[UUID]) -> Statement[Recorded]:
    """Enqueues the messages of those of some jobs that end in this transaction; among the statements that record it."""
    params = {"ids": [str(job_id) for job_id in ids]}
    return Statement(QUERIES["announce"], params, lambda rows: Recorded([], []))
