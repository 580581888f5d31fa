"""Which queues a worker serves."""

from __future__ import annotations

import fnmatch
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pgjobs.config import queue_name
from pgjobs.errors import OptionError

_WEIGHT: Final = re.compile(r"[0-9]+(\.[0-9]*)?|\.[0-9]+")
_NUMBER: Final = re.compile(r"[+-]?[0-9._]*[0-9][0-9._]*(e[+-]?[0-9]+)?", re.IGNORECASE)
"""What somebody means for a weight, be it none; any other text behind a colon belongs to the name."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """Which queues a worker serves: names and patterns, in strict order or by weight.

    ``mail,default`` serves mail first; ``*`` serves all, by priority, then age; ``mail:3,default:1`` looks at mail
    first three times in four.
    """

    patterns: tuple[str, ...]
    weights: tuple[float, ...] | None = None

    @classmethod
    def parse(cls, text: str | Sequence[str]) -> Subscription:
        """Reads ``a,b``, ``a:3,b:1``, ``*``, ``mail.*`` or a list of such names.

        Raises:
            OptionError: no queue, a name that cannot be one, or weights for only some.
        """
        listed = text.split(",") if isinstance(text, str) else text
        if not isinstance(listed, Sequence) or not all(isinstance(name, str) for name in listed):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise OptionError(f"queues are {text!r:.80}; give names such as 'mail,default', or a list of them")
        parts = [part.strip() for part in listed if part.strip()]
        if not parts:
            raise OptionError("no queue is named; give names such as 'mail,default', or '*' for all")
        names, weights = zip(*(_weighted(part) for part in parts), strict=True)
        for name in names:
            queue_name(name.replace("*", "x").replace("?", "x"))
        given = [weight for weight in weights if weight is not None]
        if given and len(given) < len(weights):
            raise OptionError(f"queues {text!r} have weights for some only; give all of them one, or none")
        return cls(names, tuple(given) or None)

    def __str__(self) -> str:
        if self.weights is None:
            return ",".join(self.patterns)
        return ",".join(f"{name}:{weight:g}" for name, weight in zip(self.patterns, self.weights, strict=True))

    @property
    def names(self) -> list[str]:
        """The queues that are named in full."""
        return [pattern for pattern in self.patterns if not _is_glob(pattern)]

    @property
    def flags(self) -> list[str]:
        """The queues under which an idle worker asks to be told; ``*`` where it follows a pattern."""
        return ["*"] if any(_is_glob(pattern) for pattern in self.patterns) else list(self.patterns)

    def rank(self, queue: str) -> int | None:
        """The place of a queue in the written order; None if it is not served."""
        for index, pattern in enumerate(self.patterns):
            if pattern == queue or (_is_glob(pattern) and fnmatch.fnmatchcase(queue, pattern)):
                return index
        return None

    def order(self) -> list[int]:
        """The ranks in the order in which they are preferred this time."""
        if self.weights is None:
            return list(range(len(self.patterns)))
        # Efraimidis and Spirakis, 2006: sorting by u^(1/weight) draws without replacement by weight.
        keys = [random.random() ** (1 / weight) for weight in self.weights]  # noqa: S311
        return sorted(range(len(keys)), key=keys.__getitem__, reverse=True)


def _weighted(part: str) -> tuple[str, float | None]:
    name, colon, weight = part.rpartition(":")
    if not colon or not _NUMBER.fullmatch(weight):
        return part, None
    if not _WEIGHT.fullmatch(weight) or float(weight) <= 0:
        raise OptionError(f"queue {part!r} has no weight; give one above 0, as in {name or 'mail'}:3")
    return name, float(weight)


def _is_glob(pattern: str) -> bool:
    return "*" in pattern or "?" in pattern
