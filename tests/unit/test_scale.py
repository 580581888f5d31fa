"""When there should be more processes, and when fewer."""

from __future__ import annotations

import pytest

from pgjobs.supervisor.scale import Load, Scale


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def scale(clock: Clock) -> Scale:
    """Between one process and three, more after 5 s, fewer after 30."""
    return Scale(1, 3, 5.0, 30.0, clock)


def load(processes: int, busy: int, *, starting: int = 0, slots: int = 4) -> Load:
    return Load(processes, starting, (processes - starting) * slots, busy)


def test_process_is_added_when_a_job_has_waited_and_every_slot_is_taken(scale: Scale) -> None:
    assert scale.wants_to_know(load(1, 4))
    assert scale.decide(load(1, 4), 4.9) == 0
    assert scale.decide(load(1, 4), 5.0) == 1


def test_how_long_jobs_wait_matters_only_where_it_can_change_anything(scale: Scale) -> None:
    assert not scale.wants_to_know(load(1, 3)), "a slot is free"
    assert not scale.wants_to_know(load(3, 12)), "there are as many as there may be"
    assert not scale.wants_to_know(load(2, 4, starting=1)), "one is on its way"
    assert scale.decide(load(3, 12), 60.0) == 0
    assert scale.decide(load(2, 4, starting=1), 60.0) == 0


def test_one_process_at_a_time(scale: Scale, clock: Clock) -> None:
    assert scale.decide(load(1, 4), 60.0) == 1
    assert scale.decide(load(2, 8), 60.0) == 0
    assert not scale.wants_to_know(load(2, 8))
    clock.now += 5
    assert scale.decide(load(2, 8), 65.0) == 1


def test_process_leaves_when_it_was_not_needed_for_long(scale: Scale, clock: Clock) -> None:
    assert scale.decide(load(3, 8), 0.0) == 0
    clock.now += 29
    assert scale.decide(load(3, 8), 0.0) == 0
    clock.now += 1
    assert scale.decide(load(3, 8), 0.0) == -1
    assert scale.decide(load(2, 4), 0.0) == 0
    clock.now += 30
    assert scale.decide(load(2, 4), 0.0) == -1


def test_one_busy_moment_begins_the_wait_anew(scale: Scale, clock: Clock) -> None:
    for busy in (8, 9, 8):
        assert scale.decide(load(3, busy), 0.0) == 0
        clock.now += 20
    assert scale.decide(load(3, 8), 0.0) == 0
    clock.now += 10
    assert scale.decide(load(3, 8), 0.0) == -1


def test_there_are_never_fewer_than_the_least(scale: Scale, clock: Clock) -> None:
    for _ in range(5):
        assert scale.decide(load(1, 0), 0.0) == 0
        clock.now += 60


def test_nothing_leaves_while_one_starts(scale: Scale, clock: Clock) -> None:
    for _ in range(3):
        assert scale.decide(load(3, 0, starting=1), 0.0) == 0
        clock.now += 60


@pytest.mark.parametrize("demand", range(1, 13))
def test_steady_load_settles(demand: int, scale: Scale, clock: Clock) -> None:
    """So many jobs always want to run: there is no number of processes between which it swings for ever."""
    processes = 1
    steps: list[int] = []
    for _ in range(600):
        slots = processes * 4
        now = load(processes, min(demand, slots))
        step = scale.decide(now, 60.0 if demand > slots else 0.0)
        processes += step
        steps.append(step)
        clock.now += 1
    assert processes == -(-demand // 4)
    assert not any(steps[300:])
