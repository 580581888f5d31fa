"""Tells the database at once who has died, and gives what they held to others."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from pgjobs import statements
from pgjobs.connections.link import Link
from pgjobs.events import Event, Reaped, TimedOut
from pgjobs.running.outcome import MAX_CRASHES
from pgjobs.worker import identity

LOOK_S: Final = 1.0
"""How often the workers of the same machine are looked at."""


@dataclass(frozen=True, slots=True)
class Death:
    """A process that has died: the ids under which it worked, and the jobs that pay for it.

    begun had begun: each is charged with a crash; None where nobody knows. late were over their timeout: their attempts
    have failed.
    """

    lives: list[UUID]
    begun: list[UUID] | None
    late: list[UUID]
    how: str


class Deaths:
    """What is to be said of the dead; ``report`` says it, on the connection of a service that beats."""

    def __init__(self, emit: Callable[[Event], None]) -> None:
        self._emit = emit
        self._lock = threading.Lock()
        self._untold: list[Death] = []

    def add(self, death: Death) -> None:
        """Takes a death to be reported; from any thread."""
        with self._lock:
            self._untold.append(death)

    def __bool__(self) -> bool:
        return bool(self._untold)

    def report(self, link: Link) -> None:
        """Marks the dead, ends what was over its timeout, requeues the rest."""
        while self._untold:
            death = self._untold[0]
            link.one(statements.declare_dead(death.lives))
            if death.late and (ended := link.one(statements.time_out(death.lives, death.late))):
                self._emit(TimedOut([job_id for job_id, _ in ended]))
            jobs = poison = 0
            while reaped := link.one(statements.reap(death.lives, death.begun, MAX_CRASHES, death.how)):
                jobs += len(reaped)
                poison += sum(status == "failed" for _, status in reaped)
            link.one(statements.forget_dead_claims())
            with self._lock:
                self._untold.pop(0)
            if jobs:
                self._emit(Reaped([], jobs, poison))

    def find_neighbours(self, link: Link) -> bool:
        """Looks for workers of this machine whose process is gone, and whose supervisor, who knows better, is too.

        Returns whether the database was asked, which it is where processes can be told apart.
        """
        here = identity.place()
        if here is None:
            return False
        gone = [
            (worker, name)
            for worker, name, pid, process in link.one(statements.neighbours(*here))
            if identity.is_gone(pid, process)
        ]
        if gone:
            self._emit(Reaped([name for _, name in gone], 0, 0))
            self.add(Death([worker for worker, _ in gone], None, [], "the worker died while the job ran"))
            self.report(link)
        return True
