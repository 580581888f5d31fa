"""When the sweep reads: rarely, at once when it is asked, and soon where nobody may have told of what has come."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from pgjobs.connections.link import Link
from pgjobs.statements import Statement
from pgjobs.worker.claiming import sweep as module
from pgjobs.worker.claiming.lanes import Lanes
from pgjobs.worker.claiming.sweep import Sweep
from pgjobs.worker.subscription import Subscription
from tests.unit.clock import Clock, set_by_hand


class Replies:
    """A link whose every answer is empty, takes a while, and may be told of something meanwhile."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.takes_s = 0.0
        self.meanwhile: Callable[[], None] = lambda: None

    def one(self, statement: Statement[Any]) -> list[Any]:
        self.clock.now += self.takes_s
        self.meanwhile()
        return []


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return set_by_hand(module, monkeypatch)


@pytest.fixture
def replies(clock: Clock) -> Replies:
    return Replies(clock)


@pytest.fixture
def sweep(replies: Replies) -> Sweep:
    return Sweep(Lanes(Subscription.parse("*")), cast("Link", replies))


def test_reads_once_a_second_or_by_two_percent_of_the_time_of_all_workers(
    sweep: Sweep, replies: Replies, clock: Clock
) -> None:
    sweep.step()
    assert not sweep.due(hurried=False)
    clock.now += 1.0
    assert sweep.due(hurried=False)
    sweep.workers, replies.takes_s = 4, 0.1
    sweep.step()
    sweep.step()
    clock.now += 19.9
    assert not sweep.due(hurried=False)
    clock.now += 0.2
    assert sweep.due(hurried=False)


def test_is_due_again_where_it_was_asked_while_it_read(sweep: Sweep, replies: Replies) -> None:
    """The LISTEN connection stood while the first step read: its jobs waited a second for the next one."""
    replies.meanwhile = sweep.soon
    sweep.step()
    assert sweep.due(hurried=False)
    replies.meanwhile = lambda: None
    sweep.step()
    assert not sweep.due(hurried=False)


def test_hurried_it_keeps_to_its_own_two_percent(sweep: Sweep, replies: Replies, clock: Clock) -> None:
    replies.takes_s = 0.01
    sweep.step()
    assert sweep.due(hurried=True), "the first one takes long because all is cold"
    sweep.workers = 16
    sweep.step()
    assert not sweep.due(hurried=True)
    clock.now += 0.6
    assert sweep.due(hurried=True)
    assert not sweep.due(hurried=False)


def test_step_that_was_held_up_puts_off_none_of_the_next(sweep: Sweep, replies: Replies, clock: Clock) -> None:
    """A lock on the table for two seconds, once, had the next step wait for a hundred."""
    for takes_s in (0.1, 10.0):
        replies.takes_s = takes_s
        sweep.step()
    clock.now += 10.1
    assert sweep.due(hurried=False), "fifty times the first step, of two statements"
    sweep.step()
    clock.now += 10.1
    assert not sweep.due(hurried=False), "it goes on to take long: that is its cost"
