"""How many jobs may wait in a queue, and what becomes of one that finds it full."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from pgjobs.config import Duration, seconds
from pgjobs.errors import OptionError
from pgjobs.wording import given

WhenFull = Literal["raise", "block", "drop"]

DEFAULT_TIMEOUT_S: Final = 60.0
"""How long an enqueue waits for room."""

MAX_DEPTH: Final = 2**31 - 1
"""An integer of PostgreSQL's."""


@dataclass(frozen=True, slots=True)
class Depth:
    """No more than limit jobs shall be queued; timeout_s says how long an enqueue that blocks waits for room."""

    limit: int
    when_full: WhenFull = "raise"
    timeout_s: float = DEFAULT_TIMEOUT_S


def depth_of(options: Mapping[str, Any]) -> Depth | None:
    """What the options ``max_depth``, ``when_full`` and ``full_timeout`` say.

    Raises:
        OptionError: they cannot be meant.
    """
    limit: object = options.get("max_depth")
    if limit is None:
        for name in ("when_full", "full_timeout"):
            if name in options:
                raise OptionError(f"{name} says what a full queue means, and max_depth is not given; give that too")
        return None
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAX_DEPTH:
        raise OptionError(f"max_depth is {given(limit)}; give how many jobs may wait, 1 or more, at most {MAX_DEPTH:,}")
    when_full: WhenFull = options.get("when_full", "raise")
    if when_full not in get_args(WhenFull):
        raise OptionError(f"when_full is {given(when_full)}; give one of {', '.join(get_args(WhenFull))}")
    timeout: Duration = options.get("full_timeout", DEFAULT_TIMEOUT_S)
    if "full_timeout" in options and when_full != "block":
        raise OptionError("full_timeout says how long to wait for room; give when_full='block' too")
    return Depth(limit, when_full, seconds(timeout, what="full_timeout"))
