"""Which jobs count as the same one, for how long, and what becomes of the second."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from pgjobs.arguments import codec
from pgjobs.arguments.codec import Json
from pgjobs.config import MAX_DURATION_S, Duration, seconds
from pgjobs.errors import OptionError
from pgjobs.wording import given

By: TypeAlias = bool | str | Sequence[str] | Callable[..., object]
Conflict = Literal["existing", "skip", "replace", "raise", "debounce"]

MAX_KEY: Final = 500
"""Characters of a key: an index entry has room for little more."""


def _names(by: By) -> list[str]:
    if isinstance(by, str):
        return [by]
    return [] if isinstance(by, bool) or callable(by) else list(by)


def _one_of(what: str, value: object, known: Sequence[str]) -> None:
    if value not in known:
        raise OptionError(f"unique {what} is {given(value)}; give one of {', '.join(known)}")


@dataclass(frozen=True, slots=True)
class Unique:
    """Of jobs with the same key, one at a time is there.

    Args:
        by: what makes the key: True for all arguments, the name of an argument or several, or a function that is
            called as the task is, and whose result is the key.
        scope: ``task``, the same task; ``queue``, the same task in the same queue; ``all``, whatever the task.
        until: how long the job keeps its key: ``finished``, until it has ended; ``started``, until it is claimed, so
            that one may wait while another runs.
        period: it keeps the key for so long at least, counted from its enqueue, also when it has ended.
        on_conflict: what an enqueue does where the key is taken. ``existing`` returns the job that is there, and so
            does ``skip``, which in ``enqueue_many`` leaves it out of the ids. ``replace`` gives it the new arguments,
            if it waits. ``debounce`` does so too, and lets it start a whole ``delay`` from now. ``raise`` raises
            DuplicateJobError.

    Raises:
        OptionError: a value that cannot be meant.
    """

    by: By = True
    scope: Literal["task", "queue", "all"] = "task"
    until: Literal["finished", "started"] = "finished"
    period: Duration | None = None
    on_conflict: Conflict = "existing"

    def __post_init__(self) -> None:
        _one_of("scope", self.scope, ("task", "queue", "all"))
        _one_of("until", self.until, ("finished", "started"))
        _one_of("on_conflict", self.on_conflict, ("existing", "skip", "replace", "raise", "debounce"))
        by: object = self.by
        if not isinstance(by, bool | str | list | tuple | set | frozenset) and not callable(by):
            raise OptionError(f"unique by {given(by)} is no key; give True, names of arguments, or a function")
        if not self.by:
            raise OptionError(f"unique by {self.by!r} is by nothing; give True, names of arguments, or a function")
        if self.until == "started" and self.period is not None:
            raise OptionError("unique until 'started' and for a period are both asked for; give one of them")
        if self.period is not None:
            seconds(self.period, what="period")

    def check(self, known: Sequence[str], task: str) -> None:
        """Raises OptionError where it names an argument that the task does not have."""
        for name in _names(self.by):
            if name not in known:
                raise OptionError(
                    f"task {task!r} has no argument {given(name)} to be unique by; it has {', '.join(known)}"
                )

    def document(self) -> dict[str, Json]:
        """What the row's options say of it: nothing, for the usual."""
        if self.until == "started":
            return {"unique_until": "started"}
        return {} if self.period is None else {"unique_for": seconds(self.period, what="period")}

    def key(
        self, task: str, queue: str, bound: Mapping[str, Json], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> str:
        """The key of a call. Arguments stand in it as a hash, so that it shows none and has a bearable length.

        Raises:
            OptionError: the function's result is no key.
        """
        where = {"task": task, "queue": f"{task}@{queue}", "all": ""}[self.scope]
        if callable(self.by):
            made = self.by(*args, **kwargs)
            if made is None or not _has_text(made) or not str(made):
                raise OptionError(
                    f"the function that makes unique keys of {task!r} returned {given(made)}; return a text"
                )
            return checked_key(f"{where}:{made}")
        chosen = bound if self.by is True else {name: bound.get(name) for name in _names(self.by)}
        text = codec.dumps(dict(sorted(chosen.items())), what="arguments")
        return f"{where}#{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def _has_text(value: object) -> bool:
    """Whether a value's text says what it is, and not where it happens to stand in memory."""
    return type(value).__repr__ is not object.__repr__ or type(value).__str__ is not object.__str__


FOREVER: Final = Unique(period=MAX_DURATION_S)
"""What an idempotency key means: its job keeps it until it is pruned."""


def unique_of(value: object) -> Unique | None:
    """Makes a policy of what the option ``unique`` may be.

    Raises:
        OptionError: it may not be that.
    """
    if value is None or value is False:
        return None
    if isinstance(value, Unique):
        return value
    if value is True or isinstance(value, str | list | tuple) or callable(value):
        return Unique(value)  # pyright: ignore[reportUnknownArgumentType] - names of arguments, which are checked
    raise OptionError(f"unique is {given(value)}; give True, names of arguments, a function, or Unique(…)")


def checked_key(key: str, what: str = "unique key") -> str:
    """Returns a key.

    Raises:
        OptionError: PostgreSQL could not hold it.
    """
    if not 0 < len(key) <= MAX_KEY or "\0" in key or not codec.is_encodable(key):
        raise OptionError(
            f"{what} {given(key)} is empty, over {MAX_KEY} characters, or has a NUL or a lone surrogate; "
            "give another one"
        )
    return key
