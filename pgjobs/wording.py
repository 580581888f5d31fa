"""How numbers, lengths of time and exit codes are said to people."""

from __future__ import annotations

import signal
from typing import Final

_SHORT: Final = 80

_STRANGE: Final = dict.fromkeys(
    [*range(0x80, 0xA0), 0x61C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A)], "\ufffd"
)
_IN_TEXT: Final = (
    {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\n\t"} | {0x7F: "\u2421"} | _STRANGE
)
_IN_LINE: Final = _IN_TEXT | {code: chr(0x2400 + code) for code in map(ord, "\n\t")}


def harmless(text: str) -> str:
    """A text of somebody else's without what steers a terminal or turns the direction of writing; it keeps its length.

    A sign stands for each: they may be a name's by SQL, made to clear the screen, or to look like another line.
    """
    return text.translate(_IN_TEXT)


def one_line(text: str) -> str:
    """The same where one line is meant."""
    return text.translate(_IN_LINE)


def short(text: str) -> str:
    """A text that somebody else has written, such as a task's name by SQL, as a line has room for it."""
    text = one_line(text)
    return text if len(text) <= _SHORT else f"{text[:_SHORT]}…"


def given(value: object) -> str:
    """A value that cannot be meant, as an error shows it: cut, since it may be a document in the wrong place."""
    try:
        text = repr(value)
    except Exception:  # a number of many thousand digits has no text, and a class of the caller's may raise anything
        return f"a {type(value).__name__}"
    return short(text)


def plural(count: int, word: str) -> str:
    """A number with its noun."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def duration(value_s: float) -> str:
    """A duration as a person says it."""
    if value_s < 0.000_1:
        return "under 0.1 ms"
    if value_s < 1:
        return f"{value_s * 1000:.{1 if value_s < 0.01 else 0}f} ms"
    if value_s < 90:
        return f"{value_s:.1f} s"
    minutes, rest = divmod(int(value_s), 60)
    return f"{minutes} min {rest} s" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def about(value_s: float) -> str:
    """A length of time in one unit, for what is known roughly."""
    for unit, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if value_s >= 2 * unit or (unit == 60 and value_s >= 90):
            return f"{value_s / unit:,.0f} {name}"
    return f"{max(0.0, value_s):.0f} s"


def rate(per_s: float) -> str:
    """So many jobs a second; or a minute or an hour, where they are few."""
    for value, unit in ((per_s, "s"), (per_s * 60, "min"), (per_s * 3_600, "h")):
        if value >= 1:
            return f"{value:,.{0 if value >= 10 else 1}f}/{unit}"
    return "0/s"


def describe_exit(code: int) -> str:
    """An exit code as a person says it."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
