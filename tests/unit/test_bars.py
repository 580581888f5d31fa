"""Bars are never wider than their place, and leave out nothing that is there, while there is room."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pgjobs.insight.bars import cells

counts = st.lists(st.integers(0, 10**9), min_size=1, max_size=5)


@given(counts, st.integers(0, 60), st.integers(0, 10**9))
def test_bar_fits_and_shows_what_is_there(parts: list[int], width: int, more: int) -> None:
    found = cells(parts, sum(parts) + more, width)
    there = sum(part > 0 for part in parts)
    assert sum(found) <= width
    assert all(cell == 0 for cell, part in zip(found, parts, strict=True) if part == 0)
    assert sum(cell > 0 for cell in found) == min(there, width)
    if sum(parts) and not more:
        assert sum(found) == width


def test_parts_have_their_share() -> None:
    assert cells([50, 25, 25, 0], 100, 20) == [10, 5, 5, 0]
    assert cells([50, 0], 100, 20) == [10, 0]
    assert cells([1, 10**6], 10**6, 10) == [1, 9]
    assert cells([5, 9, 1], 15, 2) == [1, 1, 0]
    assert cells([0, 0], 0, 10) == [0, 0]
