"""What a job says and does while it runs: progress, log lines, meta, more time, files, jobs that follow."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import sessionmaker

from pgjobs import (
    ArgumentsError,
    Cancel,
    ClaimLostError,
    EncodingError,
    Job,
    JobFileNotFoundError,
    JobStateError,
    OptionError,
    PgJobs,
    Resource,
    Retry,
    Snooze,
    SoftTimeoutError,
    Status,
    current_job,
    report,
)
from pgjobs.worker import Worker
from tests.apps import inside
from tests.processes import pgjobs
from tests.support import eventually

pytestmark = pytest.mark.server

EXECUTORS = ["async", "thread", "process", "fork"]


@pytest.fixture
def app(jobs: PgJobs, monkeypatch: pytest.MonkeyPatch) -> PgJobs:
    """The tasks of the application, in the test's database; processes of the pool load them by its name."""
    monkeypatch.setenv("PGJOBS_URL", jobs.database.url)
    jobs.capture_logs, jobs.lifespan = inside.jobs.capture_logs, inside.jobs.lifespan
    for task in inside.jobs.tasks.values():
        jobs.task(name=task.name, executor=task.executor, **task.options)(task.function)
    return jobs


@pytest.fixture
def worker(app: PgJobs) -> Iterator[Worker]:
    with app.worker(concurrency=2, app="tests.apps.inside") as worker:
        yield worker


@pytest.fixture
def flag(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "flag"
    path.touch()
    yield path
    path.unlink(missing_ok=True)


def progress(job: Job[Any]) -> Any:
    found: Any = job.refresh().progress
    return found and {key: value for key, value in found.items() if key != "at"}


def lines(job: Job[Any]) -> list[tuple[int, str, str]]:
    return [(line.attempt, line.level, line.line) for line in job.logs()]


# -- progress


@pytest.mark.parametrize("executor", EXECUTORS)
def test_progress_shows_while_the_job_runs_and_the_last_one_stays(
    executor: str, app: PgJobs, worker: Worker, flag: Path
) -> None:
    job = app.enqueue(f"count_to.{executor}", 1000, str(flag))
    eventually(lambda: progress(job) == {"done": 999, "total": 1000, "note": "at 999"})
    assert job.status is Status.RUNNING
    flag.unlink()
    job.get(10)
    assert progress(job) == {"done": 1000, "total": 1000}


def test_progress_says_when_by_the_databases_clock(app: PgJobs, worker: Worker, conn: psycopg.Connection) -> None:
    job = app.enqueue("count_to.thread", 1)
    job.get(10)
    row = conn.execute(
        "SELECT (progress->>'at')::timestamptz BETWEEN created_at AND finished_at FROM pgjobs.jobs"
    ).fetchone()
    assert row == (True,)


def test_many_runs_are_written_twice_a_second_in_one_statement(jobs: PgJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    from pgjobs.statements import reporting

    written: list[int] = []
    original = reporting.report

    def counted(said: Any) -> Any:
        written.append(len(said))
        return original(said)

    monkeypatch.setattr("pgjobs.statements.report", counted)
    over = threading.Event()

    @jobs.task
    def work() -> None:
        i = 0
        while not over.is_set():
            i += 1
            current_job().progress(i)
            time.sleep(0.001)

    running = [work.enqueue() for _ in range(8)]
    with jobs.worker(concurrency=8):
        eventually(lambda: all(progress(job) for job in running))
        written.clear()
        started = time.monotonic()
        eventually(lambda: len(written) >= 4)
        elapsed = time.monotonic() - started
        counts = list(written)
        over.set()
    assert elapsed > 3 * report.FLUSH_S * 0.9
    assert all(count == 8 for count in counts[:4])


def test_progress_is_hot_and_leaves_the_indexes_alone(jobs: PgJobs, conn: psycopg.Connection) -> None:
    @jobs.task
    def work() -> None:
        for i in range(3):
            current_job().progress(i)
            time.sleep(0.6)

    job = work.enqueue()
    with jobs.worker():
        job.get(20)

    def figures() -> Any:
        conn.execute("SELECT pg_stat_clear_snapshot()")
        return conn.execute(
            "SELECT n_tup_upd - n_tup_hot_upd, n_tup_upd >= 4 FROM pg_stat_user_tables"
            " WHERE schemaname = 'pgjobs' AND relname = 'jobs'"
        ).fetchone()

    eventually(lambda: figures()[1])
    assert figures()[0] == 1, "the claim alone, which takes the position away"


def test_progress_of_a_claim_that_moved_on_is_not_written(jobs: PgJobs, conn: psycopg.Connection) -> None:
    begun, go_on = threading.Event(), threading.Event()

    @jobs.task
    def work() -> None:
        begun.set()
        go_on.wait(10)
        current_job().progress(5)
        current_job().log("late")

    job = work.enqueue()
    with jobs.worker():
        assert begun.wait(10)
        conn.execute("UPDATE pgjobs.jobs SET claim_id = gen_random_uuid()")
        go_on.set()
    assert (progress(job), lines(job)) == (None, [])
    assert job.status is Status.RUNNING


def test_row_that_somebody_holds_stalls_nobody_and_is_written_later(
    jobs: PgJobs, conn: psycopg.Connection, direct_url: str
) -> None:
    gate, over = threading.Event(), threading.Event()

    @jobs.task
    def work(i: int) -> None:
        gate.wait(10)
        current_job().progress(i)
        over.wait(20)

    held, free = work.enqueue(1), work.enqueue(2)
    with jobs.worker():
        eventually(lambda: held.refresh().status is free.refresh().status is Status.RUNNING)
        with psycopg.connect(direct_url) as app:
            app.execute("SELECT FROM pgjobs.jobs WHERE id = %s FOR UPDATE", [held.id])
            gate.set()
            eventually(lambda: progress(free) == {"done": 2})
            assert progress(held) is None
        eventually(lambda: progress(held) == {"done": 1})
        over.set()


def test_process_that_dies_has_said_what_it_said(app: PgJobs, worker: Worker) -> None:
    job = app.enqueue("die_after.process", 3)
    eventually(lambda: job.refresh().status is Status.FAILED)
    assert (progress(job), lines(job)) == ({"done": 3}, [(1, "info", "before the end")])


def test_repeatable_read_transaction_completes_beside_progress(jobs: PgJobs) -> None:
    @jobs.task(retry=1)
    def work() -> None:
        job = current_job()
        with psycopg.connect(jobs.database.url) as app:
            app.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            app.execute("SELECT 1")
            job.progress(1, 2)
            job.complete(app, "done")
            job.progress(2, 2)
            job.log("while its transaction is open")
            time.sleep(1.0)  # longer than a flush takes
            app.execute("SELECT FROM pgjobs.jobs")

    job = work.enqueue()
    with jobs.worker():
        assert job.get(10) == "done"
    assert progress(job) == {"done": 1, "total": 2}
    eventually(lambda: lines(job) == [(1, "info", "while its transaction is open")])


@pytest.mark.parametrize("done", ["3", True, float("nan"), None, 10**400])
def test_progress_that_is_no_number_is_refused(jobs: PgJobs, done: Any) -> None:
    @jobs.task(retry=1)
    def work() -> str:
        with pytest.raises(OptionError, match="give a number"):
            current_job().progress(done)
        return "refused"

    job = work.enqueue()
    jobs.worker(burst=True).run()
    assert job.get(1) == "refused"


# -- log lines


@pytest.mark.parametrize("executor", EXECUTORS)
def test_lines_are_there_while_the_job_runs_and_in_order(
    executor: str, app: PgJobs, worker: Worker, flag: Path
) -> None:
    job = app.enqueue(f"talk.{executor}", str(flag))
    eventually(lambda: lines(job) == [(1, "info", "first"), (1, "warning", "second\\0")])
    flag.unlink()
    job.get(10)
    assert lines(job)[2:] == [(1, "error", "last")]


def test_long_lines_and_many_are_cut_with_a_note(jobs: PgJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MAX_LINES", 3)

    @jobs.task
    def work() -> None:
        current_job().log("x" * 5_000)
        for i in range(9):
            current_job().log(i)

    job = work.enqueue()
    jobs.worker(burst=True).run()
    first, *middle, last = [line.line for line in job.logs()]
    assert first == "x" * report.MAX_LINE + " [… 1,000 characters more]"
    assert middle == ["0", "1"]
    assert last == "[no more is kept: 3 lines of one attempt]"


def test_every_attempt_has_its_lines(jobs: PgJobs) -> None:
    @jobs.task(retry=Retry(2, backoff=0))
    def work() -> None:
        current_job().log(f"attempt {current_job().attempt}", level="DEBUG")
        raise ValueError

    job = work.enqueue()
    with jobs.worker():
        eventually(lambda: job.refresh().status is Status.FAILED)
    assert lines(job) == [(1, "debug", "attempt 1"), (2, "debug", "attempt 2")]


@pytest.mark.parametrize("executor", EXECUTORS)
def test_what_code_logs_is_kept_where_that_was_asked_for(executor: str, app: PgJobs, worker: Worker) -> None:
    job = app.enqueue(f"warn.{executor}", "careful")
    job.get(10)
    assert lines(job) == [(1, "warning", "careful")]


def test_nothing_is_captured_where_nobody_asked(jobs: PgJobs) -> None:
    jobs.task(name="warn")(inside.warn)
    loud = jobs.task(name="loud", capture_logs="warning")(inside.warn)
    plain, kept = jobs.enqueue("warn", "a"), loud.enqueue("b")
    jobs.worker(burst=True).run()
    assert (lines(plain), lines(kept)) == ([], [(1, "warning", "b")])


def test_bad_log_call_fails_no_job_and_a_timeout_in_one_is_none(
    jobs: PgJobs, capsys: pytest.CaptureFixture[str]
) -> None:
    class Late:
        def __str__(self) -> str:
            raise SoftTimeoutError(1.0)

    worker = jobs.worker(burst=True)
    logger = logging.Logger("alone")  # pytest's own handlers raise on purpose
    logger.addHandler(worker._handler)
    two = "%s and %s"

    @jobs.task(capture_logs="info", retry=1)
    def work() -> str:
        logger.warning(two, 1)
        with pytest.raises(SoftTimeoutError):
            logger.warning("%s", Late())
        logger.warning("fine")
        return "went on"

    job = work.enqueue()
    worker.run()
    assert job.get(1) == "went on"
    assert lines(job) == [(1, "warning", "fine")]
    assert "not enough arguments for format string" in capsys.readouterr().err


def test_lines_and_files_are_shown_on_the_command_line(jobs: PgJobs, database_url: str, tmp_path: Path) -> None:
    @jobs.task
    def work() -> None:
        current_job().log("hello", level="warning")
        current_job().attach("r.csv", "a,b\n")

    job = work.enqueue()
    jobs.worker(burst=True).run()
    said = pgjobs(database_url, "jobs", "logs", str(job.id), "-f")
    assert "WARNING  1  hello" in said.stdout, said.stderr
    assert json.loads(pgjobs(database_url, "jobs", "logs", str(job.id), "--json").stdout)[0]["line"] == "hello"
    followed = pgjobs(database_url, "jobs", "logs", str(job.id), "-f", "--json").stdout.splitlines()
    assert json.loads(followed[0])["line"] == "hello", "an object a line"
    listed = pgjobs(database_url, "jobs", "files", str(job.id)).stdout
    assert listed.split()[0] == "4"
    assert listed.split()[-2:] == ["r.csv", "text/csv"]
    pgjobs(database_url, "jobs", "file", str(job.id), "r.csv", "-o", str(tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "a,b\n"


# -- meta and time


@pytest.mark.parametrize("executor", EXECUTORS)
def test_meta_is_read_and_changed(executor: str, app: PgJobs, worker: Worker) -> None:
    job = app.using(meta={"tenant": 5, "colour": "none"}).enqueue(f"remember.{executor}", "blue")
    before = {"tenant": 5, "colour": "none", "tags": ["red"]}
    after = before | {"colour": "blue", "more": {"a": [1]}}
    assert job.get(10) == [before, after, ["red"]]
    assert job.refresh().row.meta == after


@pytest.mark.parametrize("tags", [5, "red", None, [5], [""], {"red": 1}, b"red"])
def test_tags_that_are_no_words_are_refused(jobs: PgJobs, tags: Any) -> None:
    @jobs.task(retry=1)
    def work() -> list[str]:
        with pytest.raises(OptionError, match="give a list of words"):
            current_job().set_meta(tags=tags)
        current_job().set_meta(tags={"blue"})
        return current_job().tags

    job = work.enqueue()
    jobs.worker(burst=True).run()
    assert job.get(1) == ["blue"]
    assert job.refresh().row.meta == {"tags": ["blue"]}


def test_meta_that_grows_too_large_is_refused_and_stops_no_worker(jobs: PgJobs) -> None:
    @jobs.task(retry=1)
    def work() -> str:
        current_job().set_meta(a="x" * 600_000)
        with pytest.raises(EncodingError, match="over 1,000,000"):
            current_job().set_meta(b="x" * 600_000)
        return "refused"

    job, other = work.enqueue(), work.enqueue()
    jobs.worker(burst=True).run()
    assert [job.get(1), other.get(1)] == ["refused", "refused"]
    assert job.refresh().row.meta == {"a": "x" * 600_000}


def test_value_that_changes_after_it_was_said_stands_as_it_was(jobs: PgJobs) -> None:
    @jobs.task(retry=1)
    def work() -> Any:
        found: list[Any] = [1]
        current_job().set_meta(found=found)
        found.append(object())
        return current_job().meta

    job = work.enqueue()
    jobs.worker(burst=True).run()
    assert job.get(1) == {"found": [1]}
    assert job.refresh().row.meta == {"found": [1]}


@pytest.mark.parametrize("meta", ["[1]", "5", '{"tags": 5}'])
def test_meta_of_another_shape_that_sql_has_written_stops_nobody(
    meta: str, jobs: PgJobs, conn: psycopg.Connection
) -> None:
    @jobs.task(retry=1)
    def work() -> Any:
        if meta.startswith("{"):
            return [current_job().meta, current_job().tags]
        with pytest.raises(OptionError, match="has no keys"):
            current_job().set_meta(a=1)
        return [current_job().meta, current_job().tags]

    row = conn.execute(
        "INSERT INTO pgjobs.jobs (task, meta) VALUES (%s, %s) RETURNING id", [work.name, meta]
    ).fetchone()
    jobs.worker(burst=True).run()
    assert row is not None
    assert jobs.job(row[0]).get(1) == [json.loads(meta) if meta.startswith("{") else {}, []]


def test_meta_that_json_cannot_hold_is_refused_at_once(jobs: PgJobs) -> None:
    @jobs.task
    def work() -> str:
        with pytest.raises(EncodingError, match="meta cannot be stored"):
            current_job().set_meta(when=object())
        return "refused"

    job = work.enqueue()
    jobs.worker(burst=True).run()
    assert job.get(1) == "refused"


@pytest.mark.parametrize("executor", EXECUTORS)
def test_attempt_that_asks_for_it_has_more_time(
    executor: str, app: PgJobs, worker: Worker, conn: psycopg.Connection
) -> None:
    job = app.using(timeout=1.0).enqueue(f"take_longer.{executor}", 2.5)
    eventually(lambda: job.refresh().row.timeout is not None and job.row.timeout.total_seconds() == 61)
    assert job.get(15) == "done"
    assert job.refresh().row.timeout is not None
    assert job.row.timeout.total_seconds() == 1, "a later attempt has its own"


# -- files


@pytest.mark.parametrize("commits", [True, False])
@pytest.mark.parametrize("executor", EXECUTORS)
def test_files_are_kept_with_the_job(executor: str, commits: bool, app: PgJobs, worker: Worker) -> None:
    job = app.enqueue(f"leave_a_file.{executor}", app.database.url, commits)
    job.get(15)
    assert [(file.name, file.content_type, file.size) for file in job.files()] == [
        ("a.txt", "text/plain", 6),
        ("b.bin", "application/octet-stream", 2),
    ][: 1 + commits]
    assert job.file("a.txt") == b"second"
    if commits:
        assert job.file("b.bin") == b"\0\xff"
    else:
        with pytest.raises(JobFileNotFoundError, match=r"has no file 'b\.bin'"):
            job.file("b.bin")


async def test_async_twins_of_files_and_lines(jobs: PgJobs, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"from a path")

    @jobs.task
    async def work() -> None:
        await current_job().aattach("x", tmp_path / "x")
        current_job().log("attached")

    job = await work.aenqueue()
    async with jobs.worker():
        await job.aget(10)
    assert await job.afile("x") == b"from a path"
    assert [file.name for file in await job.afiles()] == ["x"]
    assert [line.line for line in await job.alogs()] == ["attached"]
    await jobs.aclose()


def test_file_that_cannot_be_kept_is_refused(database_url: str) -> None:
    jobs = PgJobs(database_url, max_file_size=10)

    @jobs.task
    def work() -> str:
        with pytest.raises(OptionError, match=r"takes over 10 bytes; .*max_file_size"):
            current_job().attach("big", b"x" * 11)
        with pytest.raises(OptionError, match="give one to 255 characters"):
            current_job().attach("", b"x")
        for contents in (None, 5, [1], "\ud800"):
            with pytest.raises(OptionError, match="give bytes, a text without lone surrogates, or a Path"):
                current_job().attach("odd", contents)  # type: ignore[arg-type]
        with pytest.raises(OptionError, match=r"takes over 10 bytes"):
            current_job().attach("endless", Path("/dev/zero"))
        return "refused"

    job = work.enqueue()
    jobs.worker(burst=True).run()
    assert job.get(1) == "refused"
    jobs.close()


def test_file_of_a_claim_that_moved_on_is_refused(jobs: PgJobs, conn: psycopg.Connection) -> None:
    raised: list[bool] = []

    @jobs.task
    def work() -> None:
        conn.execute("UPDATE pgjobs.jobs SET claim_id = gen_random_uuid()")
        try:
            current_job().attach("a", b"")
        except ClaimLostError:
            raised.append(True)

    job = work.enqueue()
    jobs.worker(burst=True).run()
    assert raised
    assert job.files() == []


def test_lines_and_files_go_with_their_job(jobs: PgJobs, conn: psycopg.Connection) -> None:
    @jobs.task
    def work() -> None:
        current_job().log("x")
        current_job().attach("x", b"x")

    deleted, pruned = work.enqueue(), work.enqueue()
    jobs.worker(burst=True).run()
    counts = "SELECT (SELECT count(*) FROM pgjobs.logs), (SELECT count(*) FROM pgjobs.files)"
    deleted.delete()
    assert conn.execute(counts).fetchone() == (1, 1)
    conn.execute("UPDATE pgjobs.jobs SET finished_at = now() - interval '3 days'")
    conn.execute("UPDATE pgjobs.duties SET next_at = now() WHERE name = 'prune'")
    old = str(UUID(int=pruned.id.int - (3 * 86_400_000 << 80)))
    for table, column in (("jobs", "id"), ("logs", "job_id"), ("files", "job_id")):
        conn.execute(f"UPDATE pgjobs.{table} SET {column} = %s WHERE {column} = %s", [old, pruned.id])  # type: ignore[call-overload]
    with jobs.worker():
        eventually(lambda: conn.execute(counts).fetchone() == (0, 0))


# -- jobs that follow


def following(conn: psycopg.Connection) -> list[Any]:
    return conn.execute(
        "SELECT id::text, status, priority, (args->>'i' IS NOT NULL OR args ? '*') FROM pgjobs.jobs"
        " WHERE task = 'follow.thread' ORDER BY status = 'scheduled', position, id"
    ).fetchall()


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("within", [False, True], ids=["returns", "completes in a transaction"])
def test_jobs_follow_when_the_job_has_succeeded_and_not_before(
    executor: str, within: bool, app: PgJobs, conn: psycopg.Connection
) -> None:
    job = app.using(queue="lead").enqueue(f"lead.{executor}", 3, 2, app.database.url if within else "")
    with app.worker(queues="lead", app="tests.apps.inside"):
        ids = job.get(20)
    assert (job.refresh().attempt, len(ids)) == (3, 3)
    rows = following(conn)
    assert [row[0] for row in rows[:3]] == ids, "the ids were known at once, and the order is kept"
    assert [row[1:3] for row in rows] == [("queued", 0)] * 3 + [("scheduled", 7)]
    child = app.job(ids[0])
    with app.worker(app="tests.apps.inside"):
        assert child.get(10) == 0


def test_job_that_fails_leaves_none(app: PgJobs, worker: Worker, conn: psycopg.Connection) -> None:
    job = app.enqueue("lead.thread", 3, 9)
    eventually(lambda: job.refresh().status is Status.FAILED)
    assert following(conn) == []


def test_job_whose_transaction_rolls_back_leaves_none(jobs: PgJobs, conn: psycopg.Connection) -> None:
    @jobs.task(retry=1)
    def work() -> None:
        with psycopg.connect(jobs.database.url) as app:
            current_job().enqueue("follow.thread", 1)
            current_job().complete(app)
            app.rollback()

    job = work.enqueue()
    with jobs.worker(queues="default"):
        eventually(lambda: job.refresh().status is Status.FAILED)
    assert following(conn) == []


def test_completion_sent_again_adds_none_and_one_that_must_wait_adds_them_later(
    jobs: PgJobs, conn: psycopg.Connection, direct_url: str
) -> None:
    gate = threading.Event()

    @jobs.task
    def work() -> None:
        gate.wait(10)
        current_job().enqueue("follow.thread", 1)

    job = work.enqueue()
    with jobs.worker():
        eventually(lambda: job.refresh().status is Status.RUNNING)
        with psycopg.connect(direct_url) as app:
            app.execute("SELECT FROM pgjobs.jobs WHERE id = %s FOR UPDATE", [job.id])
            gate.set()
            time.sleep(0.3)
            assert following(conn) == [], "somebody holds the row"
        job.get(10)
    assert len(following(conn)) == 1


def test_following_job_that_was_deleted_does_not_come_back_with_a_completion_sent_again(
    jobs: PgJobs, conn: psycopg.Connection
) -> None:
    from pgjobs import statements
    from pgjobs.connections.link import Link
    from pgjobs.job import new_id
    from pgjobs.report import Child
    from pgjobs.running.outcome import Outcome
    from pgjobs.running.run import Claim, Run
    from pgjobs.statements import Range
    from pgjobs.worker.claiming.completer import Completer

    jobs.task(name="work")(lambda: None).enqueue()
    link = Link(jobs.database, "test")
    worker, claim_id = new_id(), new_id()
    link.one(
        statements.register(worker, supervisor=worker, name="w", host="h", pid=1, process="{}", queues=["*"], slots=9)
    )
    rows = link.one(statements.claim(worker, claim_id, [Range(("default", 0))], 10))
    desk = report.Desk()
    claim = Claim(claim_id, 1, desk)
    run = Run(rows[0], claim, time.perf_counter(), "pgjobs")
    desk.follow(
        run, Child(str(new_id()), "follow.thread", "default", 0, 5, None, None, None, None, "{}", None, None, False)
    )
    outcome = Outcome(run, "succeeded", 0.1)
    completer = Completer(lambda event: None, desk)
    counts = []
    for _ in range(2):
        link.batch(*completer.statements([outcome]))
        counts.append(len(following(conn)))
        conn.execute("DELETE FROM pgjobs.jobs WHERE task = 'follow.thread'")
    assert counts == [1, 0]
    link.close()


def test_idle_worker_is_told_of_jobs_that_follow(jobs: PgJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgjobs.worker.claiming.pace.POLL_S", 60.0)
    follower = jobs.task(name="follow.thread", queue="other")(lambda i: i)

    @jobs.task
    def work() -> str:
        return str(current_job().enqueue(follower, 7).id)

    with jobs.worker(queues="default"), jobs.worker(queues="other"):
        time.sleep(0.7)  # both are idle
        assert jobs.job(work.enqueue().get(10)).get(10) == 7


def test_jobs_that_follow_cannot_be_unique_nor_come_after_the_completion(jobs: PgJobs) -> None:
    @jobs.task(retry=1)
    def work() -> str:
        with pytest.raises(OptionError, match="cannot be unique"):
            current_job().using(unique=True).enqueue("follow.thread", 1)
        with pytest.raises(OptionError, match="leave here=True out"):
            current_job().using(here=True).enqueue("follow.thread", 1)
        with psycopg.connect(jobs.database.url) as app:
            current_job().complete(app, "refused")
        with pytest.raises(JobStateError, match="has completed"):
            current_job().enqueue("follow.thread", 1)
        return ""

    job = work.enqueue()
    with jobs.worker(queues="default"):
        assert job.get(10) == "refused"


# -- what it is given


@pytest.mark.parametrize("executor", EXECUTORS)
def test_resources_are_found_by_name_and_type_and_made_for_a_run(executor: str, app: PgJobs, worker: Worker) -> None:
    job = app.enqueue(f"use.{executor}", 7)
    assert job.get(10) == [7, True, ["a", "b"], "a+b"]
    assert job.refresh().args in ({"i": 7}, {"*": [7]}), "they are no arguments"


def test_resources_are_no_arguments_and_direct_calls_pass_them_by_hand(jobs: PgJobs) -> None:
    @jobs.task
    def work(i: int, engine: Any = Resource()) -> Any:
        return i, engine

    assert work(1, "mine") == (1, "mine")
    with pytest.raises(ArgumentsError, match="unexpected keyword argument 'engine'"):
        work.enqueue(1, engine="mine")
    with pytest.raises(ArgumentsError):
        work.enqueue(1, "mine")


@pytest.mark.parametrize("kind", ["generator", "async generator", "context manager", "async context manager"])
def test_lifespan_is_opened_with_the_worker_and_closed_after_its_jobs(kind: str, database_url: str) -> None:
    seen: list[Any] = []

    def generator() -> Iterator[Any]:
        seen.append("opened")
        yield SimpleNamespace(engine="E")
        seen.append("closed")

    async def async_generator() -> AsyncIterator[Any]:
        seen.append("opened")
        yield {"engine": "E", "loop": asyncio.get_running_loop()}
        seen.append("closed")

    jobs = PgJobs(
        database_url,
        lifespan={
            "generator": generator,
            "async generator": async_generator,
            "context manager": contextlib.contextmanager(generator),
            "async context manager": contextlib.asynccontextmanager(async_generator),
        }[kind],
    )

    @jobs.task
    async def work(engine: str = Resource(), where: Any = Resource("loop" if "async" in kind else "engine")) -> None:
        seen.append(engine)
        assert "async" not in kind or where is asyncio.get_running_loop()

    work.enqueue_many([(), ()])
    jobs.worker(burst=True).run()
    assert seen == ["opened", "E", "E", "closed"]
    jobs.close()


async def test_what_is_made_for_a_run_is_cleaned_up_after_it(jobs: PgJobs) -> None:
    seen: list[Any] = []

    async def session() -> AsyncIterator[str]:
        seen.append("begin")
        try:
            yield "S"
        finally:
            seen.append("end")

    @jobs.task(retry=Retry(2, backoff=0))
    async def work(given: str = Resource(session)) -> None:
        seen.append(given)
        if len(seen) < 4:
            raise ValueError

    job = await work.aenqueue()
    async with jobs.worker():
        await job.aget(10)
    assert seen == ["begin", "S", "end"] * 2
    await jobs.aclose()


def test_worker_does_not_start_where_something_is_missing(jobs: PgJobs) -> None:
    @jobs.task
    def work(engine: Any = Resource()) -> None: ...

    with pytest.raises(OptionError, match=r"wants resource 'engine'; PgJobs\(lifespan=…\).* gives nothing"):
        jobs.worker().start()


# -- its transaction


class _Rollback(Exception):
    pass


def shop(conn: psycopg.Connection) -> list[int]:
    return [row[0] for row in conn.execute("SELECT id FROM orders ORDER BY id").fetchall()]


@pytest.mark.parametrize("kind", ["sqlalchemy", "psycopg", "async sqlalchemy", "async psycopg", "sync in async"])
def test_effects_and_completion_are_one(kind: str, jobs: PgJobs, conn: psycopg.Connection) -> None:
    conn.execute("CREATE TABLE orders (id int PRIMARY KEY)")
    url = jobs.database.url
    alchemy = url.replace("postgresql://", "postgresql+psycopg://")

    def sync_session(transaction: Any, insert: Callable[[Any, int], None]) -> Any:
        @jobs.task(name="charge", transaction=transaction, retry=Retry(2, backoff=0))
        def charge(order: int, session: Any = None) -> dict[str, int]:
            insert(session, order)
            if current_job().attempt == 1:
                raise _Rollback
            return {"order": order}

        return charge

    def async_session(transaction: Any, insert: Callable[[Any, int], Any]) -> Any:
        @jobs.task(name="charge", transaction=transaction, retry=Retry(2, backoff=0))
        async def charge(session: Any, order: int) -> dict[str, int]:
            done = insert(session, order)
            if inspect.isawaitable(done):
                await done
            if current_job().attempt == 1:
                raise _Rollback
            return {"order": order}

        return charge

    def by_sql(session: Any, order: int) -> Any:
        return session.execute("INSERT INTO orders VALUES (%s)", [order])

    def by_text(session: Any, order: int) -> Any:
        return session.execute(sa.text("INSERT INTO orders VALUES (:id)"), {"id": order})

    match kind:
        case "sqlalchemy":
            engine = sa.create_engine(alchemy, poolclass=sa.NullPool)
            task = sync_session(sessionmaker(engine), by_text)
        case "psycopg":
            task = sync_session(lambda: psycopg.connect(url), by_sql)
        case "async sqlalchemy":
            task = async_session(async_sessionmaker(create_async_engine(alchemy, poolclass=sa.NullPool)), by_text)
        case "async psycopg":
            task = async_session(lambda: psycopg.AsyncConnection.connect(url), by_sql)
        case _:
            task = async_session(lambda: psycopg.connect(url), by_sql)

    job = task.enqueue(order=7)
    with jobs.worker():
        assert job.get(10) == {"order": 7}
    assert shop(conn) == [7]
    assert (job.refresh().attempt, [failure.attempt for failure in job.failures()]) == (2, [1])
    assert job.args == {"order": 7}


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(("steer", "status"), [(Snooze("1h"), "scheduled"), (Cancel("no"), "cancelled")])
def test_steering_that_is_returned_rolls_the_transaction_back(
    is_async: bool, steer: Any, status: str, jobs: PgJobs, conn: psycopg.Connection
) -> None:
    conn.execute("CREATE TABLE orders (id int PRIMARY KEY)")

    def charge(db: psycopg.Connection) -> Any:
        db.execute("INSERT INTO orders VALUES (1)")
        return steer

    async def acharge(db: psycopg.AsyncConnection) -> Any:
        await db.execute("INSERT INTO orders VALUES (1)")
        return steer

    url = jobs.database.url
    opened = (lambda: psycopg.AsyncConnection.connect(url)) if is_async else (lambda: psycopg.connect(url))
    job = jobs.task(transaction=opened)(acharge if is_async else charge).enqueue()
    jobs.worker(burst=True).run()
    assert (job.refresh().status, shop(conn)) == (status, [])


def test_transaction_whose_claim_moved_on_rolls_back(jobs: PgJobs, conn: psycopg.Connection) -> None:
    conn.execute("CREATE TABLE orders (id int PRIMARY KEY)")

    @jobs.task(transaction=lambda: psycopg.connect(jobs.database.url))
    def charge(order: int, db: psycopg.Connection) -> None:
        db.execute("INSERT INTO orders VALUES (%s)", [order])
        conn.execute("UPDATE pgjobs.jobs SET claim_id = gen_random_uuid()")

    charge.enqueue(1)
    jobs.worker(burst=True).run()
    assert shop(conn) == []


def test_transaction_without_a_parameter_for_it_is_refused(jobs: PgJobs) -> None:
    with pytest.raises(OptionError, match="no parameter for it; add one, such as session: Session"):
        jobs.task(name="charge", transaction=psycopg.connect)(lambda order: None)
