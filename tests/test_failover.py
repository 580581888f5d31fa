"""The primary dies and its standby takes over: workers and producers find it by themselves."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import random
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from pgjobs import PgJobs, statements
from pgjobs.connections.database import is_away
from pgjobs.connections.link import Link
from pgjobs.events import DatabaseAway, Event, Trouble
from pgjobs.migrations import migrate
from tests.apps import failover
from tests.processes import WorkerProcess
from tests.replication import Pair, pair
from tests.support import eventually

pytestmark = [
    pytest.mark.server,
    pytest.mark.slow,
    pytest.mark.skipif(bool(os.environ.get("PGJOBS_TEST_POOLER")), reason="has servers of its own, and no pooler"),
]

BACK_S = 10.0
"""From the promotion to the first claim after it."""

POLLED_S = 0.5
"""The median of what a job would wait for a worker that is told nothing. One that is told takes some 20 ms."""

logger = logging.getLogger(__name__)

APP = "tests.apps.failover"
TASKS = ("work", "quick", "effect")


@pytest.fixture
def synchronous() -> Iterator[Pair]:
    with pair(synchronous=True) as servers:
        yield prepared(servers)


@pytest.fixture
def asynchronous() -> Iterator[Pair]:
    with pair(synchronous=False) as servers:
        yield prepared(servers)


def prepared(servers: Pair) -> Pair:
    migrate(servers.url)
    servers.primary.ask("CREATE TABLE ledger (id uuid PRIMARY KEY)")
    servers.primary.ask("CREATE TABLE effects (job_id uuid NOT NULL)")
    return servers


def queue(url: str) -> PgJobs:
    """A queue whose producers need not import the workers' application."""
    jobs = PgJobs(url)
    for task in failover.jobs.tasks.values():
        jobs.task(name=task.name, **task.options)(task.function)
    return jobs


class Load:
    """Three producers: one in transactions together with a ledger, two whose pools are pgjobs's own, sync and async.

    Attributes:
        acknowledged: the jobs whose enqueue returned.
        last_s: when each producer was last acknowledged.
    """

    def __init__(self, url: str) -> None:
        self.acknowledged: set[UUID] = set()
        self.last_s = {"ledger": 0.0, "pool": 0.0, "async pool": 0.0}
        self._url = url
        self._jobs = queue(url)
        self._over = threading.Event()
        self._n = iter(range(10**9))
        self._threads = [
            threading.Thread(target=self._repeat, args=("ledger", self._together)),
            threading.Thread(target=self._repeat, args=("pool", self._alone)),
            threading.Thread(target=lambda: asyncio.run(self._asynchronously())),
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *ended: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(30)
        self._jobs.close()

    def _noted(self, who: str, ids: list[UUID]) -> None:
        self.acknowledged.update(ids)
        self.last_s[who] = time.monotonic()

    def _repeat(self, who: str, once: Callable[[], list[UUID]]) -> None:
        while not self._over.is_set():
            try:
                self._noted(who, once())
            except psycopg.Error:
                time.sleep(0.05)

    def _together(self) -> list[UUID]:
        with psycopg.connect(self._url, connect_timeout=3) as conn:
            for _ in range(20):
                name = random.choice(TASKS)
                ids = self._jobs.using(conn).enqueue_many(f"{APP}.{name}", [(next(self._n),) for _ in range(5)])
                conn.execute("INSERT INTO ledger SELECT unnest(%s::uuid[])", [ids])
                conn.commit()
                self._noted("ledger", ids)
                time.sleep(0.01)
        return []

    def _alone(self) -> list[UUID]:
        time.sleep(0.01)
        return [self._jobs.enqueue(f"{APP}.quick", next(self._n)).id]

    async def _asynchronously(self) -> None:
        jobs = queue(self._url)
        while not self._over.is_set():
            try:
                job = await jobs.aenqueue(f"{APP}.quick", next(self._n))
            except psycopg.Error:
                await asyncio.sleep(0.05)
            else:
                self._noted("async pool", [job.id])
                await asyncio.sleep(0.01)
        await jobs.aclose()


def ids(servers: Pair, query: str) -> set[UUID]:
    with servers.standby.connect() as conn:
        return {row[0] for row in conn.execute(query.encode())}


def await_all_ended(servers: Pair) -> None:
    unfinished = "SELECT count(*) FROM pgjobs.jobs WHERE finished_at IS NULL"
    eventually(lambda: servers.standby.ask(unfinished) == 0, timeout_s=30)


def check_books(servers: Pair) -> None:
    """Every job has succeeded, with one completion each; effects stand beside completions, and no claim is left."""
    ask = servers.standby.ask
    assert ask("SELECT array_agg(DISTINCT status) FROM pgjobs.jobs") == ["succeeded"]
    recorded = ask("SELECT sum(jobs) FROM pgjobs.rollups WHERE status = 'succeeded'")
    assert recorded == ask("SELECT count(*) FROM pgjobs.jobs")
    assert ask("SELECT count(*) FROM effects") == ask("SELECT count(DISTINCT job_id) FROM effects")
    assert ids(servers, "SELECT job_id FROM effects") == ids(
        servers, f"SELECT id FROM pgjobs.jobs WHERE task = '{APP}.effect'"
    )
    eventually(lambda: ask("SELECT count(*) FROM pgjobs.claims") == 0)


def fail_over(servers: Pair, outage_s: float = 0.0) -> float:
    """Kills the primary, promotes the standby; returns the seconds from asking for it to the first claim."""
    servers.primary.stop(crash=True)
    threading.Event().wait(outage_s)  # as long as somebody takes to notice
    asked = servers.standby.ask("SELECT clock_timestamp()")
    began = time.monotonic()
    servers.promote()
    claimed = (
        "SELECT EXISTS (SELECT FROM pgjobs.claims WHERE claimed_at > %s)"
        " OR EXISTS (SELECT FROM pgjobs.jobs WHERE started_at > %s)"
    )
    eventually(lambda: servers.standby.ask(claimed, asked, asked), timeout_s=30)
    return time.monotonic() - began


def pick_ups(url: str) -> list[float]:
    """How long jobs take from their enqueue to their end on idle workers."""
    jobs, waits = queue(url), []
    try:
        jobs.enqueue(f"{APP}.quick", 0).get(timeout=10)
        for n in range(7):
            time.sleep(random.uniform(0.4, 0.9))  # past the short looks of a worker that has just become idle
            began = time.monotonic()
            jobs.enqueue(f"{APP}.quick", n).get(timeout=10)
            waits.append(time.monotonic() - began)
    finally:
        jobs.close()
    return waits


def test_synchronous_standby_takes_over_under_load_and_nothing_is_lost_or_done_twice(synchronous: Pair) -> None:
    servers = synchronous
    with ExitStack() as stack:
        workers = [stack.enter_context(WorkerProcess(servers.url, app=APP)) for _ in "ab"]
        children = [worker.ready().children() for worker in workers]
        with Load(servers.url) as load:
            ended = "SELECT count(*) FROM pgjobs.jobs WHERE status = 'succeeded'"
            eventually(lambda: servers.primary.ask(ended) > 300, timeout_s=20)
            back_s = fail_over(servers, outage_s=8.0)
            claimed = time.monotonic()
            # A pool that doubled its rests would sleep for six seconds more.
            eventually(lambda: all(last > claimed for last in load.last_s.values()), timeout_s=4)
            producers_s = time.monotonic() - claimed + back_s
            before = len(load.acknowledged)
            eventually(lambda: len(load.acknowledged) > before + 200)
        logger.info("back %.1f s, producers %.1f s, %d jobs", back_s, producers_s, len(load.acknowledged))
        await_all_ended(servers)
        assert load.acknowledged <= ids(servers, "SELECT id FROM pgjobs.jobs")
        assert ids(servers, "SELECT id FROM ledger") <= ids(servers, "SELECT id FROM pgjobs.jobs")
        check_books(servers)
        assert back_s < BACK_S
        waits = pick_ups(servers.url)
        logger.info("pick-ups %s", [round(wait, 3) for wait in waits])
        assert max(waits) < 1.5
        listening = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgjobs listener'"
        assert servers.standby.ask(listening) == 2
        assert statistics.median(waits) < POLLED_S, "nobody is told: workers look once a second"
        assert [worker.children() for worker in workers] == children, "a process of a worker has ended"
        for worker in workers:
            assert worker.popen.poll() is None
            assert len(worker.said(" away: ")) <= 2, "its supervisor and its child say so, once each"
            assert not worker.said("Traceback")
            both = f"postgres@127.0.0.1:{servers.primary.port},127.0.0.1:{servers.standby.port}"
            assert worker.said(both), "the log does not say where the database is"


def test_asynchronous_standby_may_lack_the_last_commits_and_fences_hold(asynchronous: Pair, tmp_path: Path) -> None:
    """What was acknowledged after the standby was cut off is lost: enqueues, completions, claims and a worker's row."""
    servers, jobs = asynchronous, queue(asynchronous.url)
    early, late = tmp_path / "early", tmp_path / "late"
    early.touch()
    late.touch()
    with ExitStack() as stack:
        stack.callback(jobs.close)
        with jobs.database.connection() as conn, conn.transaction():
            short = enqueue(jobs.using(conn), "hold", *[str(early)] * 4)
            long = enqueue(jobs.using(conn), "hold", *[str(late)] * 2)
        known = stack.enter_context(WorkerProcess(servers.url, "-Q", "default", "-c", "6", app=APP))
        eventually(lambda: all(runs(early, job) for job in short) and all(runs(late, job) for job in long), 20)
        assert servers.primary.ask("SELECT count(DISTINCT claim_id) FROM pgjobs.jobs") == 1
        stray = enqueue(jobs.using(), "hold", str(late))
        waiting = enqueue(jobs.using(queue="later"), "effect", *range(20))
        gate = enqueue(jobs.using(queue="later"), "hold", str(late))
        servers.await_caught_up()
        servers.part()

        # From here on nothing reaches the standby.
        newcomer = stack.enter_context(WorkerProcess(servers.url, "-Q", "later", app=APP))
        early.unlink()
        eventually(lambda: succeeded(servers, [*short, *waiting]), 20)
        lost = enqueue(jobs.using(), "quick", *range(500))
        eventually(lambda: succeeded(servers, lost))
        eventually(lambda: runs(late, stray[0]) and runs(late, gate[0]))
        lost += enqueue(jobs.using(), "hold", str(late))
        eventually(lambda: runs(late, lost[-1]))
        assert fail_over(servers) < BACK_S

        # What ran under claims that the new primary has never heard of runs again, beside its first run.
        eventually(lambda: runs(late, stray[0]) == 2 and runs(late, gate[0]) == 2, 20)
        assert servers.standby.ask("SELECT last_value FROM pgjobs.positions") < 500, "below the bounds of before"
        waits = pick_ups(servers.url)
        assert statistics.median(waits) < POLLED_S, "the bounds of before still hold"
        late.unlink()
        await_all_ended(servers)
        eventually(lambda: known.said("claim lost"), 20)
        kept = {*short, *long, *stray, *waiting, *gate}
        there = ids(servers, "SELECT id FROM pgjobs.jobs")
        assert not there & set(lost), "the standby was not cut off"
        assert kept <= there, "what was enqueued before is there"
        check_books(servers)
        assert [runs(early, job) for job in short] == [2] * 4, "their completions were lost"
        assert [runs(late, job) for job in long] == [1, 1], "they kept their claim"
        assert newcomer.said("was believed dead"), "the new primary has never heard of it"
        assert known.popen.poll() is None
        assert newcomer.popen.poll() is None


def enqueue(door: Any, name: str, *arguments: object) -> list[UUID]:
    return list(door.enqueue_many(f"{APP}.{name}", [(argument,) for argument in arguments]))


def runs(flag: Path, job_id: UUID) -> int:
    """How often a job has begun to hold."""
    path = Path(f"{flag}.{job_id}")
    return len(path.read_text().splitlines()) if path.exists() else 0


def succeeded(servers: Pair, job_ids: list[UUID]) -> bool:
    query = "SELECT count(*) FROM pgjobs.jobs WHERE id = ANY (%s) AND status = 'succeeded'"
    return bool(servers.primary.ask(query, job_ids) == len(job_ids))


def test_worker_waits_while_its_server_is_a_standby_and_works_when_it_is_promoted(asynchronous: Pair) -> None:
    """Where one address is all that is known, as behind a proxy, it may lead to a standby for a while."""
    servers, events = asynchronous, list[Event]()
    jobs = queue(servers.primary.url)
    with ExitStack() as stack:
        stack.callback(jobs.close)
        stack.enter_context(jobs.worker(emit=events.append))
        jobs.enqueue(f"{APP}.quick", 1).get(timeout=15)
        servers.primary.stop(crash=False)
        servers.promote()
        servers.primary.follow(servers.standby)
        servers.primary.start()
        said = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'pgjobs%%' AND backend_start > %s"
        for _ in range(3):  # they come, and go again
            now = servers.primary.ask("SELECT clock_timestamp()")
            eventually(functools.partial(servers.primary.ask, said, now))
        with pytest.raises(psycopg.Error) as refused:
            jobs.enqueue(f"{APP}.quick", 2)
        assert is_away(refused.value)
        check_link_is_dropped(jobs)
        servers.primary.ask("SELECT pg_promote()")
        assert jobs.enqueue(f"{APP}.quick", 3).get(timeout=BACK_S) == 3
        assert statistics.median(pick_ups(servers.primary.url)) < POLLED_S, "it does not listen again"
    assert not [event for event in events if isinstance(event, Trouble)]
    assert len([event for event in events if isinstance(event, DatabaseAway)]) <= 2


def check_link_is_dropped(jobs: PgJobs) -> None:
    """The address may lead elsewhere by now: after a standby's refusal another connection is made."""
    link = Link(jobs.database, "test")
    writes = statements.forget_claims([])
    for call in (link.begin, lambda: link.peek(writes), lambda: link.step(writes)):
        refused = link.conn.info.backend_pid
        with pytest.raises(psycopg.Error):
            call()
        assert link.conn.info.backend_pid != refused
    link.close()


def test_producers_leave_a_primary_that_was_demoted_under_them(asynchronous: Pair) -> None:
    servers, jobs = asynchronous, queue(asynchronous.url)

    async def produce() -> None:
        own = queue(servers.url)
        before = await own.aenqueue(f"{APP}.quick", 2)
        demote.set()
        await asyncio.to_thread(demoted.wait)
        kept.extend([before.id, (await own.aenqueue(f"{APP}.quick", 3)).id])
        await own.aclose()

    demote, demoted, kept = threading.Event(), threading.Event(), list[UUID]()
    other = threading.Thread(target=lambda: asyncio.run(produce()))
    try:
        kept.append(jobs.enqueue(f"{APP}.quick", 1).id)
        other.start()
        assert demote.wait(15)
        servers.await_caught_up()
        servers.part()
        servers.standby.ask("SELECT pg_promote()")
        servers.primary.set("default_transaction_read_only", "on")
        eventually(lambda: servers.primary.ask("SHOW default_transaction_read_only") == "on")
        demoted.set()
        kept.append(jobs.enqueue(f"{APP}.quick", 4).id)
        other.join(15)
        assert len(kept) == 4
        assert ids(servers, "SELECT id FROM pgjobs.jobs") == set(kept)
    finally:
        demoted.set()
        jobs.close()
