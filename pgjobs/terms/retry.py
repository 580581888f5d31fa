"""When a failed attempt is tried again; and what a job may raise to steer its own run."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, cast

from pgjobs.config import Duration, seconds
from pgjobs.errors import OptionError
from pgjobs.wording import given

Backoff: TypeAlias = Duration | Sequence[Duration] | Callable[[int], Duration]

_FOREVER: Final = 32_767
_NAMED: Final = ("exponential", "linear")
_BASE: Final = 5.0


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a job is attempted, and how long it rests in between.

    Args:
        max_attempts: runs in all, the first included; None for as many as it takes.
        backoff: ``exponential`` (``base · 2ⁿ``) or ``linear`` (``base · n``); or the base itself, for an exponential
            one; a list of rests (the last one repeats); or a function of the number of the attempt that failed.
        cap: the longest rest.
        jitter: draw each rest evenly from 0 to its length (AWS's "full jitter"), so that jobs which failed together
            do not come back together.
        on: exceptions that are worth another attempt; all if empty.
        not_on: exceptions that are not.
        base: of a backoff that is named; five seconds, if it is not given.
        for_: no attempt begins later than this, counted from when the job was first due.
        rules: for an exception and what is derived from it, another policy, within the attempts of this one; or None,
            to fail at once. The nearest class counts, and goes before on and not_on.

    Raises:
        OptionError: max_attempts under 1, an empty list of rests, a rest that is no duration, or what cannot be meant
            together.
    """

    max_attempts: int | None = 5
    backoff: Backoff = 5.0
    cap: Duration = 3600.0
    jitter: bool = True
    on: tuple[type[BaseException], ...] = ()
    not_on: tuple[type[BaseException], ...] = ()
    base: Duration | None = None
    for_: Duration | None = None
    rules: Mapping[type[BaseException], Retry | None] = field(default_factory=dict[type[BaseException], "Retry | None"])
    _rests: Callable[[int], float] = field(init=False, repr=False, compare=False)
    _cap_s: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        limit = self.max_attempts
        if limit is not None and not (_is_whole(limit) and 1 <= limit <= _FOREVER):
            raise OptionError(f"max_attempts is {given(limit)}; give 1 to {_FOREVER}, or None for as many as it takes")
        exceptions(self.on, "on")
        exceptions(self.not_on, "not_on")
        if not isinstance(self.jitter, bool):  # pyright: ignore[reportUnnecessaryIsInstance] - elsewhere it is a number
            raise OptionError(f"jitter is {given(self.jitter)}; give True, which draws each rest evenly, or False")
        if not isinstance(self.rules, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise OptionError(f"rules is {given(self.rules)}; give a dict, such as {{ValueError: None}}")
        exceptions(tuple(self.rules), "rules")
        if any(rule is not None and (rule.rules or rule.for_ is not None) for rule in self.rules.values()):
            raise OptionError(
                "a rule of a Retry has rules or for_ of its own; give them to the Retry that has the rule"
            )
        if self.for_ is not None and seconds(self.for_, what="for_") == 0:
            raise OptionError("for_ is 0; give a length of time, or max_attempts=1 for no retry")
        object.__setattr__(self, "_rests", _rests(self.backoff, self.base))
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

    def rest_after(self, error: BaseException, attempt: int) -> float | None:
        """Seconds to rest after the given attempt failed with this exception; None where it is not tried again."""
        for kind in type(error).__mro__ if self.rules else ():
            if kind in self.rules:
                rule = self.rules[kind]
                return None if rule is None or attempt >= rule.attempts else rule.rest_s(attempt)
        return self.rest_s(attempt) if self.allows(error) else None

    def rest_s(self, attempt: int) -> float:
        """Seconds to rest after the given attempt (1 is the first) failed."""
        rest = min(self._rests(attempt), self._cap_s)
        return random.uniform(0, rest) if self.jitter else rest  # noqa: S311 - spreads load, hides nothing

    def document(self) -> dict[str, Any]:
        """The policy as the row's options hold it.

        Raises:
            OptionError: it has a function or exception classes, which only a task can have.
        """
        if callable(self.backoff) or self.on or self.not_on or self.rules:
            raise OptionError(
                "a Retry with a function or exception classes cannot be stored with a job; put it on the task"
            )
        document: dict[str, Any] = {"backoff": self._stored_backoff(), "cap": self._cap_s, "jitter": self.jitter}
        return {**document, "growth": "linear"} if self.backoff == "linear" else document

    def _stored_backoff(self) -> list[float] | float:
        """A list or a base, as every release reads them; what else the growth is stands beside it."""
        if self.backoff in _NAMED:
            return seconds(_BASE if self.base is None else self.base)
        if _is_list(self.backoff):
            return [seconds(rest) for rest in cast("Sequence[Duration]", self.backoff)]
        return seconds(cast("Duration", self.backoff))

    @classmethod
    def from_document(cls, document: Mapping[str, Any], max_attempts: int) -> Retry:
        """The policy that ``document()`` stored.

        Raises:
            OptionError: it is none; SQL may have written anything.
        """
        try:
            backoff, base = document["backoff"], None
            if document.get("growth") == "linear":
                backoff, base = "linear", document["backoff"]
            return cls(max_attempts, backoff, document["cap"], bool(document["jitter"]), base=base)
        except (KeyError, TypeError, OptionError):
            raise OptionError("retry is no policy; write backoff, cap and jitter as Retry.document() does") from None


def _is_list(backoff: Backoff) -> bool:
    return isinstance(backoff, Sequence) and not isinstance(backoff, str)


def exceptions(kinds: tuple[type[BaseException], ...], what: str) -> tuple[type[BaseException], ...]:
    """Returns classes of exceptions.

    Raises:
        OptionError: they are none.
    """
    values: Any = kinds
    if not isinstance(values, tuple) or not all(_is_exception(kind) for kind in kinds):
        raise OptionError(f"{what} is {given(kinds)}; give a tuple of exception classes, such as (ConnectionError,)")
    return kinds


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_exception(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseException)


def _rests(backoff: Backoff, base: Duration | None) -> Callable[[int], float]:
    if backoff in _NAMED:
        base_s = seconds(_BASE if base is None else base, what="base")
        return (lambda attempt: base_s * attempt) if backoff == "linear" else _exponential(base_s)
    if base is not None:
        raise OptionError("base belongs to backoff='exponential' or 'linear'; leave it out")
    if callable(backoff):
        return lambda attempt: seconds(backoff(attempt), what="backoff")
    if isinstance(backoff, Sequence) and not isinstance(backoff, str):
        rests = [seconds(rest, what="backoff") for rest in backoff]
        if not rests:
            raise OptionError("backoff is an empty list; give at least one rest")
        return lambda attempt: rests[min(attempt, len(rests)) - 1]
    return _exponential(seconds(backoff, what="backoff"))


def _exponential(base_s: float) -> Callable[[int], float]:
    return lambda attempt: base_s * 2.0 ** min(attempt - 1, 60)


class Steer(Exception):
    """What a job raises, or returns, to say how its run ends; not an error."""


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
