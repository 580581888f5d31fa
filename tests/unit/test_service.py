"""Services of a worker: what they say of an outage, with ticks that fail as the test wants it."""

from __future__ import annotations

import psycopg
import pytest

from pgjobs.events import DatabaseAway, DatabaseBack, Event, Trouble
from pgjobs.worker.service import Outage, Service


class Ticks:
    """A service whose database is away for as long as ``away`` is set; the test's hand ticks it."""

    def __init__(self, outage: Outage) -> None:
        self.away = False
        self.service = Service("test", self._tick, outage, lambda event: None)

    def _tick(self) -> float:
        if self.away:
            raise psycopg.OperationalError("server closed the connection unexpectedly")
        return 0.0

    def one(self, *, away: bool) -> None:
        """Ticks once."""
        self.away = away
        self.service._one()  # its thread would add chance


def test_outage_is_said_once_whoever_notices_it_and_however_late() -> None:
    events: list[Event] = []
    outage = Outage(events.append)
    quick, slow = Ticks(outage), Ticks(outage)
    quick.one(away=True)
    quick.one(away=True)
    quick.one(away=False)
    slow.one(away=True)  # a connection of before, noticed when all is over
    slow.one(away=False)
    assert [type(event) for event in events] == [DatabaseAway, DatabaseBack]


def test_next_outage_is_said_again_also_by_who_has_missed_the_one_before() -> None:
    events: list[Event] = []
    outage = Outage(events.append)
    quick, slow = Ticks(outage), Ticks(outage)
    quick.one(away=True)
    quick.one(away=False)
    quick.one(away=True)
    quick.one(away=False)
    slow.one(away=True)
    slow.one(away=True)  # not of before: the connection is a new one
    assert [type(event) for event in events] == [DatabaseAway, DatabaseBack] * 2 + [DatabaseAway]


def test_any_other_error_is_told_and_tried_again_in_a_second_unless_it_stops() -> None:
    events: list[Event] = []
    odd = ValueError("odd")

    def fails() -> float:
        raise odd

    service = Service("test", fails, Outage(events.append), events.append)
    assert service._one() == 1.0
    assert events == [Trouble("test", odd)]
    service.stop()
    assert (service._one(), len(events)) == (0.0, 1), "who leaves has no news of that"
    assert service.join(), "it was never started"


def test_service_outlives_a_log_that_fails(capsys: pytest.CaptureFixture[str]) -> None:
    def log(event: Event) -> None:
        raise ConnectionError(f"no log server for {type(event).__name__}")

    errors = iter([ValueError("odd"), psycopg.OperationalError("server closed the connection unexpectedly")])

    def tick() -> float:
        for error in errors:
            raise error
        return 0.0

    service = Service("test", tick, Outage(log), log)
    assert service._one() == 1.0
    assert 0 < service._one() < 1.0
    assert service._one() == 0.0
    said = capsys.readouterr().err
    assert [name in said for name in ("Trouble", "DatabaseAway", "DatabaseBack")] == [True] * 3
