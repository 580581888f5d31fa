"""Bars of several parts, in whole cells of a terminal."""

from __future__ import annotations

from collections.abc import Sequence


def cells(counts: Sequence[float], longest: float, width: int) -> list[int]:
    """How many cells each part of a bar has.

    A bar of the size longest fills the width. What is not zero has a cell, as long as there is room: the largest first.
    """
    size = sum(counts)
    if size <= 0 or width <= 0:
        return [0] * len(counts)
    parts = [index for index, count in enumerate(counts) if count > 0]
    length = min(width, max(len(parts), round(width * size / max(longest, size))))
    parts = sorted(parts, key=lambda index: -counts[index])[:length]
    found = [int(index in parts) for index in range(len(counts))]
    free = length - len(parts)
    shares = {index: free * counts[index] / size for index in parts}
    for index, share in shares.items():
        found[index] += int(share)
    left = length - sum(found)
    for index in sorted(parts, key=lambda index: int(shares[index]) - shares[index])[:left]:
        found[index] += 1
    return found
