"""What a worker believes of what it is told."""

from __future__ import annotations

import pytest

from pgjobs.job import new_id
from pgjobs.worker.claiming import hints as module
from pgjobs.worker.claiming.hints import RUMOURS, Hints
from pgjobs.worker.claiming.lanes import FORGET_S, Lanes
from pgjobs.worker.claiming.pace import Pace
from pgjobs.worker.subscription import Subscription
from tests.unit.clock import Clock, set_by_hand


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return set_by_hand(module, monkeypatch)


@pytest.fixture
def lanes() -> Lanes:
    return Lanes(Subscription.parse("known,*"))


@pytest.fixture
def hints(lanes: Lanes, clock: Clock) -> Hints:
    return Hints(lanes, Pace(new_id(), ["*"]))


@pytest.mark.parametrize("way", ["queued", "restored"])
def test_of_very_many_lanes_that_nobody_knows_only_some_are_believed(way: str, hints: Hints, lanes: Lanes) -> None:
    for i in range(10 * RUMOURS):
        hints.queued(f"lane{i}", 0) if way == "queued" else hints.restored(f"lane{i}", 0, 1)
    _, below = hints.take()
    assert len(lanes.known) == 1 + RUMOURS
    assert len(below) <= RUMOURS


def test_known_lanes_are_believed_whatever_else_is_told(hints: Hints, lanes: Lanes) -> None:
    for i in range(2 * RUMOURS):
        hints.queued(f"lane{i}", 0)
    assert hints.queued("known", 0)
    assert hints.restored("known", 0, -5)
    assert hints.queued("lane0", 0), "it is to be met already"
    assert not hints.queued("another", 0)
    assert ("known", 0) in hints.take()[1]


def test_other_lanes_are_believed_after_a_while(hints: Hints, lanes: Lanes, clock: Clock) -> None:
    for i in range(2 * RUMOURS):
        hints.queued(f"lane{i}", 0)
    clock.now += FORGET_S
    assert hints.queued("another", 0)


def test_one_lane_told_of_again_and_again_is_one(hints: Hints, lanes: Lanes) -> None:
    for _ in range(2 * RUMOURS):
        hints.queued("lane", 0)
    assert hints.queued("another", 0)


def test_what_proved_true_does_not_count(hints: Hints) -> None:
    """Of six hundred queues, a job each in ten seconds, the last hundred waited for the sweep."""
    for i in range(2 * RUMOURS):
        assert hints.queued(f"lane{i}", 0)
        hints.proved([(None, "task", f"lane{i}", 0)])
