"""Jobs that the worker of this very process starts: inserted as claimed by it, and handed over after the commit."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol
from uuid import UUID

from pgjobs import statements
from pgjobs.arguments import codec
from pgjobs.connections import borrowed
from pgjobs.errors import OptionError
from pgjobs.job import Draft, Template, new_id
from pgjobs.placing import Placed, place
from pgjobs.statements import Steps


class Life(Protocol):
    """A worker under the id that it has now; ``adopt`` hands it a job that stands under one of its claims."""

    id: UUID

    def adopt(self, claim_id: UUID, row: tuple[Any, ...]) -> None: ...


class Host(Protocol):
    """A worker that runs in the process pid."""

    pid: int

    def lend(self) -> Life: ...


def place_here(hosts: Sequence[Host], row: Template, draft: Draft, job_id: UUID, conn: object) -> Steps[Placed]:
    """Adds a job that runs, under a claim of this process's worker, which starts it when it is committed.

    Where the commit cannot be known, the worker finds a claim that it has never heard of, and gives the job back; where
    the process dies, the reaper does.

    Raises:
        OptionError: no worker runs in this process.
    """
    life = _worker_of(hosts, row.task).lend()
    claim_id = new_id()
    created_at = yield statements.enqueue_here(row, job_id, draft, life.id, claim_id)
    if created_at is None:
        return (yield from place(row, [draft], [job_id]))
    timeout_s = None if row.timeout is None else row.timeout.total_seconds()
    meta, options = (None if text is None else codec.loads(text) for text in (row.meta, row.options))
    claimed = (
        job_id, row.task, row.queue, row.priority, 1, row.max_attempts, 0, timeout_s, created_at,
        codec.loads(draft.args), meta, options,
    )  # fmt: skip
    borrowed.after_commit(conn, partial(life.adopt, claim_id, claimed))
    return Placed([job_id], [True])


def _worker_of(hosts: Sequence[Host], task: str) -> Host:
    for host in reversed(hosts):
        if host.pid == os.getpid():
            return host
    raise OptionError(
        f"a job of {task!r} is to start here, and no worker runs in this process; start one with jobs.worker(), or "
        "leave here=True out"
    )
