"""Messages of jobs that have ended."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from pgjobs.statements.completing import Recorded
from pgjobs.statements.query import QUERIES, Statement
from pgjobs.webhooks import RETRY


def announce(ids: Iterable[UUID]) -> Statement[Recorded]:
    """Enqueues the messages of those of some jobs that have ended; as a statement among those that record outcomes."""
    params = {"ids": [str(job_id) for job_id in ids], "max_attempts": RETRY.attempts}
    return Statement(QUERIES["announce"], params, lambda rows: Recorded([], []))
