"""What a worker process counts, and says to its supervisor."""

from __future__ import annotations

import psycopg
import pytest

from pgjobs import events
from pgjobs.running.outcome import Outcome
from pgjobs.worker import tally as module
from pgjobs.worker.tally import OTHERS, Tally
from tests.unit.test_outcome import a_run


@pytest.mark.parametrize(
    ("event", "counts"),
    [
        (events.Released(3, "stopped"), {"jobs_released": 3}),
        (events.Reaped(["w"], 2, 1), {"jobs_reaped": 2}),
        (events.ClaimLost(a_run()), {"claims_lost": 1}),
        (events.DatabaseAway("refused"), {"database_errors": 1}),
        (events.Trouble("claimer", psycopg.errors.DeadlockDetected()), {"database_errors": 1}),
        (events.Trouble("claimer", ValueError()), {}),
        (events.Quieted("w", quiet=True), {}),
    ],
)
def test_each_event_is_passed_on_and_counted_once(event: events.Event, counts: dict[str, int]) -> None:
    passed: list[events.Event] = []
    tally = Tally(passed.append)
    tally(event)
    assert (passed, tally.take().counts, tally.take().counts) == ([event], counts, {})


def test_claims_of_another_life_are_counted_from_its_beginning() -> None:
    tally = Tally(lambda event: None)
    assert [tally.take(claims=claims).counts.get("claims", 0) for claims in (5, 9, 9, 2)] == [5, 4, 0, 2]


def test_names_beyond_a_limit_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names come from rows, which anybody may write: a worker's memory does not grow with them."""
    monkeypatch.setattr(module, "MAX_NAMES", 1)
    tally = Tally(lambda event: None)
    known, other = a_run(), a_run()
    other.task_name = "another"
    tally(events.Recorded([Outcome(run, "succeeded", 0.1) for run in (known, other, known)]))
    assert sorted(tally.take().jobs) == sorted(
        [("mail.send", "default", "succeeded", 2), (OTHERS, OTHERS, "succeeded", 1)]
    )
