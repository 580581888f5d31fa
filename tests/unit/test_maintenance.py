"""How often a worker looks for what is due."""

from __future__ import annotations

import statistics
from typing import Any
from uuid import uuid4

import pytest

from pgjobs.worker.maintenance import Maintenance


class NothingDue:
    """A database where nothing is due."""

    def peek(self, statement: object) -> None:
        """Nothing is scheduled."""

    def begin(self) -> None: ...

    def step(self, statement: object) -> None:
        """No duty is due."""

    def commit(self) -> None: ...


def rest_s(workers: int) -> float:
    link: Any = NothingDue()
    upkeep = Maintenance(
        uuid4(),
        link,
        lambda event: None,
        result_ttl_s=60,
        failed_ttl_s=60,
        retentions=[],
        promoted=lambda: None,
        workers=lambda: workers,
    )
    return statistics.median(upkeep.tick() for _ in range(9))


def test_worker_alone_looks_every_fifty_milliseconds() -> None:
    assert rest_s(1) == rest_s(0) == pytest.approx(0.05)


def test_of_many_workers_each_looks_the_more_seldom_and_all_of_them_more_often_than_one() -> None:
    assert rest_s(4) == pytest.approx(0.1)
    assert 20 < 16 / rest_s(16) < 16 * 20
    assert rest_s(10_000) == pytest.approx(0.5), "a fleet that has shrunk is known a few seconds later"
