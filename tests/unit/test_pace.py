"""When a worker looks for work, and when it sets and takes away its flag."""

from __future__ import annotations

import pytest

from pgjobs.job import new_id
from pgjobs.worker.claiming import pace
from pgjobs.worker.claiming.pace import FLAG_S, POLL_S, RAMP_S, Pace
from tests.unit.clock import Clock, set_by_hand


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(pace.random, "uniform", lambda low, high: 1.0)
    return set_by_hand(pace, monkeypatch)


@pytest.fixture
def rhythm(clock: Clock) -> Pace:
    return Pace(new_id(), ["mail"])


def names(rhythm: Pace, room: int = 8, *, forgetful: bool = False) -> list[str]:
    return [statement.query.name for statement in rhythm.flag(new_id(), room, forgetful=forgetful)]


def look(rhythm: Pace, found: int, room: int = 8, *, again: bool = False) -> float:
    """One claim with its flag; returns how long the next one waits."""
    rhythm.before()
    flagged = names(rhythm, room) == ["idle"] and not found
    rhythm.after(found, room, again=again, flagged=flagged)
    return max(0.0, rhythm.look_at - pace.time.monotonic())


def test_first_look_that_finds_nothing_sets_the_flag_and_looks_again_in_growing_steps(rhythm: Pace) -> None:
    waits = [round(look(rhythm, 0), 6) for _ in range(len(RAMP_S) + 2)]
    assert waits == [*RAMP_S, POLL_S, POLL_S]


def test_flag_is_renewed_while_nothing_comes(rhythm: Pace, clock: Clock) -> None:
    look(rhythm, 0)
    assert names(rhythm) == []
    clock.now += FLAG_S + 0.1
    assert names(rhythm) == ["idle"]


def test_flag_is_renewed_where_every_look_at_rest_finds_the_next_job(rhythm: Pace, clock: Clock) -> None:
    look(rhythm, 0)
    for _ in range(10):
        clock.now += FLAG_S / 4
        look(rhythm, 1)
        clock.now += 0.01
        look(rhythm, 0)  # the claim that goes with the completion
        assert rhythm._flagged_at is not None
        assert clock.now - rhythm._flagged_at <= FLAG_S


def test_full_claim_is_followed_by_the_next_at_once(rhythm: Pace) -> None:
    assert look(rhythm, 8) == 0


def test_partial_claim_waits_to_be_told_only_where_the_flag_stands(rhythm: Pace) -> None:
    assert look(rhythm, 3) == pytest.approx(pace.BUSY_LOOK_S)
    look(rhythm, 0)
    look(rhythm, 0)
    assert look(rhythm, 3) == POLL_S


def test_flag_goes_when_there_has_been_work_for_a_while(rhythm: Pace, clock: Clock) -> None:
    look(rhythm, 0)
    look(rhythm, 3)
    assert names(rhythm) == []
    assert not rhythm.must_unflag(0)
    clock.now += pace.BUSY_S + 0.1
    assert rhythm.must_unflag(0)
    assert not rhythm.must_unflag(1), "the next claim does it"
    assert names(rhythm) == ["busy"]
    assert names(rhythm) == []


def test_no_flag_where_there_is_no_room(rhythm: Pace) -> None:
    assert names(rhythm, room=0) == []


def test_new_lanes_are_looked_at_at_once(rhythm: Pace) -> None:
    look(rhythm, 0)
    assert look(rhythm, 0, again=True) == 0


@pytest.mark.parametrize("found", [0, 3])
def test_hint_that_comes_during_a_claim_is_not_lost(found: int, rhythm: Pace) -> None:
    for _ in range(10):
        look(rhythm, 0)
    rhythm.before()
    rhythm.look_now()
    assert not rhythm.after(found, 8, again=False, flagged=False)
    assert rhythm.look_at == 0
    assert look(rhythm, 0) > 0, "and answered by one more look"


def test_nothing_found_and_nothing_to_look_at_is_said(rhythm: Pace) -> None:
    rhythm.before()
    assert not rhythm.after(0, 8, again=False, flagged=True), "the flag was set: one more look"
    assert rhythm.after(0, 8, again=False, flagged=False)
    assert not rhythm.after(1, 8, again=False, flagged=False)


def test_flag_stays_and_is_renewed_under_load_where_lanes_are_forgotten_and_there_is_room(
    rhythm: Pace, clock: Clock
) -> None:
    look(rhythm, 0)
    look(rhythm, 1)
    clock.now += FLAG_S + 0.1
    (renewed,) = rhythm.flag(new_id(), 8, forgetful=True)
    assert renewed.query.name == "idle"
    assert renewed.params["claim"] is None, "whatever the claim finds"
    rhythm.after(1, 8, again=False, flagged=True)
    assert names(rhythm, forgetful=True) == []
    assert names(rhythm, room=0, forgetful=True) == ["busy"]
