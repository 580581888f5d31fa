"""How often a worker looks for what is due."""

from __future__ import annotations

import statistics
from typing import Any
from uuid import uuid4

import pytest

from pgjobs.statements import Statement
from pgjobs.worker import maintenance as module
from pgjobs.worker.maintenance import Maintenance
from tests.unit.clock import Clock, set_by_hand


class NothingDue:
    """A database where nothing is due.

    Attributes:
        whole: how often it was asked for what has been due for however long.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self.whole = 0
        self.takes_s = 0.0
        self._clock = clock

    def peek(self, statement: Statement[Any]) -> None:
        """Nothing is scheduled."""
        self.whole += statement.params["back"] is None
        if self._clock is not None:
            self._clock.now += self.takes_s

    def begin(self) -> None: ...

    def step(self, statement: object) -> None:
        """No duty is due."""

    def commit(self) -> None: ...


def upkeep(link: Any, workers: int = 1) -> Maintenance:
    return Maintenance(
        uuid4(),
        link,
        lambda event: None,
        result_ttl_s=60,
        failed_ttl_s=60,
        retentions=[],
        promoted=lambda: None,
        workers=lambda: workers,
    )


def rest_s(workers: int) -> float:
    looks = upkeep(NothingDue(), workers)
    return statistics.median(looks.tick() for _ in range(9))


def test_worker_alone_looks_every_fifty_milliseconds() -> None:
    assert rest_s(1) == rest_s(0) == pytest.approx(0.05)


def test_of_many_workers_each_looks_the_more_seldom_and_all_of_them_more_often_than_one() -> None:
    assert rest_s(4) == pytest.approx(0.1)
    assert 20 < 16 / rest_s(16) < 16 * 20
    assert rest_s(10_000) == pytest.approx(0.5), "a fleet that has shrunk is known a few seconds later"


def test_look_that_was_held_up_puts_off_none_of_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that stood still for ten seconds, once, had the next look at all that is due wait for eight minutes."""
    clock = set_by_hand(module, monkeypatch)
    database = NothingDue(clock)
    looks = upkeep(database)
    for takes_s in (0.0, 10.0, 0.0):
        database.takes_s = takes_s
        looks.tick()
        clock.now += 1.0
    assert database.whole == 3
