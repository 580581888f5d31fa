"""What follows a failure: policies, callbacks, retries of many jobs, failures by what they have in common."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from pgjobs import OptionError, PgJobs, Retry, Status
from tests.support import eventually

pytestmark = pytest.mark.server


def drain(jobs: PgJobs) -> None:
    jobs.worker(burst=True).run()


class NotFoundError(Exception):
    pass


class NotEvenThisError(NotFoundError):
    pass


# -- policies


@pytest.mark.parametrize(
    ("policy", "rests"),
    [
        (Retry(backoff="exponential"), [5, 10, 20]),
        (Retry(backoff="exponential", base="1m", cap=100), [60, 100, 100]),
        (Retry(backoff="linear"), [5, 10, 15]),
        (Retry(backoff="linear", base=2, cap=5), [2, 4, 5]),
        (Retry(backoff="10s"), [10, 20, 40]),
        (Retry(backoff=[1, "2s"]), [1, 2, 2]),
        (Retry(backoff=timedelta(seconds=3)), [3, 6, 12]),
        (Retry(backoff=lambda attempt: attempt**3), [1, 8, 27]),
    ],
)
def test_backoff_grows_as_it_is_named_and_is_kept_so(policy: Retry, rests: list[float]) -> None:
    policies = [policy]
    if not callable(policy.backoff):
        policies.append(Retry.from_document(policy.document(), 5))
    for each in policies:
        assert [max(each.rest_s(attempt) for _ in range(400)) for attempt in (1, 2, 3)] == pytest.approx(rests, rel=0.2)


def test_linear_policy_reads_as_an_exponential_one_where_linear_is_not_known() -> None:
    assert Retry(backoff="linear", base=7).document() == {
        "backoff": 7.0, "cap": 3600.0, "jitter": True, "growth": "linear",
    }  # fmt: skip


def test_rule_of_the_nearest_class_goes_before_all_else() -> None:
    policy = Retry(
        5,
        [100],
        jitter=False,
        not_on=(OSError,),
        rules={OSError: Retry(2, [1], jitter=False), ConnectionError: Retry(9, [7], jitter=False), KeyError: None},
    )
    assert policy.rest_after(ConnectionResetError(), 4) == 7
    assert policy.rest_after(FileNotFoundError(), 1) == 1
    assert policy.rest_after(FileNotFoundError(), 2) is None
    assert policy.rest_after(KeyError(), 1) is None
    assert policy.rest_after(IndexError(), 1) == 100


def test_rules_decide_which_job_is_tried_again(jobs: PgJobs) -> None:
    @jobs.task(retry=Retry(3, [0], rules={ValueError: None, NotFoundError: Retry(2, [0])}))
    def fails(how: str) -> None:
        raise {"value": ValueError, "derived": NotEvenThisError, "other": KeyError}[how](how)

    ids = fails.enqueue_many([("value",), ("derived",), ("other",)])
    with jobs.worker():
        ended = jobs.wait(ids, 15)
    assert [(job.status, job.attempt) for job in ended] == [(Status.FAILED, attempts) for attempts in (1, 2, 3)]


def test_retries_end_after_the_time_that_they_have(jobs: PgJobs, conn: psycopg.Connection) -> None:
    @jobs.task(retry=Retry(5, ["30m"], jitter=False, for_="1h"))
    def fails() -> None:
        raise ValueError("no")

    young, old, delayed = fails.enqueue(), fails.enqueue(), fails.using(delay="1ms").enqueue()
    kept = fails.using(retry=Retry(3, "30m", jitter=False, for_="10m")).enqueue()
    by_number = fails.using(retry=2).enqueue()
    conn.execute(
        "UPDATE pgjobs.jobs SET created_at = now() - interval '40 minutes' WHERE id = ANY(%s)", [[old.id, delayed.id]]
    )
    with jobs.worker():
        eventually(lambda: delayed.refresh().attempt)
    drain(jobs)
    seen = {job.id: (job.refresh().status.value, job.reason) for job in (young, old, delayed, kept, by_number)}
    ends = ("failed", "retried for too long")
    assert list(seen.values()) == [("scheduled", "error"), ends, ("scheduled", "error"), ends, ("scheduled", "error")]
    old.retry()
    drain(jobs)
    assert old.refresh().status is Status.SCHEDULED, "the time begins anew"
    assert by_number.row.options == {"retry_for": 3600.0}


def test_number_of_attempts_keeps_the_policy_of_the_task(jobs: PgJobs) -> None:
    task = jobs.task(name="t", retry=Retry(9, "linear", rules={KeyError: None}))(lambda: 1)
    assert task.using(retry=3).enqueue().row.max_attempts == 3


def test_expected_exception_is_logged_in_one_line(jobs: PgJobs, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pgjobs.worker")

    @jobs.task(throws=(NotFoundError,), retry=Retry(2, [0]))
    def fails() -> None:
        raise NotEvenThisError("no such page")

    job = fails.enqueue()
    with jobs.worker():
        eventually(lambda: job.refresh().status.ended)
    assert (job.status, job.attempt, len(job.failures())) == (Status.FAILED, 2, 2)
    lines = [record for record in caplog.records if "no such page" in record.getMessage()]
    assert [record.levelno for record in lines] == [logging.INFO] * 2
    assert not any("Traceback" in record.getMessage() for record in lines)


@pytest.mark.parametrize(
    ("make", "remedy"),
    [
        (lambda: Retry(backoff="cubic"), "write it as"),
        (lambda: Retry(backoff=[1], base=3), "leave it out"),
        (lambda: Retry(for_=0), "for_ is 0"),
        (lambda: Retry(rules={"ValueError": None}), "classes"),  # type: ignore[dict-item]
        (lambda: Retry(on=ValueError), "classes"),  # type: ignore[arg-type]
        (lambda: Retry(rules={ValueError: Retry(for_="1h")}), "give them to the Retry"),
        (lambda: Retry(rules={ValueError: None}).document(), "put it on the task"),
    ],
)
def test_policy_that_cannot_be_meant_is_refused(make: Any, remedy: str) -> None:
    with pytest.raises(OptionError, match=remedy):
        make()


def test_exceptions_that_are_none_are_refused(jobs: PgJobs) -> None:
    with pytest.raises(OptionError, match="throws is"):
        jobs.task(throws=ValueError)(lambda: 1)  # type: ignore[arg-type]
