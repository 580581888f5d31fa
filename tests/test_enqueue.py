"""Enqueueing: in whose transaction, with which options, and what is refused before a row is written."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import psycopg
import psycopg2
import pytest
import sqlalchemy as sa
from psycopg.rows import dict_row
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from pgjobs import (
    ArgumentsError,
    EncodingError,
    JobExistsError,
    JobNotFoundError,
    OptionError,
    PgJobs,
    Retry,
    SchemaError,
    Status,
    TaskError,
)

pytestmark = pytest.mark.server


def count(conn: psycopg.Connection[Any]) -> int:
    row = conn.execute("SELECT count(*) FROM pgjobs.jobs").fetchone()
    assert row is not None
    return int(row[0])


def greet(name: str, times: int = 1) -> str:
    return f"hello {name}" * times


# -- sync connections: each yields what a job is enqueued on, and how its transaction ends


class Given:
    """A connection of the application's with an open transaction."""

    def __init__(self, conn: Any, execute: Callable[[str], Any], end: Callable[[bool], None]) -> None:
        self.conn = conn
        self.execute = execute
        self.end = end


@contextmanager
def psycopg_connection(url: str) -> Iterator[Given]:
    with psycopg.connect(url, row_factory=dict_row) as conn:
        yield Given(conn, conn.execute, lambda ok: conn.commit() if ok else conn.rollback())


@contextmanager
def psycopg_cursor(url: str) -> Iterator[Given]:
    with psycopg.connect(url) as conn, conn.cursor() as cursor:
        yield Given(cursor, conn.execute, lambda ok: conn.commit() if ok else conn.rollback())


@contextmanager
def psycopg2_connection(url: str) -> Iterator[Given]:
    conn = psycopg2.connect(url)
    yield Given(conn, lambda text: conn.cursor().execute(text), lambda ok: conn.commit() if ok else conn.rollback())
    conn.close()


def engine_of(url: str, driver: str) -> sa.Engine:
    return sa.create_engine(url.replace("postgresql://", f"postgresql+{driver}://"))


@contextmanager
def sqlalchemy_connection(url: str, driver: str = "psycopg") -> Iterator[Given]:
    engine = engine_of(url, driver)
    with engine.connect() as conn:
        yield Given(conn, conn.exec_driver_sql, lambda ok: conn.commit() if ok else conn.rollback())
    engine.dispose()


@contextmanager
def sqlalchemy_session(url: str, driver: str = "psycopg") -> Iterator[Given]:
    engine = engine_of(url, driver)
    with Session(engine) as session:
        execute = lambda text: session.execute(sa.text(text))  # noqa: E731
        yield Given(session, execute, lambda ok: session.commit() if ok else session.rollback())
    engine.dispose()


SYNC: dict[str, Callable[[str], AbstractContextManager[Given]]] = {
    "psycopg connection": psycopg_connection,
    "psycopg cursor": psycopg_cursor,
    "psycopg2 connection": psycopg2_connection,
    "SQLAlchemy connection": sqlalchemy_connection,
    "SQLAlchemy connection on psycopg2": lambda url: sqlalchemy_connection(url, "psycopg2"),
    "SQLAlchemy session": sqlalchemy_session,
    "SQLAlchemy session on psycopg2": lambda url: sqlalchemy_session(url, "psycopg2"),
}
sync_kinds = pytest.mark.parametrize("open_", SYNC.values(), ids=SYNC)


@sync_kinds
@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
def test_job_belongs_to_the_callers_transaction(
    open_: Callable[[str], AbstractContextManager[Given]],
    many: bool,
    jobs: PgJobs,
    database_url: str,
    conn: psycopg.Connection[Any],
) -> None:
    task = jobs.task(greet)
    with open_(database_url) as given:
        for commits in (False, True):
            given.execute("SELECT 1")
            if many:
                task.using(given.conn).enqueue_many([("ann",), ("bob",), {"name": "cid"}])
            else:
                task.using(given.conn, priority=3).enqueue("ann")
            assert count(conn) == 0, "nothing is committed on a borrowed connection"
            given.end(commits)
        assert count(conn) == (3 if many else 1)


@sync_kinds
def test_rollback_to_a_savepoint_takes_the_job_back(
    open_: Callable[[str], AbstractContextManager[Given]],
    jobs: PgJobs,
    database_url: str,
    conn: psycopg.Connection[Any],
) -> None:
    task = jobs.task(greet)
    with open_(database_url) as given:
        given.execute("SAVEPOINT here")
        task.using(given.conn).enqueue("undone")
        given.execute("ROLLBACK TO SAVEPOINT here")
        task.using(given.conn).enqueue("kept")
        given.end(True)
    assert conn.execute("SELECT args FROM pgjobs.jobs").fetchall() == [({"name": "kept"},)]


@sync_kinds
def test_a_bulk_as_large_as_copy_takes_is_all_or_nothing(
    open_: Callable[[str], AbstractContextManager[Given]],
    jobs: PgJobs,
    database_url: str,
    conn: psycopg.Connection[Any],
) -> None:
    task = jobs.task(greet)
    calls = [(f'tab\t quote" back\\slash\nline {i}',) for i in range(2_500)]
    with open_(database_url) as given:
        task.using(given.conn).enqueue_many(calls)
        given.end(False)
        assert count(conn) == 0
        ids = task.using(given.conn).enqueue_many(calls)
        given.end(True)
    stored = conn.execute("SELECT id, args->>'name' FROM pgjobs.jobs ORDER BY position").fetchall()
    assert stored == list(zip(ids, [call[0] for call in calls], strict=True))


# -- async connections


@asynccontextmanager
async def async_psycopg(url: str) -> AsyncIterator[Given]:
    async with await psycopg.AsyncConnection.connect(url) as conn:
        yield Given(conn, conn.execute, lambda ok: conn.commit() if ok else conn.rollback())


@asynccontextmanager
async def async_psycopg_cursor(url: str) -> AsyncIterator[Given]:
    async with await psycopg.AsyncConnection.connect(url) as conn, conn.cursor() as cursor:
        yield Given(cursor, conn.execute, lambda ok: conn.commit() if ok else conn.rollback())


@asynccontextmanager
async def async_engine_connection(url: str, driver: str) -> AsyncIterator[Given]:
    engine = create_async_engine(url.replace("postgresql://", f"postgresql+{driver}://"))
    async with engine.connect() as conn:
        yield Given(conn, conn.exec_driver_sql, lambda ok: conn.commit() if ok else conn.rollback())
    await engine.dispose()


@asynccontextmanager
async def async_session(url: str, driver: str) -> AsyncIterator[Given]:
    engine = create_async_engine(url.replace("postgresql://", f"postgresql+{driver}://"))
    async with AsyncSession(engine) as session:
        execute = lambda text: session.execute(sa.text(text))  # noqa: E731
        yield Given(session, execute, lambda ok: session.commit() if ok else session.rollback())
    await engine.dispose()


@asynccontextmanager
async def asyncpg_connection(url: str) -> AsyncIterator[Given]:
    conn = await asyncpg.connect(url)
    transaction = conn.transaction()
    await transaction.start()

    async def end(ok: bool) -> None:
        nonlocal transaction
        await (transaction.commit() if ok else transaction.rollback())
        transaction = conn.transaction()
        await transaction.start()

    yield Given(conn, conn.execute, end)
    await transaction.rollback()
    await conn.close()


ASYNC: dict[str, Callable[[str], AbstractAsyncContextManager[Given]]] = {
    "psycopg": async_psycopg,
    "psycopg cursor": async_psycopg_cursor,
    "SQLAlchemy connection": lambda url: async_engine_connection(url, "psycopg"),
    "SQLAlchemy connection on asyncpg": lambda url: async_engine_connection(url, "asyncpg"),
    "SQLAlchemy session": lambda url: async_session(url, "psycopg"),
    "SQLAlchemy session on asyncpg": lambda url: async_session(url, "asyncpg"),
    "asyncpg": asyncpg_connection,
}
async_kinds = pytest.mark.parametrize("open_", ASYNC.values(), ids=ASYNC)


@async_kinds
@pytest.mark.parametrize("many", [0, 3, 2_500], ids=["one", "many", "bulk"])
async def test_job_belongs_to_the_callers_async_transaction(
    open_: Callable[[str], AbstractAsyncContextManager[Given]],
    many: int,
    jobs: PgJobs,
    database_url: str,
    conn: psycopg.Connection[Any],
) -> None:
    task = jobs.task(greet)
    async with open_(database_url) as given:
        for commits in (False, True):
            await given.execute("SELECT 1")
            if many:
                await task.using(given.conn).aenqueue_many([("ann",)] * many)
            else:
                await task.using(given.conn, delay=60, ttl=90, queue="mail").aenqueue("ann")
            assert count(conn) == 0
            await given.end(commits)
        assert count(conn) == max(1, many)
    await jobs.aclose()


@async_kinds
async def test_rollback_to_a_savepoint_takes_the_async_job_back(
    open_: Callable[[str], AbstractAsyncContextManager[Given]],
    jobs: PgJobs,
    database_url: str,
    conn: psycopg.Connection[Any],
) -> None:
    task = jobs.task(greet)
    async with open_(database_url) as given:
        await given.execute("SAVEPOINT here")
        await task.using(given.conn).aenqueue("undone")
        await given.execute("ROLLBACK TO SAVEPOINT here")
        await task.using(given.conn).aenqueue("kept")
        await given.end(True)
    assert conn.execute("SELECT args FROM pgjobs.jobs").fetchall() == [({"name": "kept"},)]


async def test_sync_call_on_an_async_connection_names_the_twin(jobs: PgJobs, database_url: str) -> None:
    task = jobs.task(greet)
    async with async_psycopg(database_url) as given:
        with pytest.raises(TypeError, match="aenqueue"):
            task.using(given.conn).enqueue("ann")


def test_what_is_no_connection_is_refused_by_name(jobs: PgJobs) -> None:
    with pytest.raises(TypeError, match="not a connection"):
        jobs.task(greet).using(object()).enqueue("ann")


def test_own_transaction_commits_at_once(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    job = jobs.task(greet).enqueue("ann")
    assert conn.execute("SELECT id, status, args FROM pgjobs.jobs").fetchone() == (job.id, "queued", {"name": "ann"})


async def test_async_twin_enqueues_in_its_own_transaction(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    task = jobs.task(greet)
    job = await task.aenqueue("ann")
    assert [row[0] for row in conn.execute("SELECT id FROM pgjobs.jobs")] == [job.id]
    assert (await job.arefresh()).status is Status.QUEUED
    assert len(await task.aenqueue_many([("x",)] * 1_500)) == 1_500
    await jobs.aclose()


def test_pools_serve_many_threads_and_loops(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    task = jobs.task(greet)

    done = threading.Event()

    async def on_a_loop() -> None:
        await asyncio.gather(*(task.aenqueue("loop") for _ in range(10)))
        await asyncio.to_thread(done.wait)
        await jobs.aclose()

    threads = [threading.Thread(target=lambda: [task.enqueue("thread") for _ in range(10)]) for _ in range(4)]
    loops = [threading.Thread(target=lambda: asyncio.run(on_a_loop())) for _ in range(2)]
    for thread in threads + loops:
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    for thread in loops:
        thread.join()
    assert count(conn) == 60


# -- options


def test_options_of_the_call_go_before_those_of_the_task(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    task = jobs.task(queue="mail", priority=5, timeout=30, retry=Retry(max_attempts=7))(greet)
    task.enqueue("ann")
    task.using(queue="urgent", priority=-3, timeout=None, retry=2, ttl="10m").enqueue("bob")
    assert conn.execute(
        "SELECT queue, priority, max_attempts, timeout, expires_at - created_at FROM pgjobs.jobs ORDER BY position"
    ).fetchall() == [("mail", 5, 7, timedelta(seconds=30), None), ("urgent", -3, 2, None, timedelta(minutes=10))]


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"delay": "1h"}, "scheduled"),
        ({"delay": 0}, "queued"),
        ({"run_at": datetime.now(UTC) + timedelta(hours=1)}, "scheduled"),
        ({"run_at": datetime.now(UTC) - timedelta(hours=1)}, "queued"),
    ],
    ids=["delay", "no delay", "run_at", "past run_at"],
)
@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
def test_job_with_an_earliest_start_waits_for_it(
    options: Any, status: str, many: bool, jobs: PgJobs, conn: psycopg.Connection[Any]
) -> None:
    call = jobs.task(greet).using(**options)
    if many:
        call.enqueue_many([("ann",)])
    else:
        call.enqueue("ann")
    assert conn.execute("SELECT status, due_at IS NOT NULL, position IS NULL FROM pgjobs.jobs").fetchall() == [
        (status, status == "scheduled", status == "scheduled")
    ]


def test_delay_of_the_call_replaces_run_at_of_the_task(jobs: PgJobs) -> None:
    task = jobs.task(delay="1h")(greet)
    at = datetime.now(UTC) + timedelta(days=1)
    assert task.using(run_at=at).enqueue("ann").row.due_at == at


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"queue": "no spaces"}, "letters, digits"),
        ({"priority": 101}, "from -100 to 100"),
        ({"priority": True}, "from -100 to 100"),
        ({"delay": -1}, "from 0"),
        ({"delay": "soon"}, "'10m'"),
        ({"delay": 1, "run_at": datetime.now(UTC)}, "give one of them"),
        ({"run_at": datetime.now()}, "time zone"),
        ({"timeout": 0}, "timeout is 0"),
        ({"retry": 0}, "retry is 0"),
        ({"ttl": float("nan")}, "from 0"),
        ({"job_id": "x"}, "not a UUID"),
        ({"to": "ann"}, "not known"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else None,
)
def test_option_that_cannot_be_meant_is_refused(
    options: Any, says: str, jobs: PgJobs, conn: psycopg.Connection[Any]
) -> None:
    with pytest.raises(OptionError, match=says):
        jobs.task(greet).using(**options).enqueue("ann")
    assert count(conn) == 0


def test_id_of_ones_own_makes_enqueueing_idempotent(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    own = uuid4()
    assert jobs.task(greet).using(job_id=str(own)).enqueue("ann").id == own
    with pytest.raises(JobExistsError, match=str(own)):
        jobs.using(job_id=own).enqueue(greet, "ann")
    assert count(conn) == 1


# -- arguments


@pytest.mark.parametrize(
    ("args", "kwargs", "error", "says"),
    [
        ((), {}, ArgumentsError, "missing a required argument"),
        (("ann", 1, 2), {}, ArgumentsError, "too many positional"),
        ((), {"name": "ann", "tmes": 2}, ArgumentsError, "tmes"),
        (("ann", "2"), {}, ArgumentsError, r"\$\.times"),
        ((7,), {}, ArgumentsError, r"\$\.name"),
        (("nul\0",), {}, EncodingError, "u0000"),
        (("\ud800",), {}, EncodingError, "surrogate"),
        (("x" * 1_000_001,), {}, EncodingError, "1,000,000"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_before_a_row_is_written(
    args: Any, kwargs: Any, error: type[Exception], says: str, jobs: PgJobs, conn: psycopg.Connection[Any]
) -> None:
    task = jobs.task(greet)
    with pytest.raises(error, match=says):
        task.enqueue(*args, **kwargs)
    with pytest.raises(error, match=says):
        task.enqueue_many([("good",)] * 1_500 + [kwargs or args])
    assert count(conn) == 0


def test_nan_is_refused(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    @jobs.task
    def weigh(grams: float) -> None: ...

    with pytest.raises(EncodingError, match="nan"):
        weigh.enqueue(float("nan"))
    assert count(conn) == 0


def test_slip_in_a_bulk_is_found_and_named(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    with pytest.raises(ArgumentsError, match=r"write \(value,\) for one argument \(call 1 of enqueue_many, from 0;"):
        jobs.task(greet).enqueue_many([("ann",), "bob"])  # type: ignore[list-item]
    with pytest.raises(ArgumentsError, match=r"\$\.name.* \(call 1999 of enqueue_many, from 0; no job was enqueued\)"):
        jobs.task(greet).enqueue_many([("ann",)] * 1_999 + [(5,)] + [("bob",)])
    with pytest.raises(EncodingError, match=r"call 1999 of enqueue_many"):
        jobs.using().enqueue_many("greet", [("ann",)] * 1_999 + [(float("nan"),)])
    assert count(conn) == 0


async def test_session_of_another_database_is_refused_in_words(jobs: PgJobs) -> None:
    task = jobs.task(greet)
    with Session(sa.create_engine("sqlite://")) as session:
        with pytest.raises(OptionError, match=r"is sqlite's, and jobs are in PostgreSQL; give one of"):
            task.using(session).enqueue("ann")
        with pytest.raises(OptionError, match="sqlite's"):
            await task.using(session).aenqueue("ann")


def test_bulk_takes_any_iterable(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    ids = jobs.task(greet).enqueue_many((f"n{i}", i) for i in range(3))
    assert [row[0] for row in conn.execute("SELECT id FROM pgjobs.jobs ORDER BY position")] == ids
    assert jobs.task(greet).enqueue_many([]) == []


# -- functions and names


def test_plain_function_needs_no_decorator(jobs: PgJobs) -> None:
    job = jobs.enqueue(greet, "ann", times=2)
    assert (job.task, job.args) == ("tests.test_enqueue:greet", {"name": "ann", "times": 2})
    with pytest.raises(ArgumentsError):
        jobs.enqueue(greet, nobody="ann")


def test_path_that_cannot_be_imported_here_carries_its_positionals(jobs: PgJobs) -> None:
    job = jobs.enqueue("elsewhere.tasks:send", "ann", copies=2)
    assert (job.task, job.args) == ("elsewhere.tasks:send", {"*": ["ann"], "copies": 2})


def test_name_of_a_registered_task_is_that_task(jobs: PgJobs) -> None:
    jobs.task(name="mail.greet", queue="mail")(greet)
    with pytest.raises(ArgumentsError):
        jobs.enqueue("mail.greet")
    assert jobs.enqueue("mail.greet", "ann").queue == "mail"


class Greeter:
    def greet(self) -> None: ...


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda: None, "lambda"),
        (Greeter().greet, "method|plain function"),
        (Greeter, "not a plain function"),
        (len, "not a plain function"),
        ("", "empty"),
    ],
)
def test_function_that_a_worker_could_not_find_is_refused(function: Any, says: str, jobs: PgJobs) -> None:
    with pytest.raises(TaskError, match=says):
        jobs.enqueue(function)


def test_nested_function_is_refused_with_the_remedy(jobs: PgJobs) -> None:
    def inner() -> None: ...

    with pytest.raises(TaskError, match="decorate it"):
        jobs.enqueue(inner)


def test_two_tasks_cannot_have_one_name(jobs: PgJobs) -> None:
    jobs.task(name="mail")(greet)
    with pytest.raises(TaskError, match="another name="):
        jobs.task(name="mail")(count)
    jobs.task(name="mail")(greet)


# -- SQL


def test_row_inserted_by_hand_is_a_job(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    conn.execute("INSERT INTO pgjobs.jobs (task, args) VALUES ('mail.greet', '{\"name\": \"ann\"}')")
    jobs.task(name="mail.greet")(greet)
    jobs.worker(burst=True).run()
    assert conn.execute("SELECT status, result FROM pgjobs.jobs").fetchall() == [("succeeded", "hello ann")]


@pytest.mark.parametrize(
    ("statement", "constraint"),
    [
        ("INSERT INTO pgjobs.jobs (task, run_at) VALUES ('t', now() + interval '1 hour')", "run_at_needs_due_at"),
        ("INSERT INTO pgjobs.jobs (task, status, position) VALUES ('t', 'done', NULL)", "status_is_known"),
        ("INSERT INTO pgjobs.jobs (task, status) VALUES ('t', 'running')", "position_means_queued"),
        ("INSERT INTO pgjobs.jobs (task, priority) VALUES ('t', 101)", "priority_range"),
        ("INSERT INTO pgjobs.jobs (task, args) VALUES ('t', '[1]')", "args_is_object"),
    ],
)
def test_row_that_makes_no_sense_is_refused_by_the_table(
    statement: str, constraint: str, conn: psycopg.Connection[Any]
) -> None:
    with pytest.raises(psycopg.errors.CheckViolation, match=constraint):
        conn.execute(statement.encode())


def test_sql_function_enqueues_in_the_callers_transaction(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    with conn.transaction(force_rollback=True):
        conn.execute("SELECT pgjobs.enqueue('mail.greet')")
    row = conn.execute(
        "SELECT pgjobs.enqueue('mail.greet', %s, priority => 7, ttl => interval '5 min', max_attempts => 2)",
        [json.dumps({"name": "ann"})],
    ).fetchone()
    assert row is not None
    assert isinstance(row[0], UUID)
    job = jobs.job(row[0])
    assert (job.args, job.row.priority, job.row.max_attempts) == ({"name": "ann"}, 7, 2)
    assert count(conn) == 1


# -- handles and errors


def test_handle_of_an_open_transaction_reads_within_it(jobs: PgJobs, database_url: str) -> None:
    with psycopg.connect(database_url) as conn:
        job = jobs.task(greet).using(conn).enqueue("ann")
        assert job.status is Status.QUEUED
        with pytest.raises(JobNotFoundError, match="not committed"):
            jobs.job(job.id)
        conn.rollback()
    with pytest.raises(JobNotFoundError):
        job.refresh()


def test_missing_schema_says_what_to_run(jobs: PgJobs, database_url: str) -> None:
    other = PgJobs(database_url, schema="nowhere")
    with pytest.raises(SchemaError, match="pgjobs migrate --schema nowhere"):
        other.task(greet).enqueue("ann")
    other.close()


def test_unreachable_database_says_so_at_once() -> None:
    jobs = PgJobs("postgresql://127.0.0.1:1/none")
    with pytest.raises(psycopg.OperationalError, match="refused"):
        jobs.enqueue(greet, "ann")


def test_engines_and_pools_say_where_the_database_is(database_url: str, conn: psycopg.Connection[Any]) -> None:
    from psycopg_pool import ConnectionPool

    engine = engine_of(database_url, "psycopg")
    with ConnectionPool(database_url, min_size=1) as pool:
        for source in (engine, pool):
            jobs = PgJobs(source)
            jobs.enqueue(greet, "ann")
            jobs.close()
    engine.dispose()
    assert count(conn) == 2
    with pytest.raises(OptionError, match="no database"):
        PgJobs(42).enqueue(greet, "ann")


async def test_async_pool_says_where_the_database_is_and_is_used(
    database_url: str, conn: psycopg.Connection[Any]
) -> None:
    from psycopg_pool import AsyncConnectionPool

    async with AsyncConnectionPool(database_url, min_size=1, open=False) as pool:
        jobs = PgJobs(pool)
        await jobs.aenqueue(greet, "ann")
        asked = pool.get_stats()["requests_num"]
        jobs.enqueue(greet, "ann")  # by a pool of its own
        assert (asked, pool.get_stats()["requests_num"]) == (1, 1)
        await jobs.aclose()
        assert not pool.closed
    assert count(conn) == 2


def test_enqueueing_goes_on_after_a_restart_of_the_server(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    task = jobs.task(greet)
    for _ in range(3):
        task.enqueue("before")
    conn.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'pgjobs' AND datname = current_database()"
    )
    task.enqueue("after")
    assert count(conn) == 4
