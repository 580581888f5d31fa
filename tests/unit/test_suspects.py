"""How long suspects wait for their turn, on a clock that is set by hand."""

from __future__ import annotations

from typing import Any

import pytest

from pgjobs.job import new_id
from pgjobs.running.outcome import Outcome
from pgjobs.running.run import Claim, Run
from pgjobs.worker.claiming import suspects as module
from pgjobs.worker.claiming.suspects import AWAY_S, KEPT_S, MOST, PATIENCE_S, Suspects
from tests.unit.clock import Clock, set_by_hand


class Link:
    """Writes every beginning."""

    def one(self, statement: Any) -> set[Any]:
        return set(zip(statement.params["ids"], statement.params["claims"], strict=True))


class Slots:
    """Holds what began, until it is said to have ended."""

    def __init__(self) -> None:
        self.begun: list[Run] = []

    def add_first(self, runs: list[Run]) -> None:
        self.begun += runs

    def holds(self, run: Run) -> bool:
        return run in self.begun


class Held:
    """Suspects of whom one runs at a time."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.slots = Slots()
        self.suspects = Suspects(Link(), self.slots)  # type: ignore[arg-type]

    def add(self, count: int, among: int = 1) -> list[Run]:
        options = {"suspect": {"of": among}}
        claim = Claim(new_id(), count)
        rows = ((new_id(), "t", "default", 0, 1, 5, 0, None, None, {}, None, options) for _ in range(count))
        runs = [Run(row, claim, self.clock.now, "pgjobs") for row in rows]
        self.suspects.add(runs)
        return runs

    def after(self, seconds: float, *, ended: bool = False) -> list[Run]:
        """Lets time go by; returns those that were sent away."""
        self.clock.now += seconds
        if ended:
            self.slots.begun.clear()
        away = self.suspects.see_to(claiming=True)
        assert all(self._stays_away(outcome) for outcome in away)
        return [outcome.run for outcome in away]

    def _stays_away(self, outcome: Outcome) -> bool:
        return (outcome.ending, outcome.delay_s) == ("released", AWAY_S)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Held:
    return Held(set_by_hand(module, monkeypatch))


def test_where_none_can_begin_they_go_soon(held: Held) -> None:
    _, second, third = held.add(3)
    assert held.after(0) == []
    assert held.after(PATIENCE_S * 0.9) == []
    assert held.after(PATIENCE_S * 0.2) == [second, third]


def test_where_one_begins_after_the_other_they_wait_for_longer(held: Held) -> None:
    runs = held.add(100)
    held.after(0)
    for _ in range(int(KEPT_S / (PATIENCE_S / 2))):
        assert held.after(PATIENCE_S / 2, ended=True) == []
    begun = 1 + int(KEPT_S / (PATIENCE_S / 2))
    assert held.after(PATIENCE_S / 2, ended=True) == runs[begun + 1 :]


def test_one_that_begins_waits_for_a_slot_from_then_on(held: Held) -> None:
    first, second = held.add(2)
    held.after(0)
    began = held.clock.now
    held.after(PATIENCE_S / 2, ended=True)
    assert (first.ready, second.ready) == (began, held.clock.now)
    assert second.received == began


def test_no_more_wait_than_most(held: Held) -> None:
    runs = held.add(MOST + 7)
    assert held.after(0) == runs[1:7]
    assert len(held.suspects) == MOST
