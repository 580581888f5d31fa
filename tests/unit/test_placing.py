"""What becomes of calls whose key is taken, answer by answer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import UUID

import pytest

from pgjobs import PgJobsError, Unique
from pgjobs.job import Draft, Template, new_id
from pgjobs.placing import Placed, place
from pgjobs.statements import Added

ROW = Template("work", "default", 0, 5, None, unique=Unique())
ID, OTHER = new_id(), new_id()
TAKEN = Added(set(), idle=False, lowest=None)


def placed(answers: Iterable[Any], ids: tuple[UUID, ...] = (ID,)) -> tuple[Placed, list[str]]:
    """What comes of these answers, and which statements were sent for them."""
    steps = place(ROW, [Draft("{}", key="k") for _ in ids], ids)
    sent = [next(steps).query.name]
    try:
        for answer in answers:
            statement = steps.send(answer)
            sent += [statement.query.name]
    except StopIteration as end:
        return end.value, sent
    raise AssertionError("it goes on")


def test_key_that_is_taken_leads_to_its_holder() -> None:
    assert placed([TAKEN, [], {"k": OTHER}]) == (
        Placed([OTHER], [False]),
        ["enqueue_many", "free_keys", "holders"],
    )


def test_call_that_is_sent_again_finds_its_own_job() -> None:
    """The reply to the first one was lost with its connection."""
    assert placed([TAKEN, [], {"k": ID}])[0] == Placed([ID], [True])


def test_key_whose_holder_has_just_ended_is_asked_for_anew_three_times() -> None:
    free = [TAKEN, [], {}]
    added = Added({ID}, idle=False, lowest=1)
    assert placed([*free, *free, added])[0] == Placed([ID], [True])
    with pytest.raises(PgJobsError, match="taken and freed 3 times meanwhile; enqueue it again"):
        placed(free * 3)
