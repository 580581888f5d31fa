"""One server for a run, one migrated template database, and a copy of it for each test.

PGJOBS_TEST_URL runs the suite on a server that exists; PGJOBS_PG_BIN starts another PostgreSQL than the wheel's;
PGJOBS_TEST_POOLER=1 puts PgBouncer in transaction mode between pgjobs and its server.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import pytest
from hypothesis import Phase, settings

import pgjobs
from tests.bouncer import bouncer
from tests.support import copy_of, execute, suite_server, with_database

# Processes that tests start find the code compiled, as anywhere; how soon they are at work is among what is tested.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# A shell has what it starts in the background ignore SIGINT, and so would what that starts, and tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# To explain a failure Hypothesis traces every line, and a trace that meets a signal spins for ever on CPython 3.11.
settings.register_profile("unexplained", settings(), phases=[phase for phase in Phase if phase is not Phase.explain])
settings.load_profile("unexplained")


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """URL of a server on which databases can be made."""
    if given := os.environ.get("PGJOBS_TEST_URL"):
        yield given
        return
    with suite_server() as url:
        yield url


@pytest.fixture(scope="session")
def pooled_url(server_url: str) -> Iterator[str]:
    """URL under which pgjobs is to find the server: PgBouncer's, or the server's own."""
    if not os.environ.get("PGJOBS_TEST_POOLER"):
        yield server_url
        return
    with bouncer(server_url) as url:
        yield url


@pytest.fixture(scope="session")
def template(server_url: str) -> Iterator[str]:
    """Name of a migrated database that nobody connects to, so that it can be copied at any time."""
    from pgjobs.migrations import migrate

    name = f"pgjobs_template_{uuid4().hex[:12]}"
    execute(server_url, "CREATE DATABASE {}", name)
    try:
        migrate(with_database(server_url, name))
        execute(server_url, "ALTER DATABASE {} WITH ALLOW_CONNECTIONS false", name)
        yield name
    finally:
        execute(server_url, "DROP DATABASE {} WITH (FORCE)", name)


@pytest.fixture
def direct_url(server_url: str, template: str) -> Iterator[str]:
    """URL of the test's own migrated database, without a pooler."""
    with copy_of(server_url, template) as url:
        yield url


@pytest.fixture
def database_url(direct_url: str, pooled_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of the test's own migrated database, as pgjobs is to find it."""
    if os.environ.get("PGJOBS_TEST_POOLER"):
        monkeypatch.setenv("PGJOBS_LISTEN_URL", direct_url)
    return with_database(pooled_url, urlsplit(direct_url).path.lstrip("/"))


@pytest.fixture
def jobs(database_url: str) -> Iterator[pgjobs.PgJobs]:
    """The queue of the test's database."""
    app = pgjobs.PgJobs(database_url)
    try:
        yield app
    finally:
        app.close()


@pytest.fixture
def conn(direct_url: str) -> Iterator[psycopg.Connection]:
    """An autocommit connection to the test's database."""
    with psycopg.connect(direct_url, autocommit=True) as connection:
        yield connection
