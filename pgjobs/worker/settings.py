"""What a worker is told when it is made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

from pgjobs.config import SYNCHRONOUS_COMMIT, Duration, seconds, switch
from pgjobs.errors import OptionError
from pgjobs.wording import given


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """What a worker is told when it is made.

    Args:
        queues: names and patterns, as for ``pgjobs worker -Q``.
        concurrency: slots, shared by coroutines and threads.
        burst: leave when nothing is left to claim.
        max_jobs: leave after so many.
        shutdown_timeout: how long running jobs may finish when the worker stops.
        aging: where priorities decide, a job counts a point more for each such time that it has waited.
        synchronous_commit: PostgreSQL's, for claims and completions; None leaves it to the server. With ``off`` a job
            whose end was recorded just before the server crashed is run again.
        modules: modules whose public functions may run under ``module:function``.
        name: what it is called; the machine's name and the process id by default.
        app: what ``-A`` named, for the processes of the pool to load; without it they import each task's module.
        max_rss: bytes; a process of the pool that takes more is killed if it runs a job, else replaced.
        pool_max_jobs: a process of the pool is replaced after so many.
        allow_shell: run the commands that ``pgjobs enqueue-shell`` enqueues.
        supervised: somebody else beats for this worker, and replaces it when it leaves to be replaced.
        supervisor_id: what workers of one supervisor have in common; its own by default.

    Raises:
        OptionError: a setting that cannot be meant.
    """

    queues: str | Sequence[str] = "*"
    concurrency: int = 16
    burst: bool = False
    max_jobs: int | None = None
    shutdown_timeout: Duration = 30.0
    aging: Duration | None = None
    synchronous_commit: str | None = None
    modules: Iterable[str] = ()
    name: str | None = None
    app: str | None = None
    max_rss: int | None = None
    pool_max_jobs: int | None = None
    allow_shell: bool = False
    supervised: bool = False
    supervisor_id: UUID | None = None

    def __post_init__(self) -> None:
        if not _is_whole(self.concurrency) or not 1 <= self.concurrency <= 10_000:
            raise OptionError(f"concurrency is {given(self.concurrency)}; give 1 to 10,000 slots")
        if self.max_jobs is not None and (not _is_whole(self.max_jobs) or self.max_jobs < 1):
            raise OptionError(f"max_jobs is {given(self.max_jobs)}; give 1 or more, or None")
        switch(self.burst, "burst")
        switch(self.allow_shell, "allow_shell")
        if isinstance(self.modules, str):
            raise OptionError(f"modules is {given(self.modules)}; give a list of names")
        if self.synchronous_commit is not None and self.synchronous_commit not in SYNCHRONOUS_COMMIT:
            raise OptionError(
                f"synchronous_commit is {self.synchronous_commit!r}; give one of {', '.join(SYNCHRONOUS_COMMIT)}, "
                "or None"
            )
        if self.aging_s == 0:
            raise OptionError("aging is 0; give how long a job waits for a point of priority, such as '60s', or None")
        seconds(self.shutdown_timeout, what="shutdown_timeout")

    @property
    def aging_s(self) -> float | None:
        """For how many seconds a job waits for a point of priority; None where age counts for nothing."""
        return None if self.aging is None else seconds(self.aging, what="aging")

    @property
    def shutdown_timeout_s(self) -> float:
        """For how many seconds running jobs may finish."""
        return seconds(self.shutdown_timeout, what="shutdown_timeout")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
