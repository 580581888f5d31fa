"""Functions that an application has called when a run has ended: on a task, or for all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar
from uuid import UUID

from pgjobs.arguments.codec import Json
from pgjobs.errors import OptionError
from pgjobs.wording import given

Moment = Literal["success", "failure", "retry", "dead", "cancel"]


@dataclass(frozen=True, slots=True)
class Ended:
    """A run that has ended, as the table says by now.

    status is the job's: ``scheduled`` where it is tried again, in rest_s seconds. seconds is how long it ran.
    exception, message, traceback and fingerprint are those of a run that failed; expected says that the task ``throws``
    such ones.
    """

    job_id: UUID
    task: str
    queue: str
    args: Mapping[str, Json]
    attempt: int
    max_attempts: int
    status: str
    reason: str | None
    seconds: float
    rest_s: float | None = None
    exception: str | None = None
    message: str | None = None
    traceback: str | None = None
    fingerprint: str | None = None
    expected: bool = False


Callback: TypeAlias = Callable[[Ended], Any]
F = TypeVar("F", bound=Callback)


class Notifying:
    """Has decorators for functions, plain or async, that are called when a run has ended and stands in the table so.

    They are called in the worker, one after the other, in the order in which they were registered, a task's own before
    those for all tasks. What one of them raises is logged and changes nothing. Where the worker dies, so do the calls
    that it has not made.
    """

    def __init__(self) -> None:
        self.callbacks: dict[Moment, list[Callback]] = {}

    def on_success(self, function: F, /) -> F:
        """Has a function called for each run that succeeded."""
        return self._on("success", function)

    def on_failure(self, function: F, /) -> F:
        """Has a function called for each attempt that failed, whether or not the job is tried again."""
        return self._on("failure", function)

    def on_retry(self, function: F, /) -> F:
        """Has a function called for each attempt that failed, of a job that is tried again."""
        return self._on("retry", function)

    def on_dead(self, function: F, /) -> F:
        """Has a function called for each job that has failed for good."""
        return self._on("dead", function)

    def on_cancel(self, function: F, /) -> F:
        """Has a function called for each run whose job was cancelled; a job that had not begun is cancelled unheard."""
        return self._on("cancel", function)

    def _on(self, moment: Moment, function: F) -> F:
        if not callable(function):
            raise OptionError(f"{given(function)} is no function; write @jobs.on_{moment} above one")
        self.callbacks.setdefault(moment, []).append(function)
        return function
