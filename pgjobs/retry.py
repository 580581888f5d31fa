"""When a failed attempt is tried again; and what a job may raise to steer its own run."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from pgjobs.config import Duration, seconds
from pgjobs.errors import OptionError

Backoff: TypeAlias = Duration | Sequence[Duration] | Callable[[int], Duration]

_FOREVER: Final = 32_767


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a job is attempted, and how long it rests in between.

    Args:
        max_attempts: runs in all, the first included; None for as many as it takes.
        backoff: the base of an exponential backoff (``base · 2ⁿ``), a list of rests (the last one repeats),
            or a function of the number of the attempt that failed.
        cap: the longest rest.
        jitter: draw each rest evenly from 0 to its length (AWS's "full jitter"), so that jobs which failed together
            do not come back together.
        on: exceptions that are worth another attempt; all if empty.
        not_on: exceptions that are not.

    Raises:
        OptionError: max_attempts under 1, an empty list of rests, or a rest that is no duration.
    """

    max_attempts: int | None = 5
    backoff: Backoff = 5.0
    cap: Duration = 3600.0
    jitter: bool = True
    on: tuple[type[BaseException], ...] = ()
    not_on: tuple[type[BaseException], ...] = ()
    _rests: Callable[[int], float] = field(init=False, repr=False, compare=False)
    _cap_s: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        limit = self.max_attempts
        if limit is not None and (isinstance(limit, bool) or not 1 <= limit <= _FOREVER):
            raise OptionError(f"max_attempts is {limit!r}; give 1 to {_FOREVER}, or None for as many as it takes")
        object.__setattr__(self, "_rests", _rests(self.backoff))
        object.__setattr__(self, "_cap_s", seconds(self.cap, what="cap"))

    @property
    def attempts(self) -> int:
        """max_attempts as the table stores it."""
        return _FOREVER if self.max_attempts is None else self.max_attempts

    def allows(self, error: BaseException) -> bool:
        """Whether this exception is worth another attempt."""
        if self.not_on and isinstance(error, self.not_on):
            return False
        return not self.on or isinstance(error, self.on)

    def rest_s(self, attempt: int) -> float:
        """Seconds to rest after the given attempt (1 is the first) failed."""
        rest = min(self._rests(attempt), self._cap_s)
        return random.uniform(0, rest) if self.jitter else rest  # noqa: S311 - spreads load, hides nothing

    def document(self) -> dict[str, Any]:
        """The policy as the row's options hold it.

        Raises:
            OptionError: it has a function or exception classes, which only a task can have.
        """
        if callable(self.backoff) or self.on or self.not_on:
            raise OptionError(
                "a Retry with a function or exception classes cannot be stored with a job; put it on the task"
            )
        rests = [seconds(rest) for rest in self.backoff] if _is_list(self.backoff) else seconds(self.backoff)  # type: ignore[arg-type, union-attr]
        return {"backoff": rests, "cap": self._cap_s, "jitter": self.jitter}

    @classmethod
    def from_document(cls, document: Mapping[str, Any], max_attempts: int) -> Retry:
        """The policy that ``document()`` stored.

        Raises:
            OptionError: it is none; SQL may have written anything.
        """
        try:
            return cls(max_attempts, document["backoff"], document["cap"], bool(document["jitter"]))
        except (KeyError, TypeError, OptionError):
            raise OptionError("retry is no policy; write backoff, cap and jitter as Retry.document() does") from None


def _is_list(backoff: Backoff) -> bool:
    return isinstance(backoff, Sequence) and not isinstance(backoff, str)


def _rests(backoff: Backoff) -> Callable[[int], float]:
    if callable(backoff):
        return lambda attempt: seconds(backoff(attempt), what="backoff")
    if isinstance(backoff, Sequence) and not isinstance(backoff, str):
        rests = [seconds(rest, what="backoff") for rest in backoff]
        if not rests:
            raise OptionError("backoff is an empty list; give at least one rest")
        return lambda attempt: rests[min(attempt, len(rests)) - 1]
    base = seconds(backoff, what="backoff")
    return lambda attempt: base * 2.0 ** min(attempt - 1, 60)


class Steer(Exception):
    """What a job raises to say how its run ends; not an error."""


class RetryLater(Steer):
    """Ends the attempt as failed and asks for another one after the delay, whatever the backoff says.

    The attempt counts: after max_attempts the job fails.
    """

    def __init__(self, delay: Duration = 0.0, reason: str | None = None) -> None:
        super().__init__(reason or f"retry in {delay}")
        self.delay_s = seconds(delay, what="delay")


class Snooze(Steer):
    """Puts the job back for the given time without burning an attempt."""

    def __init__(self, delay: Duration) -> None:
        super().__init__(f"snooze for {delay}")
        self.delay_s = seconds(delay, what="delay")


class Cancel(Steer):
    """Ends the job as cancelled, for the given reason; it is not tried again."""

    def __init__(self, reason: str = "cancelled by the job") -> None:
        super().__init__(reason)
        self.reason = reason
