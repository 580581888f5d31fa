"""Who may write a job's end: the claim that holds it, once, in its own transaction or the application's."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from pgjobs import ClaimLostError, Job, JobFailedError, PgJobs, Retry, RetryLater, Status, current_job, statements
from pgjobs.connections.link import Link
from pgjobs.events import ClaimLost, Event, Recorded
from pgjobs.job import new_id
from pgjobs.running.outcome import Outcome
from pgjobs.running.run import Claim, Run
from pgjobs.statements import Range
from pgjobs.worker import Worker
from pgjobs.worker.claiming import completer as completing
from pgjobs.worker.claiming.completer import Completer
from tests.support import eventually

pytestmark = pytest.mark.server


@pytest.fixture
def shop(conn: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """The application's own table, written by jobs."""
    conn.execute("CREATE TABLE orders (job_id uuid, attempt int)")
    return conn


@contextmanager
def engine_of(jobs: PgJobs) -> Iterator[sa.Engine]:
    engine = sa.create_engine(jobs.database.url.replace("postgresql://", "postgresql+psycopg://"))
    yield engine
    engine.dispose()


def write_order(session: Session) -> None:
    values = {"id": current_job().id, "attempt": current_job().attempt}
    session.execute(sa.text("INSERT INTO orders VALUES (:id, :attempt)"), values)


def orders(conn: psycopg.Connection[Any]) -> list[int]:
    return [row[0] for row in conn.execute("SELECT attempt FROM orders ORDER BY 1")]


# -- complete(session)


def test_effects_and_completion_are_one_transaction(jobs: PgJobs, shop: psycopg.Connection[Any]) -> None:
    seen: list[int] = []

    @jobs.task
    def charge() -> str:
        with Session(engine) as session:
            write_order(session)
            current_job().complete(session, {"paid": True})
            seen.append(len(orders(shop)))
            assert shop.execute("SELECT status FROM pgjobs.jobs").fetchone() == ("running",)
            session.commit()
        return "ignored"

    with engine_of(jobs) as engine:
        job = charge.enqueue()
        jobs.worker(burst=True).run()
    assert (job.refresh().status, job.result) == (Status.SUCCEEDED, {"paid": True})
    assert (seen, orders(shop)) == ([0], [1])
    assert shop.execute("SELECT sum(jobs)::int FROM pgjobs.rollups").fetchone() == (1,)
    assert shop.execute("SELECT count(*) FROM pgjobs.claims").fetchone() == (0,)


def test_error_after_a_completion_in_a_transaction_is_told(
    jobs: PgJobs, shop: psycopg.Connection[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """The success stands; but nobody else would ever hear of it."""

    @jobs.task
    def work() -> None:
        with psycopg.connect(jobs.database.url) as app:
            current_job().complete(app)
        raise ValueError("after the commit")

    @jobs.task
    def quiet() -> None:
        with psycopg.connect(jobs.database.url) as app:
            current_job().complete(app)

    with jobs.worker():
        assert quiet.enqueue().get(10) is None
        job = work.enqueue()
        eventually(lambda: "after the commit" in caplog.text)
    assert job.refresh().status is Status.SUCCEEDED
    (told,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert str(job.id) in told.getMessage()
    assert 'raise ValueError("after the commit")' in told.getMessage()


async def test_async_twin_completes_in_the_callers_transaction(jobs: PgJobs, shop: psycopg.Connection[Any]) -> None:
    url = jobs.database.url.replace("postgresql://", "postgresql+asyncpg://")

    @jobs.task
    async def charge() -> None:
        engine = create_async_engine(url)
        async with AsyncSession(engine) as session:
            values = {"id": current_job().id, "attempt": 1}
            await session.execute(sa.text("INSERT INTO orders VALUES (:id, :attempt)"), values)
            await current_job().acomplete(session, 7)
            await session.commit()
        await engine.dispose()

    async with jobs.worker():
        job = await charge.aenqueue()
        assert await job.aget(timeout=8) == 7
    assert orders(shop) == [1]
    await jobs.aclose()


async def test_async_twin_takes_along_what_was_said_and_what_follows(
    jobs: PgJobs, shop: psycopg.Connection[Any]
) -> None:
    follow = jobs.task(name="follow")(lambda i: i)

    @jobs.task
    async def charge(commits: bool) -> None:
        async with await psycopg.AsyncConnection.connect(jobs.database.url) as own:
            current_job().progress(1, 2, "half")
            current_job().enqueue(follow, 5)
            await current_job().acomplete(own, "paid")
            if not commits:
                await own.rollback()

    async with jobs.worker():
        job, other = await charge.aenqueue(True), await charge.using(retry=1).aenqueue(False)
        assert await job.aget(timeout=8) == "paid"
        with pytest.raises(JobFailedError, match="rolled back"):
            await other.aget(timeout=8)
    progress = (await job.arefresh()).progress
    assert isinstance(progress, dict)
    assert (progress["done"], progress["note"]) == (1, "half")
    children = shop.execute("SELECT count(*)::int FROM pgjobs.jobs WHERE task = 'follow'").fetchall()
    assert children == [(1,)], "of the one that was committed"
    await jobs.aclose()


async def test_async_twin_keeps_no_result_that_the_task_ignores(jobs: PgJobs, shop: psycopg.Connection[Any]) -> None:
    """Of a job by raw SQL too, whose row says nothing of that."""

    @jobs.task(ignore_result=True)
    async def charge() -> None:
        async with await psycopg.AsyncConnection.connect(jobs.database.url) as own:
            await current_job().acomplete(own, "paid")

    row = shop.execute("INSERT INTO pgjobs.jobs (task) VALUES (%s) RETURNING id", [charge.name]).fetchone()
    assert row is not None
    await asyncio.to_thread(jobs.worker(burst=True).run)
    job = await jobs.ajob(row[0])
    assert (job.status, job.result) == (Status.SUCCEEDED, None)
    await jobs.aclose()


def test_rolled_back_completion_is_a_failed_attempt_and_never_a_success(
    jobs: PgJobs, shop: psycopg.Connection[Any]
) -> None:
    @jobs.task(retry=Retry(2, backoff=0))
    def charge() -> str:
        with Session(engine) as session:
            write_order(session)
            current_job().complete(session, "paid")
            session.rollback()
        return "fine?"

    with engine_of(jobs) as engine, jobs.worker():
        job = charge.enqueue()
        eventually(lambda: job.refresh().status is Status.FAILED)
    assert orders(shop) == []
    assert job.result is None
    assert [failure.exception for failure in job.failures()] == ["pgjobs.errors.CompletionRolledBackError"] * 2


def test_completion_that_stands_outweighs_a_later_exception(jobs: PgJobs, shop: psycopg.Connection[Any]) -> None:
    @jobs.task(retry=Retry(3, backoff=0))
    def charge() -> None:
        with Session(engine) as session, session.begin():
            write_order(session)
            current_job().complete(session, "paid")
        raise ValueError("after the commit")

    with engine_of(jobs) as engine, jobs.worker():
        job = charge.enqueue()
        eventually(lambda: job.refresh().status.ended)
        time.sleep(0.3)
    assert (job.refresh().status, job.result, job.attempt) == (Status.SUCCEEDED, "paid", 1)
    assert orders(shop) == [1]


def test_transaction_that_is_still_open_at_the_return_is_waited_for(
    jobs: PgJobs, shop: psycopg.Connection[Any]
) -> None:
    @jobs.task
    def charge() -> None:
        session = Session(engine)
        write_order(session)
        current_job().complete(session, "paid")
        timer = threading.Timer(0.5, lambda: (session.commit(), session.close()))
        timer.start()

    with engine_of(jobs) as engine, jobs.worker():
        job = charge.enqueue()
        assert job.get(timeout=15) == "paid"
    assert (job.failures(), orders(shop)) == ([], [1])


# -- a worker believed dead


class Paused:
    """A worker whose job stands still while others take it for dead, and take its job over."""

    def __init__(self, jobs: PgJobs, body: Callable[[], Any], **options: Any) -> None:
        self.started = threading.Event()
        self.resume = threading.Event()
        self.errors: list[BaseException] = []
        self.events: list[Event] = []
        self.attempts = 0

        def hold() -> Any:
            self.attempts += 1
            if self.attempts > 1:
                return "by another"
            self.started.set()
            self.resume.wait(20)
            try:
                return body()
            except BaseException as error:
                self.errors.append(error)
                raise

        self.jobs = jobs
        self.job: Job[Any] = jobs.task(name="hold", **options)(hold).enqueue()
        # Somebody else beats for it, or rather does not: nobody tells it that it is dead.
        self.worker: Worker = jobs.worker(supervised=True, concurrency=1, emit=self.events.append)
        self.worker.start()
        assert self.started.wait(15)
        self.id = self.worker.id
        declare_dead(jobs, self.worker)

    def lost(self) -> bool:
        return any(isinstance(event, ClaimLost) for event in self.events)


def declare_dead(jobs: PgJobs, worker: Worker) -> None:
    link = Link(jobs.database, "test")
    link.one(statements.declare_dead([worker.id]))
    link.one(statements.reap([worker.id], None, 3, "gone"))
    link.one(statements.forget_dead_claims())
    link.close()


@pytest.fixture
def paused(jobs: PgJobs, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Paused]:
    # It must not find out by itself before it has tried to write.
    monkeypatch.setattr("pgjobs.worker.claiming.reconcile.RECONCILE_S", 3600.0)
    held = Paused(jobs, *request.param)
    yield held
    held.resume.set()
    held.worker.stop(timeout=1)


def returns() -> str:
    return "by the dead"


def fails() -> str:
    raise ValueError("by the dead")


def asks_for_a_retry() -> str:
    raise RetryLater(0)


@pytest.mark.parametrize("paused", [(returns,), (fails,), (asks_for_a_retry,)], indirect=True)
@pytest.mark.parametrize("taken_over", [False, True], ids=["still waiting", "done by another"])
def test_worker_that_was_believed_dead_cannot_end_its_job(
    paused: Paused, taken_over: bool, jobs: PgJobs, conn: psycopg.Connection[Any]
) -> None:
    assert (paused.job.refresh().status, paused.job.row.options) == (Status.QUEUED, {"suspect": {"of": 16}})
    if taken_over:
        jobs.worker(burst=True).run()
    before = conn.execute("SELECT job::text FROM pgjobs.jobs AS job").fetchall()
    paused.resume.set()
    eventually(paused.lost)
    assert conn.execute("SELECT job::text FROM pgjobs.jobs AS job").fetchall() == before
    assert [failure.reason for failure in paused.job.failures()] == ["worker lost"]
    if taken_over:
        assert paused.job.refresh().result == "by another"


@pytest.mark.parametrize("meanwhile", [Status.RUNNING, Status.SUCCEEDED])
def test_worker_that_was_believed_dead_cannot_complete_in_a_transaction(
    meanwhile: Status, jobs: PgJobs, shop: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgjobs.worker.claiming.reconcile.RECONCILE_S", 3600.0)

    def charge() -> None:
        with Session(engine) as session, session.begin():
            write_order(session)
            current_job().complete(session)

    with engine_of(jobs) as engine:
        paused = Paused(jobs, charge)
        if meanwhile is Status.RUNNING:
            claim_by_another(jobs)
        else:
            jobs.worker(burst=True).run()
        before = shop.execute("SELECT job::text FROM pgjobs.jobs AS job").fetchall()
        paused.resume.set()
        eventually(paused.lost)
        paused.worker.stop(timeout=1)
    assert [type(error) for error in paused.errors] == [ClaimLostError]
    assert orders(shop) == [], "its own writes are rolled back with it"
    assert paused.job.refresh().status is meanwhile
    assert shop.execute("SELECT job::text FROM pgjobs.jobs AS job").fetchall() == before


def claim_by_another(jobs: PgJobs) -> None:
    link = Link(jobs.database, "test")
    assert len(link.one(statements.claim(*statements_of_a_worker(link), [Range(("default", 0))], 1))) == 1
    link.close()


def test_worker_that_finds_itself_dead_begins_another_life(jobs: PgJobs) -> None:
    add = jobs.task(name="add")(lambda a, b: a + b)
    with jobs.worker() as worker:
        first = worker.id
        declare_dead(jobs, worker)
        eventually(lambda: worker.id != first)
        assert add.enqueue(1, 2).get(timeout=15) == 3


def test_dead_worker_claims_nothing(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    jobs.task(name="add")(lambda: None).enqueue()
    link = Link(jobs.database, "test")
    worker, claim = statements_of_a_worker(link)
    link.one(statements.declare_dead([worker]))
    lane = [Range(("default", 0))]
    assert link.one(statements.claim(worker, claim, lane, 10)) == []
    assert conn.execute("SELECT status FROM pgjobs.jobs").fetchone() == ("queued",)
    assert conn.execute("SELECT count(*) FROM pgjobs.claims").fetchone() == (0,)
    link.close()


def statements_of_a_worker(link: Link) -> tuple[Any, Any]:
    worker = new_id()
    link.one(
        statements.register(worker, supervisor=worker, name="w", host="h", pid=1, process="{}", queues=["*"], slots=1)
    )
    return worker, new_id()


def test_only_what_had_begun_is_charged_with_a_death(jobs: PgJobs) -> None:
    ids = jobs.task(name="work")(lambda i: i).enqueue_many([(i,) for i in range(3)])
    link = Link(jobs.database, "test")
    worker, claim = statements_of_a_worker(link)
    link.one(statements.claim(worker, claim, [Range(("default", 0))], 10))
    link.one(statements.declare_dead([worker]))
    reaped = link.one(statements.reap([worker], [ids[1]], 3, "gone"))
    assert sorted(reaped) == [(job_id, "queued") for job_id in ids]
    rows = [jobs.job(job_id).row for job_id in ids]
    assert [(row.crashes, row.attempt, row.reason) for row in rows] == [
        (0, 0, None),
        (1, 0, "worker lost"),
        (0, 0, None),
    ]
    link.close()


def test_job_returns_to_its_place_after_one_crash_and_goes_behind_the_others_after_more(
    jobs: PgJobs, conn: psycopg.Connection[Any]
) -> None:
    first, second = jobs.task(name="work")(lambda i: i).enqueue_many([(i,) for i in range(2)])
    crash(jobs, first)
    assert in_line(conn) == [first, second]
    crash(jobs, first)
    assert in_line(conn) == [second, first]


def crash(jobs: PgJobs, job_id: UUID) -> None:
    """Has a worker die of the job, which comes first."""
    link = Link(jobs.database, "test")
    worker, claim = statements_of_a_worker(link)
    assert [row[0] for row in link.one(statements.claim(worker, claim, [Range(("default", 0))], 1))] == [job_id]
    link.one(statements.declare_dead([worker]))
    link.one(statements.reap([worker], [job_id], 3, "gone"))
    link.close()


def in_line(conn: psycopg.Connection[Any]) -> list[UUID]:
    return [row[0] for row in conn.execute("SELECT id FROM pgjobs.jobs WHERE status = 'queued' ORDER BY position")]


# -- rows that somebody holds


def test_row_that_an_application_holds_stalls_no_other_job(jobs: PgJobs, database_url: str) -> None:
    gate = threading.Event()

    @jobs.task
    def work(i: int) -> int:
        gate.wait(10)
        return i

    ids = work.enqueue_many([(i,) for i in range(16)])
    with psycopg.connect(database_url) as app, jobs.worker(concurrency=16) as worker:
        eventually(lambda: len(worker.begun()) == 16)
        app.execute("SELECT * FROM pgjobs.jobs WHERE id = %s FOR UPDATE", [ids[7]])
        gate.set()
        eventually(lambda: all(jobs.job(i).status is Status.SUCCEEDED for i in ids if i != ids[7]), timeout_s=10)
        assert jobs.job(ids[7]).status is Status.RUNNING
        assert work.enqueue(99).get(timeout=10) == 99, "and the worker goes on"
        app.rollback()
        assert jobs.job(ids[7]).get(timeout=10) == 7


def test_row_that_an_application_holds_is_claimed_later_and_stalls_no_other(jobs: PgJobs, database_url: str) -> None:
    work = jobs.task(name="work")(lambda i: i)
    ids = work.enqueue_many([(i,) for i in range(10)])
    with psycopg.connect(database_url) as app:
        app.execute("SELECT * FROM pgjobs.jobs WHERE id = %s FOR UPDATE", [ids[3]])
        with jobs.worker():
            for i in ids[:3] + ids[4:]:
                jobs.job(i).get(timeout=10)
            assert jobs.job(ids[3]).status is Status.QUEUED
            app.rollback()
            assert jobs.job(ids[3]).get(timeout=15) == 3


def test_row_that_changed_between_snapshot_and_lock_is_left_for_the_next_claim(
    jobs: PgJobs, direct_url: str, conn: psycopg.Connection[Any]
) -> None:
    """The claim reads its snapshot, waits nowhere, and finds the row moved: it must not write a dead version."""
    work = jobs.task(name="work")(lambda i: i)
    ids = work.enqueue_many([(i,) for i in range(200)])
    stop = threading.Event()

    def change() -> None:
        with psycopg.connect(direct_url, autocommit=True) as app:
            while not stop.is_set():
                app.execute("UPDATE pgjobs.jobs SET meta = '{}' WHERE id = ANY(%s) AND status = 'queued'", [ids])

    thread = threading.Thread(target=change)
    thread.start()
    try:
        with jobs.worker(concurrency=4):
            eventually(
                lambda: conn.execute("SELECT count(*) FROM pgjobs.jobs WHERE status = 'succeeded'").fetchone() == (200,)
            )
    finally:
        stop.set()
        thread.join()
    assert conn.execute("SELECT count(*) FROM pgjobs.jobs WHERE attempt <> 1").fetchone() == (0,)


# -- one bad outcome


def test_result_that_the_database_refuses_fails_its_job_alone(
    jobs: PgJobs, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()

    @jobs.task(retry=Retry(3, backoff=0))
    def work(i: int) -> int:
        gate.wait(10)
        return i

    columns = completing._success_columns

    def with_a_bad_one(outcomes: list[Outcome]) -> dict[str, list[Any]]:
        made = columns(outcomes)
        made["results"] = ["{broken" if outcome.run.args["i"] == 5 else outcome.result for outcome in outcomes]
        return made

    monkeypatch.setattr(completing, "_success_columns", with_a_bad_one)
    ids = work.enqueue_many([(i,) for i in range(16)])
    with jobs.worker(concurrency=16) as worker:
        eventually(lambda: len(worker.begun()) == 16)
        gate.set()
        eventually(lambda: jobs.job(ids[5]).status.ended)
    bad = jobs.job(ids[5])
    assert (bad.status, bad.reason, bad.attempt) == (Status.FAILED, "unstorable result", 1)
    assert [jobs.job(i).result for i in ids if i != ids[5]] == [i for i in range(16) if i != 5]
    assert conn.execute("SELECT count(*) FROM pgjobs.claims").fetchone() == (0,)


def test_batch_that_was_recorded_apart_holds_up_no_stop(jobs: PgJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()

    @jobs.task
    def work() -> int:
        gate.wait(10)
        return 1

    columns = completing._success_columns
    monkeypatch.setattr(completing, "_success_columns", lambda outcomes: columns(outcomes) | {"results": ["{broken"]})
    job = work.enqueue()
    with jobs.worker() as worker:
        eventually(lambda: len(worker.begun()) == 1)
        worker._life_now().claimer.stop_claiming()  # no other cycle follows the one that records it
        gate.set()
        eventually(lambda: job.refresh().status is Status.FAILED)
        leaving = time.monotonic()
    assert time.monotonic() - leaving < 10


@pytest.mark.parametrize("code", ["40001", "40P01", "55P03"])
def test_completion_that_met_a_conflict_is_sent_again(jobs: PgJobs, conn: psycopg.Connection[Any], code: str) -> None:
    conn.execute("CREATE SEQUENCE conflicts")
    conn.execute(
        f"""
        CREATE FUNCTION conflict() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF nextval('conflicts') <= 2 THEN
                RAISE EXCEPTION USING ERRCODE = '{code}', MESSAGE = 'injected';
            END IF;
            RETURN NEW;
        END $$""".encode()
    )
    conn.execute(
        "CREATE TRIGGER conflict BEFORE UPDATE ON pgjobs.jobs FOR EACH ROW WHEN (NEW.status = 'succeeded')"
        " EXECUTE FUNCTION conflict()"
    )
    ran: list[int] = []
    job = jobs.task(name="work")(ran.append).enqueue(7)
    with jobs.worker():
        job.get(10)
    assert ran == [7]
    assert conn.execute("SELECT last_value FROM conflicts").fetchone() == (3,)


# -- lost replies


def test_claim_whose_reply_was_lost_is_given_back(
    jobs: PgJobs, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The claim was committed and its reply lost: the jobs run nowhere, under a worker that lives."""
    monkeypatch.setattr("pgjobs.worker.claiming.reconcile.RECONCILE_S", 0.2)
    work = jobs.task(name="work")(lambda: "done")
    job = work.enqueue()
    link = Link(jobs.database, "test")
    with jobs.worker(queues="other") as worker:
        _, claim = statements_of_a_worker(link)
        taken = link.one(statements.claim(worker.id, claim, [Range(("default", 0))], 10))
        assert len(taken) == 1
        eventually(lambda: job.refresh().status is Status.QUEUED)
        assert job.attempt == 0
        eventually(lambda: conn.execute("SELECT count(*) FROM pgjobs.claims").fetchone() == (0,))
    link.close()
    jobs.worker(burst=True).run()
    assert job.get(timeout=1) == "done"


def test_claim_whose_reply_was_lost_is_given_back_though_somebody_holds_a_job(
    jobs: PgJobs, conn: psycopg.Connection[Any], database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its row must stay until the last job could be released: without it, that one would run under no claim."""
    monkeypatch.setattr("pgjobs.worker.claiming.reconcile.RECONCILE_S", 0.1)
    task = jobs.task(name="work")(lambda: "done")
    held, other = task.enqueue(), task.enqueue()
    link = Link(jobs.database, "test")
    with jobs.worker(queues="other") as worker, psycopg.connect(database_url) as app:
        link.one(statements.claim(worker.id, new_id(), [Range(("default", 0))], 10))
        app.execute("SELECT FROM pgjobs.jobs WHERE id = %s FOR UPDATE", [held.id])
        eventually(lambda: other.refresh().status is Status.QUEUED)
        rounds = conn.execute("SELECT count(*) FROM pgjobs.claims").fetchone()
        app.rollback()
        eventually(lambda: held.refresh().status is Status.QUEUED)
        eventually(lambda: conn.execute("SELECT count(*) FROM pgjobs.claims").fetchone() == (0,))
    assert rounds == (1,)
    link.close()


def test_claim_that_commits_after_its_worker_took_leave_is_reaped(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    """Its connection was cut, or its commit waited for a standby, while another one took leave of the database."""
    jobs.task(name="work")(lambda: None).enqueue()
    link, late = Link(jobs.database, "test"), Link(jobs.database, "test")
    worker, claim = statements_of_a_worker(link)
    late.begin()
    assert len(late.step(statements.claim(worker, claim, [Range(("default", 0))], 10))) == 1
    link.one(statements.retire(worker))
    late.commit()
    link.one(statements.reap(None, None, 3, "gone"))
    assert conn.execute("SELECT status FROM pgjobs.jobs").fetchone() == ("queued",)
    link.close()
    late.close()


def test_completion_whose_reply_was_lost_is_recorded_once(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    """Sent again after its commit, the statement finds the job ended under its own claim, and counts it no more."""
    work = jobs.task(name="work")(lambda: None)
    work.enqueue()
    link = Link(jobs.database, "test")
    worker, claim_id = statements_of_a_worker(link)
    rows = link.one(statements.claim(worker, claim_id, [Range(("default", 0))], 10))
    claim = Claim(claim_id, 1)
    run = Run(rows[0], claim, time.perf_counter(), "pgjobs")
    outcome = Outcome(run, "succeeded", 0.1, result="1")
    events: list[Event] = []
    completer = Completer(events.append)
    for _ in range(2):
        claim.left = 1
        assert completer.confirm([outcome], link.batch(*completer.statements([outcome])), link) == []
    assert [type(event).__name__ for event in events] == ["Recorded", "Recorded"]
    assert conn.execute("SELECT sum(jobs)::int FROM pgjobs.rollups").fetchone() == (1,)
    link.close()


def test_claim_stays_until_the_last_of_its_jobs_has_ended(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    jobs.task(name="work")(lambda i: i).enqueue_many([(i,) for i in range(2)])
    link = Link(jobs.database, "test")
    worker, claim_id = statements_of_a_worker(link)
    rows = link.one(statements.claim(worker, claim_id, [Range(("default", 0))], 10))
    claim, completer = Claim(claim_id, 2), Completer(lambda event: None)
    for row, left in zip(rows, (1, 0), strict=True):
        outcomes = [Outcome(Run(row, claim, time.perf_counter(), "pgjobs"), "succeeded", 0.1, result="1")]
        assert completer.confirm(outcomes, link.batch(*completer.statements(outcomes)), link) == []
        link.batch(*completer.forget())
        assert conn.execute("SELECT count(*) FROM pgjobs.claims").fetchone() == (left,)
    link.close()


@pytest.mark.parametrize("held", [False, True])
def test_two_runs_of_one_job_in_one_worker_are_told_apart(
    held: bool, jobs: PgJobs, conn: psycopg.Connection[Any], database_url: str
) -> None:
    """The job was taken away from the first (its timeout came, or it was deleted and enqueued anew), and came back."""
    jobs.task(name="work")(lambda: None).enqueue()
    link = Link(jobs.database, "test")
    runs: list[Run] = []
    for _ in range(2):
        worker, claim_id = statements_of_a_worker(link)
        rows = link.one(statements.claim(worker, claim_id, [Range(("default", 0))], 10))
        runs.append(Run(rows[0], Claim(claim_id, 1), time.perf_counter(), "pgjobs"))
        link.one(statements.time_out(None, [runs[0].id]) if len(runs) == 1 else statements.busy(worker))
        conn.execute("UPDATE pgjobs.jobs SET due_at = now() WHERE due_at IS NOT NULL")
        link.one(statements.promote())
    events: list[Event] = []
    completer = Completer(events.append)
    for order in (runs[::-1], runs):
        outcomes = [Outcome(run, "succeeded", 0.1, result="1") for run in order]
        with psycopg.connect(database_url) as app:
            if held:
                app.execute("SELECT FROM pgjobs.jobs FOR UPDATE")
            kept = completer.confirm(outcomes, link.batch(*completer.statements(outcomes)), link)
        assert [outcome.run for outcome in kept] == (runs[1:] if held else [])
        lost = [event.run for event in events if isinstance(event, ClaimLost)]
        recorded = [outcome.run for event in events if isinstance(event, Recorded) for outcome in event.outcomes]
        assert (lost, recorded) == (runs[:1], [] if held else runs[1:])
        events.clear()
    link.close()
