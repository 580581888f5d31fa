"""How a run ended. Executors make outcomes; they never touch SQL."""

from __future__ import annotations

import hashlib
import traceback
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, TypedDict, cast

from pgjobs.arguments import codec
from pgjobs.config import DEFAULT_RESULT_TTL_S
from pgjobs.errors import (
    CompletionRolledBackError,
    DeadlinePassedError,
    EncodingError,
    SoftTimeoutError,
    TimeoutExceededError,
)
from pgjobs.running.run import Run, StoppedError
from pgjobs.terms.results import put
from pgjobs.terms.retry import Cancel, Retry, RetryLater, Snooze, Steer

Ending = Literal["succeeded", "failed", "scheduled", "cancelled", "released"]

MAX_CRASHES: Final = 3
"""After so many crashes a job is given up as poison."""

MAX_TEXT: Final = 100_000
"""Characters of a message or traceback that are kept."""


ROLLED_BACK: Final = f"{CompletionRolledBackError.__module__}.{CompletionRolledBackError.__qualname__}"
"""The name in the failure of a run that has completed in a transaction and returned, which no commit has followed."""

_TRACEBACK: Final[Any] = vars(BaseException)["__traceback__"]
"""Reads the traceback of any exception, also of one whose attributes cannot be asked for."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong in an attempt. expected: the task says that it throws such exceptions."""

    exception: str
    message: str
    traceback: str
    fingerprint: str
    expected: bool = False


class Usage(TypedDict):
    """What an attempt has used: seconds of CPU, with the programs that it has waited for, and memory at the most."""

    cpu_s: float
    max_rss_bytes: int


class Account(NamedTuple):
    """What is kept of an attempt beside its outcome: what it has used, and the last of what it has written."""

    usage: Usage | None
    output: str | None


class Outcome:
    """How a run ended.

    wait_s is the time in the buffer, seconds that of the run, delay_s the rest before the next attempt; None is none
    for one that is released, and for others as long as the job has waited. refund is 1 where the attempt does not
    count, crash where a crash does.
    """

    __slots__ = ("account", "crash", "delay_s", "ending", "failure", "reason", "refund", "result", "run", "seconds")

    def __init__(
        self,
        run: Run,
        ending: Ending,
        duration_s: float,
        *,
        result: str | None = None,
        reason: str | None = None,
        failure: Failure | None = None,
        delay_s: float | None = None,
        refund: int = 0,
        crash: int = 0,
    ) -> None:
        self.run = run
        self.ending: Ending = ending
        self.seconds = duration_s
        self.result = result
        self.reason = reason if reason is None else storable(reason)  # it may tell what an application's error says
        self.failure = failure
        self.delay_s = delay_s
        self.refund = refund
        self.crash = crash
        self.account: Account | None = None

    @property
    def status(self) -> str:
        """The word for it: its ending, but ``retried`` or ``snoozed`` where the job is scheduled again."""
        if self.ending != "scheduled":
            return self.ending
        return "snoozed" if self.failure is None else "retried"

    @property
    def wait_s(self) -> float:
        """Seconds between the claim's arrival and the start."""
        return max(0.0, self.run.begun - self.run.received)


def returned(run: Run, value: object, duration_s: float) -> Outcome:
    """The outcome of a function that returned."""
    if run.completed:
        error = CompletionRolledBackError(
            "the transaction that carried complete() was rolled back; commit it before the task returns"
        )
        return failed(run, error, duration_s)
    if value is None:
        return Outcome(run, "succeeded", duration_s)
    if isinstance(value, Steer):
        return raised(run, value, duration_s)
    try:
        return Outcome(run, "succeeded", duration_s, result=result_text(run, value))
    except (SoftTimeoutError, TimeoutExceededError, StoppedError):  # of the run, which it had just returned from
        raise
    except BaseException as error:  # whatever a model of the application raises when it is made into JSON
        return unstorable(run, error, duration_s)


def result_text(run: Run, value: object) -> str | None:
    """A result as the row holds it; one that is not JSON, as its annotation says.

    Raises:
        EncodingError: it cannot be stored.
    """
    if value is None or (run.options is not None and "ignore_result" in run.options):
        return None
    try:
        return run.task.signature.dumps(value, what="result")
    except EncodingError:
        plain = run.task.signature.result_to_json(value)
        if plain is value:
            raise
        return run.task.signature.dumps(plain, what="result")


def stored(run: Run, value: object) -> codec.Json:
    """A result, or what stands for it, where its task has a storage or ignores it.

    Raises:
        ResultStorageError: the storage has failed.
        EncodingError: it cannot be stored.
    """
    task = run.task
    if value is None or isinstance(value, Steer) or task.results is None:
        return value if isinstance(value, Steer) or not task.options.get("ignore_result") else None
    if task.options.get("ignore_result") or (run.options is not None and "ignore_result" in run.options):
        return None
    jobs = run.claim.desk.jobs
    keep_s = (run.options or {}).get("keep") or (DEFAULT_RESULT_TTL_S if jobs is None else jobs.result_ttl_s)
    plain = task.signature.result_to_json(value)
    text = task.signature.dumps(plain, what="result", limit=None)
    return put(task.results, run.id, plain, text, task.results_over, keep_s)


def raised(run: Run, error: BaseException, duration_s: float) -> Outcome:
    """The outcome of a function that raised: steering is obeyed, all else is a failure."""
    match error:
        case Snooze():
            return Outcome(run, "scheduled", duration_s, reason="snoozed", delay_s=error.delay_s, refund=1)
        case Cancel():
            return Outcome(run, "cancelled", duration_s, reason=_safe_text(error.reason))
        case RetryLater():
            return failed(run, error, duration_s, delay_s=error.delay_s)
        case _ if is_soft(error):
            return failed(run, error, duration_s, reason="soft timeout")
        case _:
            return failed(run, error, duration_s)


def is_soft(error: BaseException) -> bool:
    """Whether it is a soft timeout, or a group in which there is one, however deep."""
    left = [error]
    seen: set[int] = set()
    while left:
        inner = left.pop()
        if isinstance(inner, SoftTimeoutError):
            return True
        if isinstance(inner, BaseExceptionGroup):
            group = cast("BaseExceptionGroup[BaseException]", inner)
            left += () if id(group) in seen else group.exceptions
            seen.add(id(group))
    return False


def failed(
    run: Run, error: BaseException, duration_s: float, *, reason: str = "error", delay_s: float | None = None
) -> Outcome:
    """The outcome of a failed attempt: another one after a rest while the policy allows it, else the end."""
    rest_s: float | None = None
    if run.attempt < run.max_attempts:
        rest_s = delay_s if delay_s is not None else _rest_after(run, error)
    failure = describe(error, run.task.throws)
    if rest_s is None:
        return Outcome(run, "failed", duration_s, reason=reason, failure=failure)
    if (over := run.is_over(rest_s)) is not None:
        return Outcome(run, "failed", duration_s, reason=over, failure=failure)
    return Outcome(run, "scheduled", duration_s, reason=reason, failure=failure, delay_s=rest_s)


def _rest_after(run: Run, error: BaseException) -> float | None:
    """The rest that the policy asks for; the usual one where its function fails, which must not take a worker along."""
    try:
        return run.retry.rest_after(error, run.attempt)
    except StoppedError:
        raise
    except BaseException as broken:
        said = f"{type(broken).__name__}: {_safe_text(broken)}"
        error.add_note(f"the backoff of the task failed, and the job rests as if it had none of its own: {said}")
        return Retry().rest_s(run.attempt)


def too_late(run: Run) -> Outcome | None:
    """The outcome of a run that may not begin, since its job's deadline has passed; else its timeout ends with that."""
    left_s = run.left_s
    if left_s == float("inf"):
        return None
    if left_s <= 0:
        failure = describe(DeadlinePassedError())
        return Outcome(run, "failed", 0.0, reason="deadline passed", failure=failure, refund=1)
    run.timeout_s = left_s if run.timeout_s is None else min(run.timeout_s, left_s)
    return None


def crashed(run: Run, error: BaseException, duration_s: float) -> Outcome:
    """The outcome of a run that took its process down: no attempt, but a crash; so many, and the job is poison."""
    failure = describe(error)
    if run.crashes + 1 >= MAX_CRASHES:
        return Outcome(run, "failed", duration_s, reason="poison", failure=failure, refund=1, crash=1)
    return Outcome(run, "scheduled", duration_s, reason="crash", failure=failure, delay_s=0.0, refund=1, crash=1)


def timed_out(run: Run, duration_s: float, cause: BaseException | None = None) -> Outcome:
    """The outcome of an attempt that was over its timeout, however it took that."""
    error = TimeoutExceededError(run.timeout_s)
    error.__cause__ = cause
    return failed(run, error, duration_s, reason="timeout")


def outcome_of(run: Run, error: BaseException) -> Outcome | None:
    """What becomes of a run whose code raises, for who looks on; None where it is stopped from outside."""
    if run.overdue:
        return timed_out(run, 0.0, error)
    return raised(run, error, 0.0) if isinstance(error, Exception) else None


def untold(run: Run, error: BaseException, duration_s: float) -> Outcome:
    """The outcome of an attempt of which no other can be made: what it raised has code of its own, which raises too."""
    if run.overdue:
        return timed_out(run, duration_s)
    plain = RuntimeError(f"the attempt ended with what cannot be told: {type(error).__name__}")
    return failed(run, plain, duration_s)


def cancelled(run: Run, duration_s: float) -> Outcome:
    """The outcome of a run that was stopped because its job was cancelled."""
    return Outcome(run, "cancelled", duration_s, reason="cancelled")


def unstorable(run: Run, error: BaseException, duration_s: float) -> Outcome:
    """The outcome of a function whose result cannot be stored: the job failed, since its work has been done."""
    return Outcome(run, "failed", duration_s, reason="unstorable result", failure=describe(error))


def released(run: Run, away_s: float | None = None) -> Outcome:
    """The outcome of a run that is stopped from outside: the job goes back to its place, in away_s seconds if given."""
    return Outcome(run, "released", 0.0, delay_s=away_s)


def unstarted(run: Run, error: BaseException) -> Outcome:
    """The outcome of a run for which there is no thread or process: its job rests for as long as it has waited."""
    return Outcome(run, "scheduled", 0.0, reason=f"cannot be started: {_safe_text(error)}", refund=1)


def describe(error: BaseException, expected: tuple[type[BaseException], ...] = ()) -> Failure:
    """What the failures table keeps of an exception, in texts that PostgreSQL can hold."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    trace = _user_part(error)
    frames = traceback.extract_tb(trace)
    error_text = _safe_text(error)
    try:
        lines = traceback.format_exception(kind, error, trace)
        text = "".join(lines)
    except StoppedError:
        raise
    except BaseException as broken:  # an exception whose __str__ or __cause__ raises
        text = f"{name}: {error_text} (its traceback cannot be shown: {type(broken).__name__})"
    place = f"{frames[-1].filename}:{frames[-1].name}" if frames else ""
    fingerprint = hashlib.sha256(f"{name}|{place}".encode(errors="replace")).hexdigest()[:16]
    return Failure(storable(name), storable(error_text), storable(text), fingerprint, issubclass(kind, expected))


def _user_part(error: BaseException) -> Any:
    """The traceback without the worker's own frames at its head."""
    trace = _TRACEBACK.__get__(error)
    while trace is not None and "/pgjobs/worker/" in trace.tb_frame.f_code.co_filename.replace("\\", "/"):
        trace = trace.tb_next
    return trace


def _safe_text(value: object) -> str:
    try:
        return str(value)
    except StoppedError:
        raise
    except BaseException as broken:
        return f"<its text cannot be shown: {type(broken).__name__}>"


def storable(text: str) -> str:
    """A text without what PostgreSQL refuses, cut to a bearable length."""
    clean = text.replace("\0", "\\0").encode(errors="backslashreplace").decode()
    return clean if len(clean) <= MAX_TEXT else f"{clean[: MAX_TEXT // 2]}\n[…]\n{clean[-MAX_TEXT // 2 :]}"
