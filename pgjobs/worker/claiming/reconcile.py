"""What a worker holds, compared with what the database believes."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Sequence
from typing import Final
from uuid import UUID

from pgjobs import statements
from pgjobs.connections.link import Link
from pgjobs.events import Event, Released
from pgjobs.running.run import Run

RECONCILE_S: Final = 3.0
"""How often they are compared."""


class Reconciliation:
    """Releases what the database believes a worker to hold and it has never heard of.

    The reply of a claim may be lost after its commit; its jobs would then run nowhere, under a living worker. After a
    break the jobs of every claim are compared: a standby that was promoted without the last commits believes those
    running whose completions we have seen confirmed. It is made between two cycles, when no claim is in flight.

    Attributes:
        at: when the next one is due, by time.monotonic.

    Args:
        known: tells the claims that the worker has heard of.
        owed: tells the runs whose outcomes are still to be recorded.
    """

    def __init__(
        self,
        worker: UUID,
        link: Link,
        emit: Callable[[Event], None],
        *,
        known: Callable[[], Container[UUID]],
        owed: Callable[[], list[Run]],
    ) -> None:
        self.at = time.monotonic() + RECONCILE_S
        self._worker = worker
        self._link = link
        self._emit = emit
        self._known = known
        self._owed = owed
        self._in_doubt = False

    def doubt(self) -> None:
        """Has every claim compared soon: what was believed before a break may not be so."""
        self.at = 0.0
        self._in_doubt = True

    def step(self) -> int:
        """Compares; returns how many workers live.

        Raises:
            DeclaredDeadError: this one does not count as one of them.
        """
        self.at = time.monotonic() + RECONCILE_S
        alive, held = statements.alive(self._worker), statements.reconcile(self._worker)
        (is_alive, workers), rows = self._link.batch(alive, held)
        if not is_alive:
            raise DeclaredDeadError
        in_doubt = False
        for claim_id, job_ids in rows:
            if self._in_doubt or claim_id not in self._known():
                in_doubt |= self._release_unheld(claim_id, job_ids)
        self._in_doubt = in_doubt
        return int(workers)

    def _release_unheld(self, claim_id: UUID, job_ids: Sequence[UUID]) -> bool:
        """Releases the jobs of a claim that nobody here knows of; returns whether somebody holds the row of one."""
        held = {(run.claim.id, run.id) for run in self._owed()}
        unheld = [job_id for job_id in job_ids if (claim_id, job_id) not in held]
        if not unheld:
            return False
        back = self._link.one(statements.release([claim_id] * len(unheld), unheld))
        if back.ids:
            self._emit(Released(len(back.ids), "the reply to their claim, or their completion, was lost"))
        standing = self._link.one(statements.standing(unheld, [claim_id] * len(unheld)))
        left = any(ours and status == "running" for _, _, status, ours in standing)
        if not left and len(unheld) == len(job_ids):
            self._link.one(statements.forget_claims([claim_id]))
        return left


class DeclaredDeadError(Exception):
    """This worker was believed dead: what it holds belongs to others."""
