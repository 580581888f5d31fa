"""What becomes of a run that returned or raised, and what is kept of its exception."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgjobs.arguments.signature import Signature
from pgjobs.errors import ClaimLostError, SoftTimeoutError, TimeoutExceededError
from pgjobs.job import new_id
from pgjobs.running import outcome as outcomes
from pgjobs.running.outcome import Outcome
from pgjobs.running.run import Claim, Run, lost
from pgjobs.terms.retry import Cancel, Retry, RetryLater, Snooze
from tests.unit.ends import TracelessError, UntouchableError, nested

CREATED = datetime(2027, 1, 31, tzinfo=UTC)


def a_run(attempt: int = 1, retry: Retry | None = None, options: dict[str, Any] | None = None) -> Run:
    row = (new_id(), "mail.send", "default", 0, attempt, 3, 0, 60.0, CREATED, {"to": "ann"}, None, options)
    made = Run(row, Claim(new_id(), 1), 10.0, "pgjobs")
    made.task = SimpleNamespace(  # type: ignore[assignment]
        throws=(),
        retry=retry or Retry(3, backoff=[7], jitter=False),
        signature=Signature(lambda: None, "mail.send"),
    )
    return made


def summary(outcome: Outcome) -> tuple[str, str | None, float | None, int]:
    return outcome.ending, outcome.reason, outcome.delay_s, outcome.refund


class MailError(Exception):
    pass


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise ZeroDivisionError


def raised_from(place: int, error: Exception) -> Exception:
    def one() -> None:
        raise error

    def other() -> None:
        raise error

    try:
        (one, other)[place]()
    except Exception as caught:
        return caught
    raise AssertionError


# -- endings


@pytest.mark.parametrize(("value", "result"), [(None, None), (0, 0), ("", ""), ({"sent": [1]}, {"sent": [1]})])
def test_a_function_that_returns_has_succeeded(value: Any, result: Any) -> None:
    outcome = outcomes.returned(a_run(), value, 0.5)
    assert (*summary(outcome), outcome.seconds) == ("succeeded", None, None, 0, 0.5)
    assert (None if outcome.result is None else json.loads(outcome.result)) == result


@pytest.mark.parametrize("value", [object(), float("nan"), "\0"])
def test_a_result_that_cannot_be_stored_fails_the_job_at_once(value: object) -> None:
    outcome = outcomes.returned(a_run(attempt=1), value, 0.5)
    assert summary(outcome) == ("failed", "unstorable result", None, 0)
    assert outcome.failure is not None
    assert outcome.failure.message.startswith("result cannot be stored as JSON")


def test_a_model_that_cannot_be_made_into_json_fails_its_job_alone() -> None:
    class Model:
        def model_dump(self, mode: str) -> Any:
            raise RuntimeError(f"cannot be {mode}")

        @classmethod
        def model_json_schema(cls) -> dict[str, Any]:
            return {}

    def make() -> Any: ...

    make.__annotations__["return"] = Model
    made = a_run()
    made.task.signature = Signature(make, "make")
    outcome = outcomes.returned(made, Model(), 0.5)
    assert summary(outcome) == ("failed", "unstorable result", None, 0)
    assert outcome.failure is not None
    assert outcome.failure.message == "cannot be json"


@pytest.mark.parametrize("late", [SoftTimeoutError(1), TimeoutExceededError(1)])
def test_a_timeout_that_comes_while_the_result_is_made_into_json_is_none_of_the_results(
    late: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(run: Run, value: object) -> str:
        raise late

    monkeypatch.setattr(outcomes, "result_text", interrupted)
    with pytest.raises(type(late)):
        outcomes.returned(a_run(), "done", 0.5)


def test_a_completion_that_was_rolled_back_is_a_failed_attempt() -> None:
    made = a_run()
    made.completed = True
    outcome = outcomes.returned(made, "sent", 0.5)
    assert summary(outcome) == ("scheduled", "error", 7, 0)
    assert outcome.failure is not None
    assert outcome.failure.exception == "pgjobs.errors.CompletionRolledBackError"


@pytest.mark.parametrize("end", [outcomes.raised, outcomes.returned])
@pytest.mark.parametrize("attempt", [1, 3])
def test_a_snooze_gives_the_attempt_back(end: Any, attempt: int) -> None:
    outcome = end(a_run(attempt), Snooze("10m"), 0.5)
    assert summary(outcome) == ("scheduled", "snoozed", 600, 1)
    assert outcome.failure is None


@pytest.mark.parametrize("end", [outcomes.raised, outcomes.returned])
def test_a_job_can_cancel_itself(end: Any) -> None:
    outcome = end(a_run(), Cancel("no such user"), 0.5)
    assert summary(outcome) == ("cancelled", "no such user", None, 0)
    assert outcome.failure is None


@pytest.mark.parametrize("error", [ZeroDivisionError, SystemExit])
def test_what_has_no_text_ends_its_run_alone(error: type[BaseException]) -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise error

    reason: Any = MuteError()
    said = f"<its text cannot be shown: {error.__name__}>"
    assert summary(outcomes.raised(a_run(), Cancel(reason), 0.5)) == ("cancelled", said, None, 0)
    outcome = outcomes.raised(a_run(3), MuteError(), 0.5)
    assert outcome.failure is not None
    assert outcome.failure.message == said


@pytest.mark.parametrize(
    ("attempt", "policy", "error", "expected"),
    [
        (1, {}, ValueError(), ("scheduled", 7)),
        (2, {}, ValueError(), ("scheduled", 9)),
        (3, {}, ValueError(), ("failed", None)),
        (4, {}, ValueError(), ("failed", None)),
        (1, {"on": (OSError,)}, ValueError(), ("failed", None)),
        (1, {"not_on": (ValueError,)}, ValueError(), ("failed", None)),
        (1, {"on": (OSError,)}, ConnectionError(), ("scheduled", 7)),
        (1, {"on": (OSError,)}, RetryLater(30), ("scheduled", 30)),
        (1, {"not_on": (Exception,)}, RetryLater(0), ("scheduled", 0)),
        (3, {}, RetryLater(30), ("failed", None)),
        (1, {}, KeyboardInterrupt(), ("scheduled", 7)),
    ],
)
def test_a_failed_attempt_is_followed_by_another_while_the_policy_allows_it(
    attempt: int, policy: dict[str, Any], error: BaseException, expected: tuple[str, float | None]
) -> None:
    outcome = outcomes.raised(a_run(attempt, Retry(3, [7, 9], jitter=False, **policy)), error, 0.5)
    assert (outcome.ending, outcome.delay_s) == expected
    assert (outcome.reason, outcome.refund, outcome.seconds) == ("error", 0, 0.5)
    assert outcome.failure is not None


@pytest.mark.parametrize("rest", [None, -1, "soon", ZeroDivisionError(), SystemExit(1)])
def test_a_backoff_that_fails_is_noted_and_the_job_rests_as_usual(rest: Any) -> None:
    def backoff(attempt: int) -> Any:
        if isinstance(rest, BaseException):
            raise rest
        return rest

    outcome = outcomes.raised(a_run(1, Retry(3, backoff)), KeyError("own"), 0.5)
    assert (outcome.ending, outcome.reason) == ("scheduled", "error")
    assert outcome.delay_s is not None
    assert 0 <= outcome.delay_s <= 5
    assert outcome.failure is not None
    assert outcome.failure.message == "'own'"
    assert "the backoff of the task failed, and the job rests" in outcome.failure.traceback


def test_a_policy_of_the_jobs_own_goes_before_its_tasks() -> None:
    own = Retry(3, [42], jitter=False).document()
    assert outcomes.failed(a_run(options={"retry": own}), ValueError(), 0.5).delay_s == 42
    assert outcomes.failed(a_run(options={"keep": 5}), ValueError(), 0.5).delay_s == 7


def test_a_run_that_takes_its_process_down_is_tried_again_until_it_is_poison() -> None:
    ends = []
    for crashes in range(outcomes.MAX_CRASHES):
        run = a_run()
        run.crashes = crashes
        ends.append(summary(outcomes.crashed(run, MailError("gone"), 0.1)))
    assert ends == [("scheduled", "crash", 0.0, 1)] * (outcomes.MAX_CRASHES - 1) + [("failed", "poison", None, 1)]


def test_an_attempt_over_its_timeout_has_failed() -> None:
    cause = raised_from(0, MailError("cut off"))
    outcome = outcomes.timed_out(a_run(), 60.5, cause)
    assert summary(outcome) == ("scheduled", "timeout", 7, 0)
    assert outcome.failure is not None
    assert "timeout of 60 s" in outcome.failure.message
    assert "cut off" in outcome.failure.traceback
    assert outcomes.timed_out(a_run(attempt=3), 60.5).ending == "failed"


def test_a_run_that_is_stopped_goes_back_or_stays_cancelled() -> None:
    assert summary(outcomes.released(a_run())) == ("released", None, None, 0)
    assert summary(outcomes.cancelled(a_run(), 0.5)) == ("cancelled", "cancelled", None, 0)


@pytest.mark.parametrize(("begun", "wait_s"), [(12.5, 2.5), (10.0, 0.0), (0.0, 0.0)])
def test_a_run_waits_from_its_arrival_to_its_start(begun: float, wait_s: float) -> None:
    made = a_run()
    made.begun = begun
    assert outcomes.released(made).wait_s == wait_s


def test_a_lost_claim_is_told_by_its_job() -> None:
    made = a_run()
    error = lost(made)
    assert isinstance(error, ClaimLostError)
    assert error.job_id == made.id


def test_no_argument_shows_when_a_run_is_printed() -> None:
    made = a_run()
    assert repr(made) == f"<Run {made.id} mail.send attempt 1>"


# -- failures


@pytest.mark.parametrize(
    ("error", "name", "message"),
    [
        (ValueError("no user 7"), "ValueError", "no user 7"),
        (MailError(), f"{__name__}.MailError", ""),
        (KeyError("to"), "KeyError", "'to'"),
        (ValueError("a\0b\udc80"), "ValueError", r"a\0b\udc80"),
        (UnspeakableError(), f"{__name__}.UnspeakableError", "<its text cannot be shown: ZeroDivisionError>"),
    ],
)
def test_an_exception_is_described_in_texts_that_can_be_stored(error: Exception, name: str, message: str) -> None:
    failure = outcomes.describe(raised_from(0, error))
    assert (failure.exception, failure.message) == (name, message)
    assert "in one\n" in failure.traceback
    assert "\0" not in failure.traceback.encode().decode()


def test_the_fingerprint_tells_kinds_and_places_apart_but_not_messages() -> None:
    def of(place: int, error: Exception) -> str:
        return outcomes.describe(raised_from(place, error)).fingerprint

    same = of(0, ValueError("user 7"))
    assert same == of(0, ValueError("user 8"))
    assert len({same, of(1, ValueError("user 7")), of(0, MailError("user 7"))}) == 3


def test_an_exception_that_was_never_raised_can_be_described() -> None:
    failure = outcomes.describe(MailError("down"))
    assert failure.message == "down"
    assert failure.traceback == "tests.unit.test_outcome.MailError: down\n"


@pytest.mark.parametrize("folder", ["/usr/lib/pgjobs/worker/", "C:\\lib\\pgjobs\\worker\\"])
def test_the_workers_own_frames_are_left_out_of_a_traceback(folder: str) -> None:
    scope: dict[str, Any] = {"job": lambda: raised_from(0, MailError("down")), "caught": []}
    source = "def execute(job):\n    raise job()\n"
    exec(compile(source, f"{folder}executor.py", "exec"), scope)
    with pytest.raises(MailError) as caught:
        scope["execute"](scope["job"])
    inside = caught.value.__traceback__
    assert inside is not None
    error = caught.value.with_traceback(inside.tb_next)
    failure = outcomes.describe(error)
    assert "executor.py" not in failure.traceback
    assert "in one\n" in failure.traceback


@settings(deadline=None)
@given(st.text(st.characters() | st.sampled_from("\0\ud800"), max_size=50))
def test_a_stored_text_has_nothing_that_postgresql_refuses(text: str) -> None:
    stored = outcomes.storable(text)
    assert "\0" not in stored
    assert stored.encode().decode() == stored
    if text.isprintable():
        assert stored == text


@pytest.mark.parametrize("length", [99_999, 100_000, 100_001, 500_000])
def test_a_long_text_keeps_its_beginning_and_its_end(length: int) -> None:
    text = "<" + "x" * (length - 2) + ">"
    stored = outcomes.storable(text)
    assert (stored == text) == (length <= outcomes.MAX_TEXT)
    assert len(stored) <= outcomes.MAX_TEXT + 10
    assert (stored[0], stored[-1]) == ("<", ">")


def test_a_soft_timeout_is_found_however_deep_it_is() -> None:
    outcome = outcomes.raised(a_run(), nested(SoftTimeoutError(1)), 0.5)
    assert (outcome.reason, outcome.failure is not None) == ("soft timeout", True)
    assert outcomes.raised(a_run(), nested(MailError()), 0.5).reason == "error"
    shared: Exception = MailError()
    for _ in range(100):
        shared = ExceptionGroup("", [shared, shared])
    assert not outcomes.is_soft(shared), "each group is looked into once"


def test_an_exception_whose_attributes_raise_is_described_all_the_same() -> None:
    failure = outcomes.describe(raised_from(0, TracelessError("gone")), (TracelessError,))
    assert (failure.exception, failure.message, failure.expected) == ("tests.unit.ends.TracelessError", "gone", True)
    assert failure.traceback


def test_an_attempt_that_cannot_be_told_says_so_and_is_tried_again() -> None:
    outcome = outcomes.untold(a_run(), UntouchableError(), 0.5)
    assert summary(outcome) == ("scheduled", "error", 7, 0)
    assert outcome.failure is not None
    assert outcome.failure.message == "the attempt ended with what cannot be told: UntouchableError"
    late = a_run()
    late.overdue = True
    assert summary(outcomes.untold(late, UntouchableError(), 0.5)) == ("scheduled", "timeout", 7, 0)


def test_a_reason_and_the_name_of_an_exception_are_stored_as_postgresql_can_hold_them() -> None:
    broken = "caf\udce9\0"
    outcome = Outcome(a_run(), "scheduled", 0.0, reason=broken)
    assert outcome.reason == r"caf\udce9\0"
    assert outcomes.unstarted(a_run(), OSError(broken)).reason == r"cannot be started: caf\udce9\0"
    failure = outcomes.describe(type("OwnError", (Exception,), {"__module__": broken})(broken))
    assert failure.exception == r"caf\udce9\0.OwnError"
    assert failure.message == r"caf\udce9\0"
