"""How numbers and lengths of time are said to people."""

from __future__ import annotations


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
