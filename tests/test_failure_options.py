"""What follows a failure: policies, callbacks, retries of many jobs, failures by what they have in common."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from pgjobs import ArgumentsError, Cancel, Ended, JobStateError, OptionError, PgJobs, Retry, Status
from pgjobs.arguments.cipher import generate
from pgjobs.statements import Selection, Statement, retry
from tests.processes import pgjobs
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


# -- callbacks


def test_callbacks_hear_of_the_ends_of_runs(jobs: PgJobs) -> None:
    heard: list[tuple[str, Ended]] = []

    @jobs.task(retry=Retry(2, [0]), throws=(KeyError,))
    def work(how: str) -> str:
        match how:
            case "fails":
                raise KeyError(how)
            case "cancels":
                raise Cancel("enough")
            case _:
                return how

    @work.on_failure
    @work.on_dead
    def one(ended: Ended) -> None:
        heard.append(("task", ended))

    @jobs.on_success
    @jobs.on_failure
    @jobs.on_retry
    @jobs.on_cancel
    async def other(ended: Ended) -> None:
        await asyncio.sleep(0)
        heard.append(("all", ended))

    ids = work.enqueue_many([("fails",), ("cancels",), ("succeeds",)])
    with jobs.worker():
        jobs.wait(ids, 15)
    by_job = {
        job_id: [(who, ended.status, ended.attempt) for who, ended in heard if ended.job_id == job_id] for job_id in ids
    }
    assert by_job[ids[0]] == [
        ("task", "scheduled", 1), ("all", "scheduled", 1), ("all", "scheduled", 1),
        ("task", "failed", 2), ("all", "failed", 2), ("task", "failed", 2),
    ]  # fmt: skip
    assert by_job[ids[1]] == [("all", "cancelled", 1)]
    assert by_job[ids[2]] == [("all", "succeeded", 1)]
    first = next(ended for _, ended in heard if ended.job_id == ids[0])
    assert (first.args, first.exception, first.message, first.expected) == (
        {"how": "fails"},
        "KeyError",
        "'fails'",
        True,
    )
    assert "work" in (first.traceback or "")
    assert first.rest_s == 0.0


def test_callback_is_called_when_the_outcome_stands_in_the_table(jobs: PgJobs) -> None:
    seen: list[str] = []
    task = jobs.task(name="t", retry=1)(lambda: 1 // 0)

    @task.on_dead
    def look(ended: Ended) -> None:
        seen.append(jobs.job(ended.job_id).status.value)

    task.enqueue()
    drain(jobs)
    assert seen == ["failed"]


def test_callback_that_raises_changes_nothing(jobs: PgJobs, caplog: pytest.LogCaptureFixture) -> None:
    called: list[Ended] = []
    task = jobs.task(name="t")(lambda: "done")

    @jobs.on_success
    def broken(ended: Ended) -> None:
        raise SystemExit("a bad callback")

    jobs.on_success(called.append)
    job, another = task.enqueue(), task.enqueue()
    drain(jobs)
    assert (job.get(0), another.get(0), len(called)) == ("done", "done", 2)
    assert sum("a bad callback" in record.getMessage() for record in caplog.records) == 2


def test_slow_callback_holds_no_job_up(jobs: PgJobs) -> None:
    gate = threading.Event()
    task = jobs.task(name="t")(lambda: "done")
    jobs.on_success(lambda ended: gate.wait(20))
    with jobs.worker():
        for _ in range(5):
            assert task.enqueue().get(10) == "done"
        gate.set()


def test_job_whose_ttl_has_passed_is_told_of_too(jobs: PgJobs) -> None:
    dead: list[Ended] = []
    task = jobs.task(name="t", on_expiry="fail", ttl="1ms")(lambda x: x)
    task.on_dead(dead.append)
    job = task.enqueue(5)
    with jobs.worker(queues="another"):
        eventually(lambda: dead)
    assert [(ended.job_id, ended.reason, ended.args) for ended in dead] == [(job.id, "ttl passed", {"x": 5})]


def test_worker_without_callbacks_has_no_thread_for_them(jobs: PgJobs) -> None:
    jobs.task(name="t")(lambda: 1)
    with jobs.worker():
        assert "pgjobs-callbacks" not in [thread.name for thread in threading.enumerate()]


# -- many jobs


def ok(url: str, *arguments: str) -> str:
    done = pgjobs(url, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def failed(jobs: PgJobs) -> list[UUID]:
    """Jobs that have failed: of users 0 to 5, odd ones with a ValueError, even ones with a KeyError."""

    @jobs.task(name="pay", retry=1)
    def pay(user_id: int) -> None:
        raise (ValueError if user_id % 2 else KeyError)(user_id)

    ids = pay.enqueue_many([(i,) for i in range(6)])
    drain(jobs)
    return ids


def statuses(jobs: PgJobs, ids: list[UUID]) -> str:
    return "".join(jobs.job(job_id).status.value[0] for job_id in ids)


@pytest.mark.slow
def test_jobs_are_retried_by_a_condition_after_a_preview(
    jobs: PgJobs, failed: list[UUID], database_url: str, conn: psycopg.Connection
) -> None:
    where = ["--where", "(args->>'user_id')::int % 3 = 1", "--task", "pay"]
    preview = pgjobs(database_url, "jobs", "retry", *where)
    assert preview.returncode == 2
    assert "2 jobs (2 failed); pass --yes" in preview.stderr
    assert statuses(jobs, failed) == "ffffff"
    assert conn.execute("SELECT count(*) FROM pgjobs.audit").fetchone() == (0,)
    assert "2 queued again" in ok(database_url, "jobs", "retry", "--yes", *where)
    assert statuses(jobs, failed) == "fqffqf"
    assert "no such jobs" in ok(database_url, "jobs", "retry", "--yes", *where), "what is done is done"
    rows = conn.execute("SELECT actor, action, selection, jobs FROM pgjobs.audit").fetchall()
    assert [(row[1], row[2]["where"], row[2]["statuses"], row[3]) for row in rows] == [
        ("retry", where[1], ["failed"], 2)
    ]
    assert "@" in rows[0][0]
    assert "1 cancelled" in ok(database_url, "jobs", "cancel", "--yes", "--where", "args @> '{\"user_id\": 4}'")
    assert "1 deleted" in ok(database_url, "jobs", "delete", "--yes", "--where", "args @> '{\"user_id\": 1}'")
    assert [row[0] for row in conn.execute("SELECT action FROM pgjobs.audit ORDER BY id")] == [
        "retry", "cancel", "delete",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("condition", "says"),
    [
        ("true; DELETE FROM pgjobs.jobs", "semicolon"),
        ("id IN (SELECT id FROM pgjobs.delete(ARRAY[id]))", "read-only transaction"),
        ("nextval('pgjobs.positions') > 0", "read-only transaction"),
        ("nonsense", "nonsense"),
    ],
)
def test_condition_cannot_write(condition: str, says: str, jobs: PgJobs, failed: list[UUID], database_url: str) -> None:
    done = pgjobs(database_url, "jobs", "retry", "--yes", "--where", condition)
    assert done.returncode in (1, 2)
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert statuses(jobs, failed) == "ffffff"


@pytest.mark.slow
def test_interrupted_retry_goes_on_where_it_was(
    jobs: PgJobs, failed: list[UUID], conn: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pgjobs.cli import selection

    monkeypatch.setattr(selection, "CHUNK", 2)
    chosen = Selection(["failed"], where="true")

    def doing(ids: list[UUID], statuses: Sequence[str] | None) -> Statement[list[UUID]]:
        if failed[3] in ids:
            raise KeyboardInterrupt
        return retry(ids, statuses)

    with pytest.raises(KeyboardInterrupt):
        selection.act(jobs, "retry", doing, chosen)
    assert statuses(jobs, failed) == "qqffff"
    assert selection.act(jobs, "retry", retry, chosen) == 4
    assert statuses(jobs, failed) == "qqqqqq"
    assert conn.execute("SELECT array_agg(jobs ORDER BY id) FROM pgjobs.audit").fetchone() == ([2, 4],)


def test_job_is_retried_with_other_arguments(jobs: PgJobs, failed: list[UUID]) -> None:
    job = jobs.job(failed[0]).retry(args={"user_id": 7})
    assert (job.args, job.status) == ({"user_id": 7}, Status.QUEUED)
    with pytest.raises(JobStateError):
        job.retry(args={"user_id": 8})
    assert job.refresh().args == {"user_id": 7}
    with pytest.raises(ArgumentsError, match="by name"):
        job.retry(args=[1])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ({"user_id": "nine"}, r"Expected `int`, got `str` - at `\$.user_id`"),
        ({"user_id": None}, "Expected `int`, got `null`"),
        ({}, "missing a required argument: 'user_id'"),
        ({"user_id": 1, "amount": 2}, "unexpected keyword argument 'amount'"),
        ({5: 1}, "task 'pay'"),
        ({"*": 5, "user_id": 1}, "holds no list"),
    ],
)
async def test_arguments_that_do_not_fit_are_refused_where_a_job_is_retried(
    args: Any, says: str, jobs: PgJobs, failed: list[UUID]
) -> None:
    job = jobs.job(failed[0])
    for retry_it in (job.retry, lambda args: asyncio.run(job.aretry(args))):
        with pytest.raises(ArgumentsError, match=says):
            await asyncio.to_thread(retry_it, args)
    assert (job.refresh().status, job.args) == (Status.FAILED, {"user_id": 0})


def test_arguments_of_a_retry_are_stored_as_those_of_an_enqueue(jobs: PgJobs) -> None:
    @jobs.task(retry=1)
    def due(at: date, *more: int) -> None:
        raise ValueError(at)

    job = due.enqueue(date(2027, 1, 31), 1)
    drain(jobs)
    for args in ({"at": date(2027, 2, 1), "*": [2]}, {"at": "2027-02-01", "*": [2]}):
        assert job.retry(args=args).args == {"at": "2027-02-01", "*": [2]}
        drain(jobs)


async def test_arguments_are_checked_by_what_workers_have_published_where_the_task_is_not_known(
    jobs: PgJobs, failed: list[UUID]
) -> None:
    with jobs.worker():
        pass  # says what tasks it has
    stranger = PgJobs(jobs.database.url)
    job = stranger.job(failed[0])
    for args, says in (({"user_id": "nine"}, "user_id is of type string"), ({"x": 1}, "user_id is missing")):
        with pytest.raises(ArgumentsError, match=says):
            job.retry(args=args)
        with pytest.raises(ArgumentsError, match=says):
            await job.aretry(args=args)
    assert job.retry(args={"user_id": 7}).args == {"user_id": 7}
    await stranger.aclose()


async def test_job_is_retried_with_other_arguments_async(jobs: PgJobs, failed: list[UUID]) -> None:
    job = await (await jobs.ajob(failed[0])).aretry(args={"user_id": 7})
    assert (job.args, job.status) == ({"user_id": 7}, Status.QUEUED)


def test_arguments_that_are_stored_encrypted_stay_so(jobs: PgJobs, conn: psycopg.Connection) -> None:
    app = PgJobs(jobs.database.url, keys=[generate()])
    task = app.task(name="t", encrypt=True, retry=1)(lambda x: 1 // x)
    job = task.enqueue(0)
    drain(app)
    job.retry(args={"x": 1})
    assert conn.execute("SELECT args ? 'x' FROM pgjobs.jobs").fetchone() == (False,)
    drain(app)
    assert job.get(0) == 1
    app.close()


@pytest.mark.slow
def test_arguments_are_changed_on_the_command_line(
    jobs: PgJobs, failed: list[UUID], database_url: str, tmp_path: Path
) -> None:
    first, second = (str(job_id) for job_id in failed[:2])
    assert "1 queued again" in ok(database_url, "jobs", "retry", first, "--args", '{"user_id": 7}')
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\nsed -i 's/1/9/' \"$1\"\n")
    editor.chmod(0o755)
    done = pgjobs(database_url, "jobs", "retry", second, "--edit", VISUAL=str(editor), EDITOR=str(editor))
    assert done.returncode == 0, done.stderr
    assert [jobs.job(job_id).args for job_id in failed[:2]] == [{"user_id": 7}, {"user_id": 9}]
    for arguments in ([first, "--args", "[1]"], [first, "--args", "{"], [first, second, "--args", "{}"]):
        refused = pgjobs(database_url, "jobs", "retry", *arguments)
        assert refused.returncode == 2, refused.stderr


# -- failures by what they have in common


@pytest.mark.slow
def test_failures_are_shown_by_what_they_have_in_common(
    jobs: PgJobs, failed: list[UUID], database_url: str, conn: psycopg.Connection
) -> None:
    jobs.job(failed[0]).retry()
    drain(jobs)
    alike = json.loads(ok(database_url, "failures", "--json"))
    assert [(each["exception"], each["attempts"], each["jobs"], each["failed"]) for each in alike] == [
        ("KeyError", 4, 3, 3),
        ("ValueError", 3, 3, 3),
    ]
    assert {each["task"] for each in alike} == {"pay"}
    assert alike[0]["first_at"] < alike[0]["last_at"]
    assert "ValueError: " in ok(database_url, "failures", "--task", "pay", "--since", "1h")
    assert "no failures" in ok(database_url, "failures", "--task", "another")
    fingerprint = alike[1]["fingerprint"]
    shown = ok(database_url, "failures", "show", fingerprint)
    assert "3 attempts of 3 jobs" in shown and "Traceback" in shown and str(failed[1]) in shown  # noqa: PT018
    assert str(failed[0]) not in shown
    assert pgjobs(database_url, "failures", "show", "nothing").returncode == 1
    assert "3 queued again" in ok(database_url, "jobs", "retry", "--yes", "--fingerprint", fingerprint)
    assert statuses(jobs, failed) == "fqfqfq"


def test_command_says_that_it_counts_the_last_failures(
    jobs: PgJobs, database_url: str, conn: psycopg.Connection
) -> None:
    job = jobs.enqueue("t")
    conn.execute(
        "INSERT INTO pgjobs.failures (job_id, attempt, reason) SELECT %s, 1, 'error' FROM generate_series(1, 10001)",
        [job.id],
    )
    few, everything = pgjobs(database_url, "failures", "--json"), pgjobs(database_url, "failures", "--json", "--all")
    assert [each["attempts"] for each in json.loads(few.stdout)] == [10_000]
    assert "of the last 10,000 failed attempts; --all counts" in few.stderr
    assert [each["attempts"] for each in json.loads(everything.stdout)] == [10_001]
    assert everything.stderr == ""


def test_failures_without_an_exception_are_alike_by_their_reason(jobs: PgJobs, conn: psycopg.Connection) -> None:
    job = jobs.task(name="t", ttl="1ms", on_expiry="fail")(lambda: 1).enqueue()
    with jobs.worker(queues="another"):
        eventually(lambda: job.refresh().status.ended)
    rows = conn.execute("SELECT fingerprint, task, exception, jobs FROM pgjobs.failed_by_fingerprint").fetchall()
    assert rows == [("ttl passed", "t", None, 1)]
