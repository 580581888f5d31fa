"""What the supervisor does where there should be more processes, or fewer."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from pgjobs.supervisor.growth import SCALE_S, Growth
from pgjobs.supervisor.process import Settings

WAIT_S, IDLE_S = 5.0, 30.0


class Member:
    """A process with two slots of which so many are taken."""

    def __init__(self, number: int, busy: int = 0, *, ready: bool = True) -> None:
        self.number = number
        self.is_ready = ready
        self.popen = SimpleNamespace(pid=1_000 + number)
        self.board = SimpleNamespace(begun=lambda: [None] * busy)
        self.drained = False

    def drain(self) -> None:
        self.drained = True


class Answer:
    """A link whose database says how long jobs have waited, by their queues."""

    def __init__(self, **waits: float) -> None:
        self.waits = waits
        self.asked = 0
        self.hold_up: Callable[[], None] = lambda: None

    def one(self, statement: object) -> dict[str, float]:
        self.asked += 1
        self.hold_up()
        return self.waits


class Scene:
    """Between one process and three, and a clock that the test turns."""

    def __init__(self, queues: str = "*") -> None:
        self.now = 1_000.0
        self.started: list[int] = []
        settings = Settings("app", queues, concurrency=2, scale_wait=WAIT_S, scale_idle=IDLE_S)
        self.growth = Growth(settings, 3, self.started.append, lambda: self.now)

    def turn(self, *members: Member, planned: tuple[int, ...] = (), after_s: float = SCALE_S) -> None:
        """Lets some time pass, and the growth look."""
        self.now += after_s
        self.growth.turn(members, planned)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    def pass_(self, seconds: float) -> None:
        self.now += seconds

    def ask(self, answer: Answer) -> None:
        self.growth.ask(answer)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_process_is_started_under_the_first_free_number(scene: Scene) -> None:
    members = Member(0, 2), Member(2, 2)
    scene.turn(*members)
    scene.ask(Answer(default=WAIT_S))
    scene.turn(*members)
    assert scene.started == [1]


def test_number_that_is_planned_is_not_taken_twice(scene: Scene) -> None:
    scene.turn(Member(1, 2))
    scene.ask(Answer(default=WAIT_S))
    scene.turn(Member(1, 2), after_s=2 * SCALE_S)
    assert scene.started == [0]


def test_one_that_is_about_to_start_may_be_all_that_is_needed(scene: Scene) -> None:
    scene.turn(Member(1, 2))
    scene.ask(Answer(default=WAIT_S))
    scene.turn(Member(1, 2), planned=(0,))
    scene.turn(Member(1, 2), Member(0, ready=False))
    assert scene.started == []


def test_nobody_is_asked_while_slots_are_free(scene: Scene) -> None:
    answer = Answer(default=60.0)
    scene.turn(Member(0, 1))
    scene.ask(answer)
    assert answer.asked == 0


def test_wait_of_a_queue_that_is_not_served_is_no_reason() -> None:
    scene = Scene("mail")
    scene.turn(Member(0, 2))
    scene.ask(Answer(default=60.0))
    scene.turn(Member(0, 2))
    assert scene.started == []
    scene.ask(Answer(default=60.0, mail=WAIT_S))
    scene.turn(Member(0, 2))
    assert scene.started == [1]


def test_it_looks_and_asks_once_a_second(scene: Scene) -> None:
    answer = Answer(default=WAIT_S)
    scene.turn(Member(0, 2))
    for _ in range(3):
        scene.ask(answer)
    assert answer.asked == 1
    scene.turn(Member(0, 2), after_s=SCALE_S / 2)
    assert scene.started == []
    scene.turn(Member(0, 2), after_s=SCALE_S / 2)
    assert scene.started == [1]


def test_least_busy_process_leaves_of_equals_the_last_one(scene: Scene) -> None:
    members = Member(0, 1), Member(1, 0), Member(2, 0)
    scene.turn(*members)
    scene.turn(*members, after_s=IDLE_S)
    assert [member.drained for member in members] == [False, False, True]


def test_question_that_was_held_up_puts_off_none_of_the_next(scene: Scene) -> None:
    """A database that stood for ten seconds, once, had the next question wait for eight minutes."""
    answer = Answer(default=0.0)
    scene.turn(Member(0, 2))
    scene.ask(answer)
    scene.turn(Member(0, 2))
    answer.hold_up = lambda: scene.pass_(10.0)
    scene.ask(answer)
    scene.turn(Member(0, 2))
    scene.ask(answer)
    assert answer.asked == 3
