"""Reads that say why a job stands where it stands."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from pgjobs.statements.query import QUERIES, Statement

SILENT_S: Final = 15.0
"""Who has not beaten for so long does not count as living, marked dead or not: where nobody reaps, nobody marks."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What bears on one job beside its own columns.

    Attributes:
        at: the database's time.
        hold: ``job`` where somebody holds it by hand, ``task`` where its task was paused when it was claimed.
        ahead: the jobs that are claimed before it, 1,001 at most.
        published: whether a worker has ever said that it runs the task.
        claimed: whether a claim stands for the run; worker, host and pid are whose it is.
        silent_s: seconds since that worker's last beat.
        exception, message: of its last failure.
        lately: the jobs of its queue that have ended within ten minutes.
    """

    at: datetime
    unique_key: str | None
    blockers: int
    hold: str | None
    held_at: datetime | None
    ahead: int
    published: bool
    claimed: bool
    claimed_at: datetime | None
    worker: str | None
    host: str | None
    pid: int | None
    dead_at: datetime | None
    silent_s: float | None
    exception: str | None
    message: str | None
    lately: int


@dataclass(frozen=True, slots=True)
class Member:
    """A worker that is not marked dead; silent_s since its last beat; quiet if it shall claim no more."""

    id: UUID
    name: str
    queues: list[str]
    silent_s: float
    quiet: bool

    @property
    def lives(self) -> bool:
        """Whether it has beaten lately."""
        return self.silent_s < SILENT_S

    def serves(self, queue: str) -> bool:
        """Whether it claims jobs of a queue; one whose name begins with ``@`` and its own id is always served."""
        return queue == f"@{self.id}" or any(fnmatch.fnmatchcase(queue, pattern) for pattern in self.queues)


class Deed(NamedTuple):
    """What somebody has done to a job."""

    actor: str
    action: str
    at: datetime


def standing_of(job_id: UUID) -> Statement[Standing | None]:
    """What bears on a job; None where there is none."""
    return Statement(QUERIES["standing_of"], {"id": str(job_id)}, lambda rows: Standing(*rows[0]) if rows else None)


def fleet() -> Statement[list[Member]]:
    """The workers that are not marked dead, by name."""
    return Statement(QUERIES["fleet"], {}, lambda rows: [Member(*row) for row in rows])


def deeds(job_id: UUID) -> Statement[list[Deed]]:
    """What people have lately done to a job by its id, the last deed first."""
    return Statement(QUERIES["deeds"], {"id": str(job_id)}, lambda rows: [Deed(*row) for row in rows])
