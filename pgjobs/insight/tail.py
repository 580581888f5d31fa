"""What happens to jobs, as it happens: from what the tables say, by looking again and again.

Nothing is written for it, so nothing gets slower: what has changed lately is looked for where it must be (see the query
``changed``). Of more than some thousand jobs a second it sees a part.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from pgjobs import statements
from pgjobs.statements import Changed, FailedAttempt, LoggedLine, Scope, Steps

LEVELS: Final = ("debug", "info", "warning", "error", "critical")
OVERLAP: Final = timedelta(seconds=10)
"""A transaction may commit what it has begun before the last look; so each looks back."""

OVERLAP_ROWS: Final = 200
PLACE: Final = 500
"""So many jobs are looked at in each place where something may have happened."""

LINES: Final = 5_000
WATCHED: Final = 2_000
"""So many jobs are followed by their ids, because they are held or soon due."""

_LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that happened to a job.

    what is ``enqueued``, ``started``, ``succeeded``, ``failed``, ``retried``, ``cancelled``, ``expired`` or ``log``.
    Seconds are how long a run took that has ended.
    """

    at: datetime
    what: str
    id: UUID
    task: str
    queue: str
    attempt: int
    seconds: float | None = None
    reason: str | None = None
    due_at: datetime | None = None
    level: str | None = None
    text: str | None = None

    def document(self) -> dict[str, Any]:
        """As JSON shows it: what is not known is left out."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in values.items() if value is not None}


class Tail:
    """Follows jobs; ``look`` returns what is new since the last look.

    Args:
        scope: whose happenings.
        level: log lines from this level on, and those of a level that is none of LEVELS; None for all.
    """

    def __init__(self, scope: Scope, level: str | None = None) -> None:
        self._scope = scope
        self._unwanted: frozenset[str] = frozenset(LEVELS[: 0 if level is None else LEVELS.index(level)])
        self._since = _LONG_AGO
        self._failure = 0
        self._line = 0
        self._watched: dict[UUID, None] = {}
        self._told: dict[tuple[Any, ...], datetime] = {}

    def look(self) -> Steps[list[Happening]]:
        """Returns what is new, in the order in which it happened."""
        failures: list[FailedAttempt] = yield statements.failed_after(self._scope, self._from(self._failure), LINES)
        lines: list[LoggedLine] = yield statements.logged_after(self._scope, self._from(self._line), LINES)
        changes: list[Changed] = yield statements.changed(self._scope, self._since, list(self._watched), PLACE)
        if failures:
            self._failure = max(self._failure, failures[-1].id)
        if lines:
            self._line = max(self._line, lines[-1].id)
        self._watch(changes, failures)
        since = self._since
        if changes:
            self._since = max(since, changes[0].now - OVERLAP)
        found = [*map(_of_failure, failures), *_of_changes(changes), *self._of_lines(lines)]
        return self._new(sorted((each for each in found if each.at > since), key=lambda each: each.at))

    @staticmethod
    def _from(last: int) -> int:
        return max(0, last - OVERLAP_ROWS)

    def _watch(self, changes: Sequence[Changed], failures: Sequence[FailedAttempt]) -> None:
        """Keeps the ids of what will soon change, wherever it stands: the latest."""
        for each in changes:
            if each.status in ("running", "scheduled"):
                self._watched[each.id] = None
            elif each.finished_at is not None:
                self._watched.pop(each.id, None)
        self._watched |= dict.fromkeys(failure.job_id for failure in failures if not failure.last)
        for old in list(self._watched)[:-WATCHED]:
            del self._watched[old]

    def _of_lines(self, lines: Sequence[LoggedLine]) -> Iterator[Happening]:
        for line in lines:
            if line.level not in self._unwanted:
                yield Happening(
                    line.at, "log", line.job_id, line.task, line.queue, line.attempt, level=line.level, text=line.line
                )

    def _new(self, found: Collection[Happening]) -> list[Happening]:
        new: list[Happening] = []
        for each in found:
            key = _key(each)
            if key not in self._told:
                new.append(each)
            self._told[key] = each.at
        if len(self._told) > 20 * LINES:
            self._told = dict(list(self._told.items())[-10 * LINES :])
        return new


def _key(each: Happening) -> tuple[Any, ...]:
    """What makes it the same when it is seen again.

    A failure is in the job's row and in one of its own, at one moment. The last of its job is no more the last when
    somebody has retried that by hand; its attempts begin anew then, and the moment alone tells them apart.
    """
    if each.what == "log":
        return each.id, each.at, each.text
    if each.what in ("failed", "retried"):
        return each.id, "failed", each.at
    return each.id, each.what, each.attempt, each.at


def _of_failure(failure: FailedAttempt) -> Happening:
    said = (failure.message or "").partition("\n")[0]
    return Happening(
        failure.at,
        "failed" if failure.last else "retried",
        failure.job_id,
        failure.task,
        failure.queue,
        failure.attempt,
        reason=failure.reason,
        due_at=None if failure.last else failure.due_at,
        text=": ".join(text for text in (failure.exception, said) if text) or None,
    )


def _of_changes(changes: Sequence[Changed]) -> Iterator[Happening]:
    for job in changes:
        due_at = job.due_at if job.attempt == 0 else None
        yield Happening(job.created_at, "enqueued", job.id, job.task, job.queue, 0, due_at=due_at)
        if job.started_at is not None and (job.status == "running" or job.finished_at is not None):
            yield Happening(job.started_at, "started", job.id, job.task, job.queue, job.attempt)
        if job.finished_at is not None:
            took = None if job.started_at is None else max(0.0, (job.finished_at - job.started_at).total_seconds())
            yield Happening(
                job.finished_at, job.status, job.id, job.task, job.queue, job.attempt, seconds=took, reason=job.reason
            )
