"""Behind PgBouncer: found out at the start, nothing prepared, and jobs run with notifications or without."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import psycopg
import pytest

from pgjobs import PgJobs, migrations
from pgjobs.bench.measures import Database as BenchDatabase
from pgjobs.errors import ConfigurationError
from pgjobs.events import Event, Trouble, Unheard
from tests.bouncer import ABSENT, bouncer, program
from tests.support import eventually, with_database

pytestmark = pytest.mark.skipif(program() is None, reason=ABSENT)


@pytest.fixture(scope="module", params=["transaction", "session"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def bouncer_url(server_url: str, mode: str) -> Iterator[str]:
    with bouncer(server_url, mode) as url:
        yield url


@pytest.fixture
def pooled(direct_url: str, bouncer_url: str) -> Iterator[PgJobs]:
    jobs = PgJobs(with_database(bouncer_url, urlsplit(direct_url).path.lstrip("/")))
    yield jobs
    jobs.close()


def hear(jobs: PgJobs, events: list[Event]) -> float:
    """The slowest of three pick-ups by a worker that has long been idle."""
    work = jobs.task(name="work")(lambda i: i)
    slowest = 0.0
    with jobs.worker(emit=events.append):
        work.enqueue(0).get(15)
        for i in range(3):
            time.sleep(1.2)
            started = time.monotonic()
            work.enqueue(i).get(15)
            slowest = max(slowest, time.monotonic() - started)
    return slowest


def test_worker_says_that_it_is_not_told_and_looks(pooled: PgJobs, mode: str, server_url: str) -> None:
    events: list[Event] = []
    assert hear(pooled, events) < 4
    unheard = [event for event in events if isinstance(event, Unheard)]
    assert len(unheard) == (mode == "transaction")
    assert not [event for event in events if isinstance(event, Trouble)]


def test_listen_url_reaches_the_server_itself(pooled: PgJobs, direct_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGJOBS_LISTEN_URL", direct_url)
    monkeypatch.setattr("pgjobs.worker.claiming.pace.POLL_S", 60.0)
    events: list[Event] = []
    hear(pooled, events)
    assert not [event for event in events if isinstance(event, Unheard)]


def test_a_direct_connection_is_known_as_such(direct_url: str, pooled: PgJobs) -> None:
    assert pooled.database.pooled
    assert not PgJobs(direct_url).database.pooled


def test_nothing_is_prepared_by_threads_or_coroutines(pooled: PgJobs) -> None:
    work = pooled.task(name="work")(lambda i: i)

    async def enqueue() -> None:
        for i in range(20):
            await work.aenqueue(i)
        await pooled.aclose()

    for i in range(20):
        work.enqueue(i)
    asyncio.run(enqueue())
    work.enqueue_many([(i,) for i in range(3_000)])
    with pooled.worker(burst=True) as worker:
        worker.wait()
    with contextlib.closing(pooled.database.connect("test")) as conn:
        eventually(
            lambda: conn.execute("SELECT count(*) FROM pgjobs.jobs WHERE status = 'succeeded'").fetchone() == (3_040,)
        )
        for _ in range(10):
            assert conn.execute("SELECT count(*) FROM pg_prepared_statements WHERE NOT from_sql").fetchone() == (0,)


def test_who_waits_is_served_without_notifications(pooled: PgJobs) -> None:
    slow = pooled.task(name="slow")(lambda: time.sleep(1.5) or "done")
    with pooled.worker():
        started = time.monotonic()
        assert slow.enqueue().get(20) == "done"
        assert time.monotonic() - started < 8


def test_migrations_pass(bouncer_url: str, pooled: PgJobs) -> None:
    assert migrations.migrate(pooled.database.url, schema="behind") == migrations.migrate(
        pooled.database.url, schema="beside"
    )
    with psycopg.connect(pooled.database.url, prepare_threshold=None) as conn:
        assert conn.execute("SELECT to_regclass('behind.jobs') IS NOT NULL").fetchone() == (True,)


def test_bench_measures_no_pooler(pooled: PgJobs) -> None:
    with pytest.raises(ConfigurationError, match="the server's own address"):
        BenchDatabase(pooled.database.url)
