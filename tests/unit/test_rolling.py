"""A rolling restart, step by step."""

from __future__ import annotations

from pgjobs.supervisor.rolling import START_S, Roll


class Member:
    """A process that does as the test says."""

    def __init__(self, number: int, *, ready: bool = True) -> None:
        self.number = number
        self.is_ready = ready
        self.is_leaving = False
        self.told: list[str] = []

    def dismiss(self) -> None:
        self.told.append("dismissed")

    def kill(self, why: str) -> None:
        self.told.append(why)


class Scene:
    """Two processes, and those that the restart starts."""

    def __init__(self) -> None:
        self.now = 0.0
        self.alive = [Member(0), Member(1)]
        self.first, self.second = self.alive
        self.roll = Roll([*self.alive], self.spawn, lambda: self.now)

    def spawn(self, number: int) -> Member:
        self.alive.append(Member(number, ready=False))
        return self.alive[-1]

    def step(self) -> bool:
        return self.roll.step(self.alive)


def test_old_one_leaves_only_when_the_fresh_one_claims_and_the_next_only_when_it_has_left() -> None:
    scene = Scene()
    assert scene.step()
    fresh = scene.alive[2]
    assert (fresh.number, scene.first.told) == (0, [])
    assert scene.roll.is_fresh(fresh)
    assert scene.roll.is_followed(scene.first)
    fresh.is_ready = True
    assert scene.step()
    assert scene.first.told == ["dismissed"]
    assert not scene.roll.is_fresh(fresh), "it works: its death is one like any other"
    assert scene.step()
    assert len(scene.alive) == 3, "the first one drains"
    scene.alive.remove(scene.first)
    assert scene.step()
    assert [each.number for each in scene.alive] == [1, 0, 1]
    scene.alive[2].is_ready = True
    scene.step()
    scene.alive.remove(scene.second)
    assert not scene.step()
    assert all(each.told == [] for each in scene.alive)


def test_one_that_has_died_meanwhile_needs_no_successor() -> None:
    scene = Scene()
    scene.alive.remove(scene.first)
    scene.step()
    assert [each.number for each in scene.alive] == [1, 1]


def test_one_that_was_told_to_leave_meanwhile_gets_no_successor() -> None:
    scene = Scene()
    scene.first.is_leaving = True
    scene.step()
    assert [each.number for each in scene.alive] == [0, 1, 1]


def test_fresh_one_that_does_not_get_ready_is_killed() -> None:
    scene = Scene()
    scene.step()
    scene.now = START_S + 1
    scene.step()
    assert "not ready" in scene.alive[2].told[0]
    assert scene.first.told == []


def test_restart_that_is_abandoned_leaves_the_old_ones_alone() -> None:
    scene = Scene()
    scene.step()
    assert scene.roll.abandon() == 0
    assert scene.alive[2].told == ["dismissed"]
    scene.alive.pop()
    scene.alive.remove(scene.first)
    assert not scene.step()
    assert scene.alive == [scene.second]
    assert scene.second.told == []
