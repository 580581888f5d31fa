"""A clock that is set by hand, in the place of a module's ``time``."""

from __future__ import annotations

from types import ModuleType

import pytest


class Clock:
    """Stands still, but where a test has it go on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def perf_counter(self) -> float:
        return self.now


def set_by_hand(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Has a module read a clock of ours, for a test."""
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock
