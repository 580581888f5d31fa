"""What cannot be meant is refused where it is said, with a remedy, and nothing is written."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import psycopg
import pytest

from pgjobs import (
    ConfigurationError,
    EncodingError,
    Keep,
    Middleware,
    OptionError,
    PgJobs,
    Retry,
    TaskError,
    Unique,
    Webhook,
)
from pgjobs.known import ELSEWHERE, NOT_YET
from pgjobs.options import OF_ONE_JOB, Options, TaskOptions


class Mute:
    """What has no text."""

    def __repr__(self) -> str:
        raise RuntimeError("no text")


WRONG: Final[dict[str, Any]] = {
    "yes": True, "negative": -1, "fraction": 1.5, "NaN": math.nan, "infinite": math.inf, "huge": 10**400,
    "endless": 10**5_000, "word": "soon", "empty": "", "NUL": "a\0b", "surrogate": "\ud800", "letters": "żółć 🎉",
    "document": "x" * 2_000_000, "list": [1], "none": [], "dict": {"a": object()}, "bytes": b"x", "mute": Mute(),
    "date": date(2030, 1, 1), "naive": datetime(2030, 1, 1), "negative time": timedelta(days=-1),
    "decimal": Decimal("1.5"), "names": {"a"}, "function": lambda *a, **k: 1, "class": int,
}  # fmt: skip
"""What is given in the place of something else."""

MEANT: Final[dict[str, set[str]]] = {
    "queue": {"word"},
    "priority": {"negative"},
    "lifo": {"yes"},
    "delay": {"fraction"},
    "ttl": {"fraction"},
    "deadline": {"fraction"},
    "timeout": {"fraction"},
    "soft_timeout": {"fraction"},
    "unique": {"yes", "function", "class"},
    "idempotency_key": {"word", "letters"},
    "result_ttl": {"fraction"},
    "ignore_result": {"yes"},
    "tags": {"none", "names"},
    "webhook": {"none"},
    "capture_logs": {"negative", "huge", "endless"},
    "transaction": {"function", "class"},
}
"""Which of that an option takes; the others take nothing of it."""


def count(conn: psycopg.Connection[Any]) -> int:
    row = conn.execute("SELECT count(*) FROM pgjobs.jobs").fetchone()
    assert row is not None
    return int(row[0])


def refusals(make: Callable[[Any], object]) -> tuple[set[str], list[str]]:
    """Which values are taken, and what is said of the others."""
    taken, said = set[str](), list[str]()
    for name, value in WRONG.items():
        try:
            make(value)
        except (OptionError, EncodingError, TaskError) as error:
            said.append(str(error))
        else:
            taken.add(name)
    return taken, said


@pytest.mark.parametrize("option", sorted(Options.__annotations__.keys() - {"here", "context", "meta"}))
def test_option_that_cannot_be_meant_is_refused_in_words(
    option: str, jobs: PgJobs, conn: psycopg.Connection[Any]
) -> None:
    task = jobs.task(name="t")(lambda n: n)

    def bulk(value: Any) -> None:
        task.using(**{option: value}).enqueue_many([(1,)])

    def one(value: Any) -> None:
        task.using(**{option: value}).enqueue(1)

    for way in (one, bulk) if option not in OF_ONE_JOB else (one,):
        taken, said = refusals(way)
        assert taken == MEANT.get(option, set())
        words = {"job_id": ["job id"], "retry": ["retry", "max_attempts"]}.get(option, [option])
        assert [text for text in said if not any(word in text for word in words) or len(text) >= 400] == []
        if option != "unique":  # of equal ones a second way makes none
            assert count(conn) == len(taken)
        conn.execute("DELETE FROM pgjobs.jobs")


@pytest.mark.parametrize("option", ["meta", "context"])
def test_object_that_is_none_is_refused(option: str, jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    task = jobs.task(name="t")(lambda n: n)
    taken, said = refusals(lambda value: task.using(**{option: value}).enqueue(1))
    assert taken == set()
    assert all("give a dict" in text or "cannot be stored as JSON" in text for text in said)
    assert count(conn) == 0


def test_here_is_on_or_off(jobs: PgJobs) -> None:
    task = jobs.task(name="t")(lambda n: n)
    with pytest.raises(OptionError, match="here is 'no'; give True or False"):
        task.using(here="no")


@pytest.mark.parametrize("option", sorted(TaskOptions.__annotations__.keys() - Options.__annotations__.keys()))
def test_option_of_a_task_that_cannot_be_meant_is_refused(option: str, jobs: PgJobs) -> None:
    def register(value: Any) -> None:
        jobs.tasks.clear()
        jobs.task(name="t", **{option: value})(lambda session: session)

    taken, said = refusals(register)
    meant = {"huge", "endless"} if option == "results_over" else MEANT.get(option, set())
    assert taken == meant
    assert all(len(text) < 400 for text in said)


@pytest.mark.parametrize(
    ("make", "meant"),
    [
        (Retry, set[str]()),
        (lambda value: Retry(jitter=value), {"yes"}),
        (lambda value: Retry(cap=value), {"fraction"}),
        (lambda value: Retry(for_=value), {"fraction"}),
        (lambda value: Retry(backoff="linear", base=value), {"fraction"}),
        (lambda value: Retry(on=value), set[str]()),
        (lambda value: Retry(rules=value), set[str]()),
        (lambda value: Unique(scope=value), set[str]()),
        (lambda value: Unique(period=value), {"fraction"}),
        (lambda value: Keep(failed=value), {"fraction"}),
        (Webhook, set[str]()),
        (lambda value: Webhook("https://[::1", on=value), set[str]()),
        (lambda value: Webhook("https://example.com", on=value), set[str]()),
    ],
)
def test_policy_that_cannot_be_meant_is_refused(make: Callable[[Any], object], meant: set[str]) -> None:
    taken, said = refusals(make)
    assert taken == meant
    assert all(len(text) < 400 for text in said)


def test_no_retry_is_not_retry_without_end(jobs: PgJobs) -> None:
    with pytest.raises(OptionError, match="where 1 means no second one"):
        jobs.task(retry=None)(lambda: None)  # type: ignore[call-overload]


def test_number_of_attempts_that_is_none_is_refused_by_the_word_that_was_used(jobs: PgJobs) -> None:
    task = jobs.task(name="t", retry=Retry(3))(lambda: None)
    for attempts in (0, -1, True):
        with pytest.raises(OptionError, match=f"^retry is {attempts}; give the number of attempts"):
            task.using(retry=attempts)


def test_time_to_wait_that_is_none_is_refused(jobs: PgJobs) -> None:
    for ttl in (0, "0s", timedelta()):
        with pytest.raises(OptionError, match="ttl is 0, and such a job could never start; give a length of time"):
            jobs.task(ttl=ttl)(lambda: None)
    jobs.task(ttl=0, on_expiry="run")(lambda: None)


# -- names


@pytest.mark.parametrize("name", sorted(ELSEWHERE.keys() - {"max_age"}))
def test_word_of_another_queue_is_translated(name: str, jobs: PgJobs) -> None:
    task = jobs.task(name="t")(lambda: None)
    says = f"option '{name}' is not known; is it {ELSEWHERE[name].partition('(')[0]}"
    with pytest.raises(OptionError, match=says):
        jobs.task(**{name: 1})(lambda: None)
    with pytest.raises(OptionError, match=says):
        task.using(**{name: 1})
    with pytest.raises(OptionError, match=says):
        jobs.using(**{name: 1}).enqueue("t")


@pytest.mark.parametrize("name", sorted(NOT_YET))
def test_what_there_is_not_is_said_to_be_none(name: str, jobs: PgJobs) -> None:
    with pytest.raises(OptionError, match=f"option '{name}' is not known; {re.escape(NOT_YET[name])}$"):
        jobs.task(**{name: 1})(lambda: None)
    with pytest.raises(OptionError, match=re.escape(NOT_YET[name])):
        jobs.using(**{name: 1}).enqueue("t")


def test_slip_of_the_pen_is_put_right(jobs: PgJobs) -> None:
    with pytest.raises(OptionError, match=r"option 'que' is not known; is it queue\?"):
        jobs.task(que="mail")(lambda: None)  # type: ignore[call-overload]
    with pytest.raises(OptionError, match=r"'to' is not known; arguments of the task go to enqueue"):
        jobs.task(name="t")(lambda: None).using(to="ann")  # type: ignore[call-arg]


@pytest.mark.parametrize("name", ["executor", "capture", "nice", "throws", "encrypt", "capture_logs", "results"])
def test_what_is_the_tasks_is_not_the_jobs(name: str, jobs: PgJobs) -> None:
    task = jobs.task(name="t")(lambda: None)
    with pytest.raises(OptionError, match=rf"{name} is a task's and not a job's; .* or register the function a second"):
        task.using(**{name: 1})


@pytest.mark.parametrize("name", ["a\0b", "\ud800", " ", "x" * 501, 5, b"x"])
def test_name_that_no_row_can_carry_is_refused(name: Any, jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    with pytest.raises(TaskError, match=r"the task's name (is|has)"):
        jobs.task(name=name)(lambda: None)
    if isinstance(name, str):
        with pytest.raises(TaskError, match=r"the task's name (is|has)"):
            jobs.enqueue(name)
    assert count(conn) == 0


def test_names_where_functions_and_lists_belong_are_refused(jobs: PgJobs) -> None:
    with pytest.raises(TaskError, match=r"'mail.send' is no function; write @jobs.task\(name=…\)"):
        jobs.task("mail.send")  # type: ignore[call-overload]
    with pytest.raises(OptionError, match="aliases is 'old'; give a list"):
        jobs.task(aliases="old")(lambda: None)


def test_function_that_yields_is_no_task(jobs: PgJobs) -> None:
    def pages() -> Any:
        yield 1

    async def apages() -> Any:
        yield 1

    for function in (pages, apages):
        with pytest.raises(OptionError, match="yields, and a job has one result; return a list"):
            jobs.task(name="t")(function)


def test_what_is_called_is_a_function(jobs: PgJobs) -> None:
    with pytest.raises(OptionError, match=r"5 is no function; write @jobs.on_dead above one"):
        jobs.on_dead(5)  # type: ignore[type-var]
    with pytest.raises(TypeError, match="int is not a connection that pgjobs knows; pass a psycopg connection"):
        jobs.task(name="t")(lambda: None).using(5).enqueue()


# -- what does not go together


def test_job_has_one_key(jobs: PgJobs) -> None:
    task = jobs.task(name="t", unique="n")(lambda n: n)
    with pytest.raises(OptionError, match="unique and idempotency_key are both given"):
        task.using(unique=True, idempotency_key="k")
    first = task.using(idempotency_key="k").enqueue(1)
    assert task.using(idempotency_key="other").enqueue(1).is_new, "the key of the call is the job's"
    assert task.using(idempotency_key="k").enqueue(2).id == first.id


def test_one_job_is_no_list_of_jobs(jobs: PgJobs) -> None:
    job = jobs.task(name="t")(lambda: None).enqueue()
    for call in (jobs.cancel, jobs.retry, jobs.delete, jobs.hold, jobs.wait):
        for one in (job, job.id, str(job.id), None):
            with pytest.raises(OptionError, match=r"is no list of jobs; write \[job\] for one"):
                call(one)  # type: ignore[arg-type]
    assert job.refresh().status == "queued"


def test_reason_is_a_text(jobs: PgJobs) -> None:
    job = jobs.task(name="t")(lambda: None).enqueue()
    for call in (job.cancel, job.hold, lambda reason: jobs.pause("mail", reason=reason)):
        for reason in ("a\0b", "\ud800", 5, {"a": 1}):
            with pytest.raises(OptionError, match=r"reason is .*; give a text"):
                call(reason)  # type: ignore[arg-type]
    assert job.refresh().status == "queued"


def test_moment_has_a_time_zone(jobs: PgJobs) -> None:
    for moment in (datetime(2030, 1, 1), date(2030, 1, 1), "tomorrow", 5):
        with pytest.raises(OptionError, match="pass an aware datetime"):
            jobs.pause("mail", until=moment)  # type: ignore[arg-type]
        with pytest.raises(OptionError, match="pass an aware datetime"):
            jobs.task(run_at=moment)(lambda: None)  # type: ignore[call-overload]
    assert jobs.task(run_at=datetime(2030, 1, 1, tzinfo=UTC))(lambda: None).row.run_at is not None


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"results": object()}, r"give an object with get\(job_id\)"),
        ({"results_over": -1}, "give a number of bytes"),
        ({"lifespan": 5}, "give a generator function"),
        ({"capture_logs": "loud"}, "give one of debug"),
        ({"capture_logs": 1.5}, "give one of debug"),
        ({"max_file_size": "10M"}, "max_file_size is '10M'; give a number of bytes"),
        ({"inline": "0"}, "inline is '0'; give True or False"),
        ({"context": ContextVar("locale")}, r"give a list, such as \[locale\]"),
        ({"context": [5]}, "5 cannot travel with jobs"),
    ],
)
def test_setting_of_an_application_is_refused_at_once(settings: Any, says: str) -> None:
    with pytest.raises(OptionError, match=says):
        PgJobs("postgresql://", **settings)


@pytest.mark.parametrize("middleware", [5, Middleware, lambda job: job])
def test_what_is_no_middleware_is_refused(middleware: Any) -> None:
    with pytest.raises(OptionError, match="give an object of a class that derives from"):
        PgJobs("postgresql://").use(middleware)


@pytest.mark.parametrize("secret", [5, b"x", ["a", 5], "whsec_", "whsec_!!!", "\ud800", {"a"}])
def test_secret_that_cannot_be_a_key_is_refused_and_not_shown(secret: Any) -> None:
    with pytest.raises(ConfigurationError, match="webhook") as refused:
        PgJobs("postgresql://", webhook_secret=secret)
    assert "!!!" not in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"concurrency": "x"}, "give 1 to 10,000 slots"),
        ({"max_jobs": "x"}, "give 1 or more"),
        ({"burst": "no"}, "burst is 'no'; give True or False"),
        ({"allow_shell": "no"}, "allow_shell is 'no'; give True or False"),
        ({"modules": "app.tasks"}, "give a list of names"),
        ({"queues": 5}, "queues are 5; give names"),
        ({"queues": [None]}, "give names"),
    ],
)
def test_setting_of_a_worker_is_refused_at_once(settings: Any, says: str, jobs: PgJobs) -> None:
    with pytest.raises(OptionError, match=says):
        jobs.worker(**settings)


@pytest.mark.parametrize("task", [5, "", "a\0", "\ud800", b"x", True, ["t"], int, lambda: 1])
def test_what_is_no_task_is_not_paused(task: Any, jobs: PgJobs) -> None:
    for steer in (jobs.pause, jobs.resume):
        with pytest.raises(TaskError):
            steer(task=task)
    assert jobs.pauses() == []


def test_function_is_paused_by_reference(jobs: PgJobs) -> None:
    jobs.pause(task=count)
    assert [pause.name for pause in jobs.pauses()] == [f"{__name__}:count"]
    assert jobs.resume(task=count)
