"""How long a failed job rests, and whether it is tried again."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgjobs.errors import OptionError
from pgjobs.terms.retry import Backoff, Cancel, Retry, RetryLater, Snooze, Steer

ATTEMPTS = st.integers(1, 32_767)
RESTS = st.floats(0, 1e6) | st.timedeltas(timedelta(0), timedelta(days=30)) | st.sampled_from(["250ms", "10m", "1h30m"])
STORABLE = RESTS | st.lists(RESTS, min_size=1, max_size=5) | st.lists(RESTS, min_size=1, max_size=5).map(tuple)
BACKOFFS = STORABLE | st.floats(0, 1e4).map(lambda rest: lambda attempt: rest * attempt)


@settings(deadline=None)
@given(BACKOFFS, st.floats(0, 1e5), ATTEMPTS)
def test_no_rest_is_longer_than_the_cap(backoff: Backoff, cap: float, attempt: int) -> None:
    assert 0 <= Retry(backoff=backoff, cap=cap).rest_s(attempt) <= cap
    assert 0 <= Retry(backoff=backoff, cap=cap, jitter=False).rest_s(attempt) <= cap


@settings(deadline=None)
@given(BACKOFFS, ATTEMPTS)
def test_jitter_only_shortens_a_rest(backoff: Backoff, attempt: int) -> None:
    whole = Retry(backoff=backoff, jitter=False).rest_s(attempt)
    assert 0 <= Retry(backoff=backoff).rest_s(attempt) <= whole


def test_jitter_draws_evenly_from_0_to_the_rest() -> None:
    retry = Retry(backoff=[100])
    quarters = [int(retry.rest_s(1) // 25) for _ in range(2000)]
    assert all(400 < quarters.count(quarter) < 600 for quarter in range(4))


def test_jobs_that_failed_together_do_not_come_back_together_by_default() -> None:
    assert len({Retry().rest_s(3) for _ in range(100)}) > 90


@settings(deadline=None)
@given(st.floats(0.001, 10), st.integers(1, 15))
def test_a_backoff_doubles(base: float, attempt: int) -> None:
    retry = Retry(backoff=base, cap="100d", jitter=False)
    assert retry.rest_s(1) == base
    assert retry.rest_s(attempt + 1) == 2 * retry.rest_s(attempt)


@settings(deadline=None)
@given(st.lists(st.floats(0, 3600), min_size=1, max_size=6), ATTEMPTS)
def test_a_list_of_rests_repeats_its_last(rests: list[float], attempt: int) -> None:
    retry = Retry(backoff=rests, jitter=False)
    assert retry.rest_s(attempt) == (rests[attempt - 1] if attempt <= len(rests) else rests[-1])


def test_a_function_is_asked_with_the_number_of_the_attempt_that_failed() -> None:
    retry = Retry(backoff=lambda attempt: f"{attempt}m", jitter=False)
    assert [retry.rest_s(attempt) for attempt in (1, 2, 3)] == [60, 120, 180]


@pytest.mark.parametrize("rest", [-1, None, "soon", float("nan")])
def test_a_function_that_returns_no_duration_is_told(rest: Any) -> None:
    with pytest.raises(OptionError, match="backoff is"):
        Retry(backoff=lambda _: rest).rest_s(1)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"max_attempts": 0}, "max_attempts is 0"),
        ({"max_attempts": -1}, "max_attempts is -1"),
        ({"max_attempts": 32_768}, "max_attempts is 32768"),
        ({"max_attempts": True}, "max_attempts is True"),
        ({"backoff": []}, "empty list"),
        ({"backoff": [1, -1]}, "backoff is -1"),
        ({"backoff": ["1m", "soon"]}, "backoff is 'soon'"),
        ({"backoff": -5}, "backoff is -5"),
        ({"backoff": "1"}, "backoff is '1'"),
        ({"cap": -1}, "cap is -1"),
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(OptionError, match=problem):
        Retry(**options)


@pytest.mark.parametrize(("limit", "stored"), [(1, 1), (32_767, 32_767), (None, 32_767)])
def test_attempts_without_a_limit_are_stored_as_the_largest_number(limit: int | None, stored: int) -> None:
    assert Retry(limit).attempts == stored


@pytest.mark.parametrize(
    ("on", "not_on", "error", "allowed"),
    [
        ((), (), ValueError(), True),
        ((OSError,), (), ConnectionError(), True),
        ((OSError,), (), ValueError(), False),
        ((), (ValueError,), UnicodeError(), False),
        ((), (ValueError,), OSError(), True),
        ((OSError,), (ConnectionError,), ConnectionResetError(), False),
        ((OSError,), (ConnectionError,), FileNotFoundError(), True),
    ],
)
def test_the_exception_decides_on_another_attempt(
    on: tuple[type[Exception], ...], not_on: tuple[type[Exception], ...], error: Exception, allowed: bool
) -> None:
    assert Retry(on=on, not_on=not_on).allows(error) is allowed


@settings(deadline=None)
@given(st.integers(1, 32_767), STORABLE, st.floats(0, 1e6), st.lists(ATTEMPTS, min_size=1, max_size=9), st.booleans())
def test_a_stored_policy_rests_as_long(
    limit: int, backoff: Backoff, cap: float, attempts: list[int], jitter: bool
) -> None:
    stored = json.loads(json.dumps(Retry(limit, backoff, cap, jitter).document()))
    read = Retry.from_document(stored, limit)
    assert (read.attempts, read.jitter) == (limit, jitter)
    whole, again = (
        Retry(backoff=backoff, cap=cap, jitter=False),
        Retry(backoff=read.backoff, cap=read.cap, jitter=False),
    )
    assert [again.rest_s(attempt) for attempt in attempts] == [whole.rest_s(attempt) for attempt in attempts]


@pytest.mark.parametrize("options", [{"backoff": float}, {"on": (OSError,)}, {"not_on": (OSError,)}])
def test_what_only_a_task_can_have_is_not_stored(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="put it on the task"):
        Retry(**options).document()


@pytest.mark.parametrize(
    ("steer", "delay_s"), [(Snooze("10m"), 600), (RetryLater(timedelta(hours=1)), 3600), (RetryLater(), 0)]
)
def test_steering_takes_durations(steer: Snooze | RetryLater, delay_s: float) -> None:
    assert isinstance(steer, Steer)
    assert steer.delay_s == delay_s


@pytest.mark.parametrize("kind", [Snooze, RetryLater])
def test_steering_for_no_length_of_time_is_refused(kind: Any) -> None:
    with pytest.raises(OptionError, match="delay is"):
        kind(-1)


def test_steering_says_why() -> None:
    assert str(RetryLater(5, "rate limit")) == "rate limit"
    assert str(RetryLater(5)) == "retry in 5"
    assert str(Snooze("10m")) == "snooze for 10m"
    assert Cancel("no such user").reason == str(Cancel("no such user")) == "no such user"
