"""A password and a private argument, sown everywhere, are found in nothing that pgjobs says."""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import ConnectionPool
from sqlalchemy import create_engine

from pgjobs import PgJobs, Private, Queue
from pgjobs.connections.database import Database
from pgjobs.connections.link import Link
from pgjobs.errors import ConfigurationError
from tests.processes import ROOT, WorkerProcess, pgjobs
from tests.support import eventually

pytestmark = [pytest.mark.server, pytest.mark.slow]

CANARY = "canary-a91e"
COMMANDS = (
    ("tail",), ("tail", "--json"), ("mark", "--list"), ("info",), ("info", "--json"),
    ("workers",), ("workers", "--json"), ("jobs", "list"), ("jobs", "list", "--json"),
    ("jobs", "cancel", "--queue", "q", "--yes"), ("jobs", "retry", "--queue", "q", "--yes"),
    ("jobs", "delete", "--queue", "q", "--yes"), ("jobs", "show", "00000000-0000-7000-8000-000000000000"),
    ("purge", "--all", "--yes"), ("enqueue", "f"), ("migrate", "--check"), ("migrate",), ("roles", "check"),
    ("keys", "rotate"), ("bench", "--help"), ("doctor",),
)  # fmt: skip

SPILT = (
    "postgresql://u:p@{}@127.0.0.1:1/db", "postgresql://u:@{}@127.0.0.1:1/db", "postgresql://u:p/{}@127.0.0.1:1/db",
    "postgresql://u:{}/x@127.0.0.1:1/db", "postgresql://u:{}/db", "postgresql+psycopg://u:p@{}@127.0.0.1:1/db",
    "host=p@{}@127.0.0.1 port=1", "postgresql://u:{},x@[::1/db",
)  # fmt: skip
"""Passwords with an unescaped @, / or comma, a part of which libpq takes for the host, the port or the database."""


@pytest.fixture
def secret_url(direct_url: str, conn: psycopg.Connection[Any]) -> Iterator[str]:
    """The database for a user with the password, which a server that trusts everybody does not even ask for."""
    user = f"u{conn.info.backend_pid}"
    conn.execute(
        sql.SQL("CREATE ROLE {} LOGIN SUPERUSER PASSWORD {}").format(sql.Identifier(user), sql.Literal(CANARY))
    )
    parts = urlsplit(direct_url)
    try:
        yield parts._replace(netloc=f"{user}:{CANARY}@{parts.hostname}:{parts.port}").geturl()
    finally:
        conn.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", [user])
        conn.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(user)))


def login(user: str, password: Annotated[str, Private], level: int = 0) -> None: ...


def said(act: Callable[[], object]) -> str:
    """All of an error that a log might show: text, notes, causes and traceback."""
    try:
        act()
    except BaseException as error:
        return "".join(traceback.format_exception(error)) + repr(error)
    return ""


def test_no_repr_shows_the_password(secret_url: str) -> None:
    jobs = PgJobs(secret_url)
    task = jobs.task(login)
    link = Link(jobs.database, "x")
    job = task.enqueue("ann", CANARY)
    link.check_schema()
    engine = create_engine(secret_url.replace("postgresql:", "postgresql+psycopg:"))
    shown = [
        jobs, jobs.database, Database(secret_url, "pgjobs"), task, task.using(), job, job.refresh(), link,
        Queue(connection=jobs),
        jobs.cipher, jobs.worker(), PgJobs(engine), PgJobs(engine).database, jobs.database.where, task.signature,
    ]  # fmt: skip
    with ConnectionPool(secret_url, min_size=1, open=True) as pool:
        shown += [PgJobs(pool), PgJobs(pool).database]
        assert CANARY not in repr(shown)
    link.close()
    jobs.close()
    engine.dispose()


@pytest.mark.parametrize(
    "broken",
    ["postgresql://u:{}@127.0.0.1:1/db", "postgresql://u:{}@host.invalid/db", "postgresql://u:{}@127.0.0.1:x/db",
     "postgresql://u:{}@127.0.0.1/db?nonsense=1", "host=127.0.0.1 port=1 password={} user='", "postgresql://u:{}@[::1/db",
     "mysql://u:{}@h/db", "{}", *SPILT],
)  # fmt: skip
def test_no_error_of_a_database_out_of_reach_shows_the_password(broken: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    url = broken.format(CANARY)
    jobs = PgJobs(url)
    task = jobs.task(login)
    text = "".join(map(said, (
        lambda: task.enqueue("ann", CANARY), jobs.worker().start, lambda: repr(jobs.database),
        lambda: jobs.database.where,
        lambda: jobs.job("00000000-0000-7000-8000-000000000000"), lambda: task.enqueue_many([("ann", CANARY)]),
    )))  # fmt: skip
    assert "Error" in text
    assert CANARY not in text + repr(jobs) + caplog.text


def test_no_error_of_an_enqueue_shows_a_private_argument(secret_url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    jobs = PgJobs(secret_url)
    nowhere = PgJobs(secret_url, schema="nowhere")
    task, lost = jobs.task(login), nowhere.task(login)
    job = task.enqueue("ann", CANARY)
    engine = create_engine(secret_url.replace("postgresql:", "postgresql+psycopg:"))
    text = ""
    for schema_of, options in ((lost, {}), (task, {"job_id": job.id})):
        with engine.connect() as connection:
            text += said(lambda: schema_of.using(connection, **options).enqueue("ann", CANARY))  # noqa: B023
        with psycopg.connect(secret_url) as plain:
            text += said(lambda: schema_of.using(plain, **options).enqueue("ann", CANARY))  # noqa: B023
        text += said(lambda: schema_of.using(**options).enqueue("ann", CANARY))  # noqa: B023
    text += said(lambda: lost.enqueue_many([("ann", CANARY)] * 2_000))
    text += said(lambda: task.enqueue("ann", CANARY, CANARY))  # type: ignore[arg-type]
    text += said(lambda: task.enqueue("ann", [CANARY]))  # type: ignore[arg-type]
    text += said(lambda: task.enqueue_many([CANARY]))  # type: ignore[list-item]
    engine.dispose()
    jobs.close()
    nowhere.close()
    assert text.count("Traceback") >= 10
    assert CANARY not in "\n".join(line for line in (text + caplog.text).splitlines() if "lambda" not in line)


@pytest.mark.parametrize("url", [*SPILT, "postgresql://u@127.0.0.1,x@{}:1/db"])
def test_a_url_that_would_spill_its_password_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGJOBS_LISTEN_URL", url.format(CANARY))
    doors = (Database(url.format(CANARY), "pgjobs"), Database("postgresql://u@h/db", "pgjobs").for_listening())
    for database in doors:
        with pytest.raises(ConfigurationError, match="with %40 for @") as caught:
            repr(database)
        assert CANARY not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("url", "host"),
    [("postgresql://u:p%40x@h/db", "h"), ("postgresql://u:p?x@h/db", "h"), ("postgresql://%40sock/db", "@sock"),
     ("host=@sock user=u@x password=p@x dbname=d@x", "@sock"), ("postgresql://h/db?user=u@x", "h"),
     ("postgresql://u@a:1,b:2/db", "a,b")],
)  # fmt: skip
def test_an_at_sign_elsewhere_is_taken(url: str, host: str) -> None:
    assert conninfo_to_dict(Database(url, "pgjobs").url)["host"] == host


@pytest.mark.parametrize("broken", ["unreachable", "no schema", "whole", "spilt"])
def test_no_command_shows_the_password(broken: str, secret_url: str, empty_secret_url: str) -> None:
    url = {
        "unreachable": f"postgresql://u:{CANARY}@127.0.0.1:1/db",
        "no schema": empty_secret_url,
        "whole": secret_url,
        "spilt": f"postgresql://u:p@{CANARY}@127.0.0.1:1/db",
    }[broken]
    for command in COMMANDS:
        done = pgjobs(url, *command)
        assert CANARY not in done.stdout + done.stderr, command


@pytest.fixture
def empty_secret_url(secret_url: str, conn: psycopg.Connection[Any]) -> Iterator[str]:
    """The password again, for a database without tables."""
    name = f"empty_{conn.info.backend_pid}"
    conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    try:
        yield urlsplit(secret_url)._replace(path=f"/{name}").geturl()
    finally:
        conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def descendants(pid: int) -> list[int]:
    lists = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    children = [int(child) for each in lists for child in each]
    return [pid, *(each for child in children for each in descendants(child))]


def test_worker_shows_neither_in_what_it_logs_runs_and_writes(
    secret_url: str, conn: psycopg.Connection[Any], tmp_path: Path
) -> None:
    (tmp_path / "setproctitle.py").write_text("raise ImportError  # a title would hide the command line")
    path = f"{tmp_path}{os.pathsep}{ROOT}"
    jobs = PgJobs(secret_url)
    from tests.apps import canaries

    apart = jobs.task(name=canaries.apart.name, executor="process", private=["password"])(canaries.apart.function)
    failing = jobs.task(name=canaries.login.name, private=["password"])(canaries.login.function)
    with WorkerProcess(
        secret_url, "--log-level", "debug", app="tests.apps.canaries", PYTHONPATH=path
    ).ready() as worker:
        assert apart.enqueue(CANARY).get(30) == len(CANARY)
        failed = failing.using(retry=1).enqueue("ann", CANARY)
        conn.execute(
            "INSERT INTO pgjobs.jobs (task, args) VALUES (%s, jsonb_build_object('password', %s::text, 'x', 1))",
            [canaries.login.name, CANARY],
        )  # fmt: skip
        eventually(lambda: failed.refresh().status.ended)
        eventually(lambda: worker.said("arguments do not fit"))
        lines = [Path(f"/proc/{pid}/cmdline").read_text() for pid in descendants(worker.popen.pid)]
        assert len(lines) >= 3
        rows = conn.execute("SELECT * FROM pgjobs.workers").fetchall()
        conn.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'pgjobs%'")
        eventually(lambda: worker.said("database away") or worker.said("database back"))
        worker.signal(15)
        worker.leave()
    notes = conn.execute(
        "SELECT reason, (SELECT array_agg(f::text) FROM pgjobs.failures AS f) FROM pgjobs.jobs"
    ).fetchall()
    jobs.close()
    assert CANARY not in repr([lines, rows, notes, worker.lines])


def test_worker_that_cannot_start_shows_no_password(empty_secret_url: str) -> None:
    for url in (
        f"postgresql://u:{CANARY}@127.0.0.1:1/db",
        empty_secret_url,
        f"postgresql://u:{CANARY}@127.0.0.1/x?bad=1",
        f"postgresql://u:p@{CANARY}@127.0.0.1:1/db",
    ):
        with WorkerProcess(url, "--log-level", "debug", app="tests.apps.canaries") as worker:
            assert worker.leave() != 0
            assert worker.lines
            assert CANARY not in "\n".join(worker.lines)
