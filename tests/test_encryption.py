"""Encrypted tasks: whatever way a job takes, the table holds ciphertext and the application sees its own values."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine

from pgjobs import (
    ArgumentsError,
    ConfigurationError,
    DecryptionError,
    EncodingError,
    PgJobs,
    Retry,
    Status,
    current_job,
)
from pgjobs.arguments.cipher import SEALED, generate
from tests.apps import sealed
from tests.processes import WorkerProcess, pgjobs
from tests.support import eventually

pytestmark = pytest.mark.server

CANARY = "canary-5f1c"
OLD, NEW = generate(), generate()


@pytest.fixture
def jobs(database_url: str) -> Iterator[PgJobs]:
    """A queue with keys, the older one still in use."""
    app = PgJobs(database_url, keys=[OLD])
    try:
        yield app
    finally:
        app.close()


@pytest.fixture
def dump(conn: psycopg.Connection[Any]) -> Callable[[], str]:
    """All that stands in the tables, as a reader or a backup sees it."""

    def read() -> str:
        tables = conn.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'pgjobs'")
        return "".join(str(conn.execute(f"SELECT * FROM pgjobs.{name}".encode()).fetchall()) for (name,) in tables)

    return read


def echo(word: str, times: int = 1) -> str:
    return word * times


async def aecho(word: str, times: int = 1) -> str:
    return word * times


def test_every_way_to_enqueue_stores_ciphertext(jobs: PgJobs, dump: Callable[[], str]) -> None:
    task = jobs.task(encrypt=True)(echo)
    single = task.enqueue(CANARY, times=2)
    ids = [single.id, *task.enqueue_many([(CANARY,), {"word": CANARY}]), *task.enqueue_many([(CANARY,)] * 1_500)]
    ids += [jobs.enqueue(task, CANARY).id, jobs.enqueue(task.name, CANARY).id, task.using(delay=1).enqueue(CANARY).id]
    with psycopg.connect(jobs.database.url) as conn:
        ids.append(task.using(conn).enqueue(CANARY).id)
        ids += task.using(conn).enqueue_many([(CANARY,)] * 1_001)
    engine = create_engine(jobs.database.url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        ids.append(task.using(connection).enqueue(CANARY).id)
    engine.dispose()
    assert CANARY not in dump()
    assert all(jobs.job(job_id).args["word"] == CANARY for job_id in (*ids[:5], *ids[-1_005:-998], ids[-1]))
    assert single.args == {"word": CANARY, "times": 2}
    assert list(single.row.args) == [SEALED]


async def test_every_way_to_await_an_enqueue_stores_ciphertext(jobs: PgJobs, dump: Callable[[], str]) -> None:
    task = jobs.task(encrypt=True)(echo)
    single = await task.aenqueue(CANARY)
    ids = [single.id, *await task.aenqueue_many([(CANARY,)] * 1_200)]
    engine = create_async_engine(jobs.database.url.replace("postgresql:", "postgresql+asyncpg:"))
    async with engine.begin() as connection:
        ids.append((await task.using(connection).aenqueue(CANARY)).id)
    await engine.dispose()
    assert CANARY not in dump()
    assert [(await jobs.ajob(job_id)).args for job_id in (ids[0], ids[1], ids[-1])] == [{"word": CANARY}] * 3
    await jobs.aclose()


def test_threads_and_coroutines_run_it_and_their_results_are_ciphertext(jobs: PgJobs, dump: Callable[[], str]) -> None:
    tasks = [jobs.task(encrypt=True, name=function.__name__)(function) for function in (echo, aecho)]
    enqueued = [task.enqueue(CANARY, 2) for task in tasks]
    jobs.worker(burst=True).run()
    assert [job.get(5) for job in enqueued] == [CANARY * 2] * 2
    assert [job.result for job in enqueued] == [CANARY * 2] * 2
    assert CANARY not in dump()


def test_process_runs_it_and_its_result_is_ciphertext(
    database_url: str, dump: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGJOBS_KEYS", OLD)
    monkeypatch.setenv("PGJOBS_URL", database_url)
    app = PgJobs(database_url)
    task = app.task(encrypt=True, executor="process", name=sealed.apart.name)(sealed.apart.function)
    with WorkerProcess(database_url, app="tests.apps.sealed", PGJOBS_KEYS=OLD).ready() as worker:
        job = task.enqueue(CANARY)
        assert job.get(30) == {"word": CANARY, "seen": {"word": CANARY}}
        worker.signal(15)
        worker.leave()
    app.close()
    assert CANARY not in dump()
    assert not worker.said(CANARY)


def test_completion_in_a_transaction_stores_ciphertext(jobs: PgJobs, dump: Callable[[], str]) -> None:
    @jobs.task(encrypt=True)
    def charge(word: str) -> None:
        with psycopg.connect(jobs.database.url) as conn:
            assert current_job().args == {"word": CANARY}
            current_job().complete(conn, {"said": word})

    job = charge.enqueue(CANARY)
    jobs.worker(burst=True).run()
    assert job.get(5) == {"said": CANARY}
    assert CANARY not in dump()


def test_without_a_key_nothing_is_written(
    database_url: str, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PGJOBS_KEYS", raising=False)
    app = PgJobs(database_url)
    task = app.task(encrypt=True)(echo)
    for enqueue in (
        lambda: task.enqueue("a"),
        lambda: task.enqueue_many([("a",)]),
        lambda: task.using(conn).enqueue("a"),
    ):
        with pytest.raises(ConfigurationError, match="keys generate"):
            enqueue()
    app.close()
    assert conn.execute("SELECT count(*) FROM pgjobs.jobs").fetchone() == (0,)


def test_arguments_are_checked_before_they_are_encrypted(jobs: PgJobs) -> None:
    task = jobs.task(encrypt=True)(echo)
    with pytest.raises(ArgumentsError):
        task.enqueue(CANARY, "many")  # type: ignore[arg-type]
    with pytest.raises(EncodingError):
        task.enqueue("x" * 900_000)


def test_job_that_no_key_opens_waits_with_the_reason_and_runs_once_there_is_one(
    jobs: PgJobs, database_url: str, conn: psycopg.Connection[Any]
) -> None:
    job = jobs.task(encrypt=True, name="echo", retry=Retry(max_attempts=1))(echo).enqueue(CANARY)
    stranger = PgJobs(database_url, keys=[NEW])
    stranger.task(encrypt=True, name="echo")(echo)
    with stranger.worker():
        eventually(lambda: job.refresh().status is Status.SCHEDULED)
    assert job.reason is not None
    assert job.reason.startswith("arguments do not fit: no key fits")
    assert (job.attempt, job.failures()) == (0, [])
    with pytest.raises(DecryptionError, match="no key fits"):
        _ = stranger.job(job.id).args
    stranger.close()
    conn.execute("UPDATE pgjobs.jobs SET due_at = now()")
    with jobs.worker():
        assert job.get(10) == CANARY


def test_worker_without_a_key_sends_even_open_rows_back_since_it_could_not_store_their_results(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PGJOBS_KEYS", raising=False)
    app = PgJobs(database_url)
    app.task(encrypt=True, name="echo")(echo)
    stranger = PgJobs(database_url)
    job = stranger.enqueue("echo", word="a")
    stranger.close()
    with app.worker():
        eventually(lambda: job.refresh().status is Status.SCHEDULED)
    assert "there is no key to encrypt with" in (job.reason or "")
    app.close()


def test_open_row_of_an_encrypting_task_runs_and_its_result_is_sealed(
    jobs: PgJobs, conn: psycopg.Connection[Any]
) -> None:
    jobs.task(encrypt=True, name="echo")(echo)
    row = conn.execute("SELECT pgjobs.enqueue('echo', '{\"word\": \"open\"}')").fetchone()
    assert row is not None
    jobs.worker(burst=True).run()
    job = jobs.job(row[0])
    assert (job.args, job.get(5)) == ({"word": "open"}, "open")
    assert list(job.row.result) == [SEALED]


# -- keys


def rotate(url: str, *arguments: str, keys: str) -> tuple[int, list[str]]:
    done = pgjobs(url, "keys", "rotate", *arguments, PGJOBS_KEYS=keys)
    assert "Traceback" not in done.stderr
    return done.returncode, (done.stdout or done.stderr).splitlines()


def test_rotation_leaves_everything_under_the_first_key_and_changes_no_other_column(
    jobs: PgJobs, database_url: str, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgjobs.cli.keys.CHUNK", 100)
    task = jobs.task(encrypt=True)(echo)
    done = task.enqueue(CANARY)
    jobs.worker(burst=True).run()
    ids = task.enqueue_many([(f"{CANARY} {i}",) for i in range(700)])
    conn.execute("SELECT pgjobs.enqueue('echo', '{\"word\": \"open\"}')")
    others = "SELECT to_jsonb(job) - 'args' - 'result' FROM pgjobs.jobs AS job ORDER BY id"
    before = conn.execute(others.encode()).fetchall()
    assert rotate(database_url, "--dry-run", keys=f"{NEW},{OLD}") == (0, ["701 would be encrypted with the first key"])
    assert jobs.job(ids[0]).args == {"word": f"{CANARY} 0"}
    assert rotate(database_url, keys=f"{NEW},{OLD}") == (0, ["701 encrypted with the first key"])
    assert conn.execute(others.encode()).fetchall() == before
    assert rotate(database_url, keys=NEW) == (0, ["0 encrypted with the first key", "701 under it before"])
    after = PgJobs(database_url, keys=[NEW])
    assert [after.job(ids[i]).args["word"] for i in (0, 699)] == [f"{CANARY} 0", f"{CANARY} 699"]
    assert after.job(done.id).get(1) == CANARY
    after.close()


def test_rotation_passes_over_rows_that_somebody_holds_and_says_so(
    jobs: PgJobs, database_url: str, conn: psycopg.Connection[Any]
) -> None:
    held, free = (jobs.task(encrypt=True)(echo).enqueue(CANARY) for _ in range(2))
    with conn.transaction():
        conn.execute("SELECT FROM pgjobs.jobs WHERE id = %s FOR UPDATE", [held.id])
        code, lines = rotate(database_url, keys=f"{NEW},{OLD}")
    assert (code, lines[0]) == (1, "1 encrypted with the first key")
    assert lines[1].startswith("1 left, since something else held")
    assert held.refresh().args == {"word": CANARY}
    assert rotate(database_url, keys=f"{NEW},{OLD}")[1] == ["1 encrypted with the first key", "1 under it before"]
    with pytest.raises(DecryptionError):
        _ = free.refresh().args


def test_rotation_reports_what_no_key_opens_and_leaves_it(jobs: PgJobs, database_url: str) -> None:
    job = jobs.task(encrypt=True)(echo).enqueue(CANARY)
    code, lines = rotate(database_url, keys=NEW)
    assert (code, lines[0]) == (1, "0 encrypted with the first key")
    assert lines[1].startswith("1 left, since no key opens them")
    assert job.refresh().args == {"word": CANARY}


def test_rotation_writes_hot_updates(jobs: PgJobs, database_url: str, conn: psycopg.Connection[Any]) -> None:
    jobs.task(encrypt=True)(echo).enqueue_many([(str(i),) for i in range(100)])
    assert rotate(database_url, keys=f"{NEW},{OLD}")[0] == 0

    def updates() -> tuple[int, int]:
        conn.execute("SELECT pg_stat_clear_snapshot()")
        row = conn.execute("SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'jobs'").fetchone()
        assert row is not None
        return row[0], row[1]

    eventually(lambda: updates()[0] >= 100)
    assert updates()[1] >= 90  # the last row of a page may find no room in it


def test_rotation_beside_a_worker_stops_no_job(database_url: str, conn: psycopg.Connection[Any]) -> None:
    """Which has the new key already, as the docs say."""
    jobs = PgJobs(database_url, keys=[OLD, NEW])
    jobs.task(encrypt=True)(echo).enqueue_many([(str(i),) for i in range(2_000)])
    with jobs.worker():
        for _ in range(2):
            rotate(database_url, keys=f"{NEW},{OLD}")
        left = "SELECT count(*) FROM pgjobs.jobs WHERE status <> 'succeeded'"
        eventually(lambda: conn.execute(left).fetchone() == (0,), 30)
    jobs.close()


def test_command_makes_keys_that_work_and_never_prints_one_that_is_in_use(jobs: PgJobs, database_url: str) -> None:
    made = pgjobs(database_url, "keys", "generate").stdout.strip()
    PgJobs(database_url, keys=[made]).cipher.check()
    for keys in ("", "canary-key", f"{OLD},canary-key"):
        done = pgjobs(database_url, "keys", "rotate", PGJOBS_KEYS=keys)
        assert done.returncode == 2
        assert "keys generate" in done.stderr
        assert "canary" not in json.dumps([done.stdout, done.stderr])
        assert OLD not in done.stderr


def test_what_a_run_logs_is_ciphertext(jobs: PgJobs, dump: Callable[[], str]) -> None:
    @jobs.task(encrypt=True, capture_logs="info")
    def say(word: str) -> None:
        current_job().log(f"said {word}")
        logging.getLogger(__name__).warning("logged %s", word)

    job = say.enqueue(CANARY)
    jobs.worker(burst=True).run()
    assert sorted(line.line for line in job.logs()) == [f"logged {CANARY}", f"said {CANARY}"]
    assert CANARY not in dump()
    shown = pgjobs(jobs.database.url, "jobs", "logs", str(job.id), PGJOBS_KEYS=OLD)
    assert "[encrypted]" in shown.stdout
    assert CANARY not in shown.stdout + pgjobs(jobs.database.url, "jobs", "logs", str(job.id), "--json").stdout
    without = PgJobs(jobs.database.url, keys=[NEW])
    with pytest.raises(DecryptionError, match="no key fits"):
        without.job(job.id).logs()
    without.close()


def test_what_a_process_writes_is_ciphertext(database_url: str, dump: Callable[[], str]) -> None:
    with WorkerProcess(database_url, app="tests.apps.sealed", PGJOBS_KEYS=OLD).ready() as worker:
        app = PgJobs(database_url, keys=[OLD])
        task = app.task(encrypt=True, executor="process", capture=True, name=sealed.loud.name)(sealed.loud.function)
        job = task.enqueue(CANARY)
        job.get(30)
        assert CANARY in (job.output() or "")
        assert f"from afar: {CANARY}" in [line.line for line in job.logs()]
        shown = pgjobs(database_url, "jobs", "show", str(job.id), PGJOBS_KEYS=OLD)
        assert "[encrypted]" in shown.stdout
        app.close()
        worker.signal(15)
        worker.leave()
    assert CANARY not in dump() + shown.stdout


def test_line_that_only_looks_sealed_is_no_trouble(jobs: PgJobs) -> None:
    @jobs.task
    def say() -> None:
        current_job().log('{"$encrypted": 5')

    job = say.enqueue()
    jobs.worker(burst=True).run()
    assert [line.line for line in job.logs()] == ['{"$encrypted": 5']
