"""Jobs in the order in which they end: which of many are to be asked for, and when."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final
from uuid import UUID

from pgjobs.config import Duration, seconds
from pgjobs.errors import JobNotFoundError
from pgjobs.job import JobRow

AT_ONCE: Final = 5_000
"""Jobs in one question."""

LOOK_S: Final = 1.0
"""How often all that are left are asked for, heard of or not; where that takes long, twenty times as long at least."""

BLIND_S: Final = 0.05
"""How often where ends of jobs cannot be heard."""

GATHER_S: Final = 0.005
"""How long ends are gathered, for one question to ask for all of them."""


class Race:
    """Who has not ended yet of some jobs. What is heard is asked for by id, so that a wake costs no look at all others.

    Args:
        wake: called, on another thread, when something has been heard.
    """

    def __init__(self, ids: Iterable[UUID], timeout: Duration | None, wake: Callable[[], None]) -> None:
        self.left: dict[UUID, None] = dict.fromkeys(ids)
        self.timeout_s = None if timeout is None else seconds(timeout, what="timeout")
        self._deadline = float("inf") if self.timeout_s is None else time.monotonic() + self.timeout_s
        self._wake = wake
        self._heard: deque[UUID] = deque()
        self._look_at = 0.0

    def hear(self, name: str) -> None:
        """Takes the name of a job that has ended, in hex; or none, where any may have."""
        if name:
            self._heard.append(UUID(name))
        else:
            self._look_at = 0.0
        self._wake()

    def due(self, heard_for_s: float | None) -> Iterator[list[UUID]]:
        """What is to be asked for now, in chunks.

        Args:
            heard_for_s: how long ends have been heard; None if they are not.
        """
        started = time.monotonic()
        looks = started >= self._look_at
        heard = [self._heard.popleft() for _ in range(len(self._heard))]
        asked = list(self.left) if looks else [job_id for job_id in dict.fromkeys(heard) if job_id in self.left]
        yield from (list(chunk) for chunk in _chunks(asked))
        if looks:
            took_s = time.monotonic() - started
            rest_s = LOOK_S if heard_for_s is not None and heard_for_s > 0.2 else BLIND_S
            self._look_at = time.monotonic() + max(rest_s, 20 * took_s)

    def ended(self, asked: Sequence[UUID], rows: dict[UUID, JobRow | None]) -> list[JobRow]:
        """Those that have ended, in the order of their ends; they are left no more.

        Raises:
            JobNotFoundError: one of them is not there.
        """
        for job_id in asked:
            if rows.get(job_id, ...) is None:
                raise JobNotFoundError(job_id)
        found = [row for row in rows.values() if row is not None and row.id in self.left]
        for row in found:
            del self.left[row.id]
        return sorted(found, key=lambda row: (row.finished_at is None, row.finished_at))

    @property
    def is_late(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() >= self._deadline

    def rest_s(self) -> float:
        """Seconds until something is to be asked, if nobody wakes us."""
        if self._heard:
            return 0.0
        return max(0.0, min(self._look_at, self._deadline) - time.monotonic())


def _chunks(ids: list[UUID]) -> Iterator[Sequence[UUID]]:
    rest = iter(ids)
    while chunk := tuple(itertools.islice(rest, AT_ONCE)):
        yield chunk
