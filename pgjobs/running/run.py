"""One run of a claimed job, as a worker holds it."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any, ClassVar, Final, Literal, cast
from uuid import UUID

from pgjobs import blocking
from pgjobs.arguments import codec
from pgjobs.config import MAX_DURATION_S
from pgjobs.errors import ClaimLostError, OptionError
from pgjobs.report import Desk, Report
from pgjobs.task import Task
from pgjobs.terms.retry import Retry

MAX_AMONG: Final = 16
"""So many that were in a death nobody could explain run at once, at first."""

_TIMES: Final = ("deadline", "late", "retry_for", "soft_timeout", "age", "tried")
"""Options in seconds."""


class Claim:
    """A batch of jobs taken by one call; forgotten when none of them is left to settle.

    Attributes:
        desk: where its runs say something of themselves.
    """

    __slots__ = ("desk", "id", "left")

    def __init__(self, claim_id: UUID, left: int, desk: Desk | None = None) -> None:
        self.id = claim_id
        self.left = left
        self.desk = desk or Desk()


class Run:
    """One attempt of a job, as a worker holds it. Instants are of time.perf_counter.

    Attributes:
        received: when its claim's reply came.
        ready: since when it waits for nothing but a slot.
    """

    __slots__ = (
        "args", "attempt", "begun", "cancelled", "claim", "completed", "completion", "crashes",
        "created_at", "deadline", "executor", "files",
        "given_up", "guarded", "id", "max_attempts", "meta", "named", "options",
        "overdue", "positional", "priority", "queue", "ready", "received", "report", "schema", "settled", "slot",
        "task", "task_name", "timeout_s",
    )  # fmt: skip

    is_inline: ClassVar[bool] = False
    """Whether it runs where it was enqueued, with no row in the table."""

    def __init__(self, row: tuple[Any, ...], claim: Claim, received: float, schema: str) -> None:
        self.id: UUID
        self.task_name: str
        self.queue: str
        self.priority: int
        self.attempt: int
        self.max_attempts: int
        self.crashes: int
        self.timeout_s: float | None
        self.completion: str | None
        self.created_at: datetime
        self.args: dict[str, codec.Json]
        self.meta: dict[str, codec.Json] | None
        self.options: dict[str, Any] | None
        (
            self.id, self.task_name, self.queue, self.priority, self.attempt, self.max_attempts, self.crashes,
            self.timeout_s, self.created_at, self.args, self.meta, self.options,
        ) = row  # fmt: skip
        self.claim = claim
        self.received = self.ready = received
        self.schema = schema
        self.begun = 0.0
        self.deadline = float("inf")
        self.overdue = False
        self.cancelled = False
        self.given_up = False
        self.guarded = False
        self.completed = False
        self.settled = False
        self.report: Report | None = None
        self.task: Task[..., Any, Any]
        self.positional: tuple[Any, ...] = ()
        self.named: dict[str, Any] = self.args
        self.executor: str
        self.slot: int
        self.files: dict[str, tuple[str | None, bytes]]

    @property
    def key(self) -> tuple[UUID, UUID]:
        """Job and claim: another run of the same job has another."""
        return self.id, self.claim.id

    def __repr__(self) -> str:
        return f"<Run {self.id} {self.task_name} attempt {self.attempt}>"

    def check_options(self) -> None:
        """Makes sure that the row's options can be read, which SQL may have written.

        Raises:
            OptionError: they cannot.
        """
        options: Any = self.options
        if not isinstance(options, dict) or isinstance(options, codec.Unreadable):
            raise OptionError("they are no JSON object that can be read")
        if "suspect" in options:
            suspect: Any = cast("dict[str, Any]", options)["suspect"]
            among: Any = cast("Any", suspect).get("of") if isinstance(suspect, dict) else None
            if not isinstance(among, int) or isinstance(among, bool) or not 1 <= among <= MAX_AMONG:
                raise OptionError(f'suspect is of pgjobs\'s own making, {{"of": 1…{MAX_AMONG}}}; take it out')
        for name in _TIMES:
            value: Any = cast("dict[str, Any]", options).get(name, 1)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_DURATION_S:
                raise OptionError(f"{name} is no length of time; give seconds")
        _ = self.retry

    @property
    def is_suspect(self) -> bool:
        """Whether it was in a death that nobody could explain."""
        return self.options is not None and "suspect" in self.options

    @property
    def announces(self) -> bool:
        """Whether its end is to be told by webhook."""
        return isinstance(self.options, dict) and "webhook" in self.options

    @property
    def among(self) -> int:
        """How many that were in a death may run at once, for this one to be among them."""
        return int(self.options["suspect"]["of"]) if self.options and "suspect" in self.options else 1

    @property
    def soft_s(self) -> float | None:
        """Seconds after which its code is told that it takes long."""
        return None if self.options is None else self.options.get("soft_timeout")

    def since_s(self, what: Literal["age", "tried"]) -> float:
        """Seconds since the job's enqueue, or since it was first due, where its options ask for them."""
        return float((self.options or {}).get(what, 0.0)) + time.perf_counter() - self.received

    @property
    def left_s(self) -> float:
        """Seconds until its deadline; infinite without one."""
        if self.options is None or "deadline" not in self.options:
            return float("inf")
        return float(self.options["deadline"]) - self.since_s("age")

    def is_over(self, rest_s: float) -> str | None:
        """Why there is no attempt after a rest, if that is because of the time."""
        if self.options is None:
            return None
        if self.left_s <= rest_s:
            return "deadline passed"
        limit_s = self.options.get("retry_for")
        return "retried for too long" if limit_s is not None and self.since_s("tried") + rest_s > limit_s else None

    @property
    def retry(self) -> Retry:
        """The policy of this job: its own, else its task's."""
        stored = (self.options or {}).get("retry")
        return Retry.from_document(stored, self.max_attempts) if stored else self.task.retry


class StoppedError(BaseException):
    """Raised in a thread whose worker stops and will not wait for it; the job goes back."""


CURRENT: Final = blocking.CURRENT
"""The run of this thread or coroutine."""


def lost(run: Run) -> ClaimLostError:
    """The error for a run whose claim has moved on."""
    return ClaimLostError(run.id)
