"""Ids of jobs, and what a status says."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from functools import reduce
from itertools import pairwise
from operator import and_, or_
from types import SimpleNamespace
from typing import Any
from unittest import mock
from uuid import RFC_4122, UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgjobs import job
from pgjobs.errors import OptionError
from pgjobs.job import Status, Template, as_id, new_id, new_ids

INSTANTS_NS = st.integers(0, 2**47 * 1_000_000)
NOISE = (1 << 62) - 1


def made_at(nanoseconds: int, count: int) -> list[UUID]:
    with mock.patch.object(job, "time", SimpleNamespace(time_ns=lambda: nanoseconds)):
        return [new_id()] if count == 1 else new_ids(count)


def milliseconds(made: UUID) -> int:
    return made.int >> 80


@settings(deadline=None)
@given(INSTANTS_NS, st.integers(1, 50))
def test_ids_are_uuids_of_version_7(now: int, count: int) -> None:
    ids = made_at(now, count)
    assert len(ids) == count
    assert {(made.version, made.variant) for made in ids} == {(7, RFC_4122)}


@settings(deadline=None, max_examples=50)
@given(INSTANTS_NS, st.integers(2, 5000))
def test_ids_made_together_ascend(now: int, count: int) -> None:
    ids = made_at(now, count)
    assert all(earlier < later for earlier, later in pairwise(ids))
    assert milliseconds(ids[-1]) - milliseconds(ids[0]) <= 2, "they run ahead of the clock"


@settings(deadline=None)
@given(INSTANTS_NS, st.sampled_from([1, 7]))
def test_an_id_begins_with_its_millisecond(now: int, count: int) -> None:
    assert milliseconds(made_at(now, count)[0]) == now // 1_000_000


@settings(deadline=None)
@given(INSTANTS_NS, st.integers(1_000, 10**12))
def test_an_id_made_a_microsecond_later_is_larger(now: int, later: int) -> None:
    assert made_at(now, 1) < made_at(now + later, 1)


@pytest.mark.parametrize("count", [1, 5])
def test_an_id_tells_the_time(count: int) -> None:
    before = time.time_ns() // 1_000_000
    made = new_id() if count == 1 else new_ids(count)[0]
    assert before <= milliseconds(made) <= time.time_ns() // 1_000_000


@pytest.mark.parametrize("together", [True, False])
def test_the_other_62_bits_of_an_id_are_noise(together: bool) -> None:
    ids = made_at(0, 500) if together else [made_at(0, 1)[0] for _ in range(500)]
    noise = [made.int & NOISE for made in ids]
    assert len(set(noise)) == 500
    assert (reduce(or_, noise), reduce(and_, noise)) == (NOISE, 0)


def test_no_ids_are_an_empty_list() -> None:
    assert new_ids(0) == []


@settings(deadline=None)
@given(st.uuids())
def test_an_id_is_a_uuid_or_its_text(value: UUID) -> None:
    assert as_id(value) == as_id(str(value)) == as_id(value.hex) == value


@pytest.mark.parametrize("value", ["", "7", "01890a5d-ac96-774b-bcce-b302099a805", "x" * 32, 7, None, b"x" * 16])
def test_what_is_no_uuid_is_refused(value: Any) -> None:
    with pytest.raises(OptionError, match="is not a UUID"):
        as_id(value)


def test_a_job_ends_in_four_ways() -> None:
    assert {status.value for status in Status if status.ended} == {"succeeded", "failed", "cancelled", "expired"}


@pytest.mark.parametrize(
    ("times", "waits"),
    [
        ({}, False),
        ({"ttl": timedelta(1)}, False),
        ({"delay": timedelta(1)}, True),
        ({"delay": timedelta(0)}, True),
        ({"run_at": datetime(2027, 1, 31, tzinfo=UTC)}, True),
    ],
)
def test_a_job_with_a_time_may_have_to_wait(times: dict[str, Any], waits: bool) -> None:
    assert Template("t", "default", 0, 5, None, **times).waits is waits
