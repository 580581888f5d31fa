"""Steering what waits: pauses, holds, moves; and where else a job may run."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from pgjobs import (
    ArgumentsError,
    Cancel,
    Job,
    JobFailedError,
    JobFileNotFoundError,
    JobNotFoundError,
    JobStateError,
    OptionError,
    PgJobs,
    QueueFullError,
    Resource,
    ResultTimeoutError,
    Snooze,
    Status,
    Task,
    TaskNotFoundError,
    current_job,
    statements,
)
from pgjobs.job import new_id
from pgjobs.webhooks import Webhook
from pgjobs.worker.claiming import pauses
from tests.model import world
from tests.processes import WorkerProcess, pgjobs
from tests.support import eventually
from tests.test_budgets import explain
from tests.test_fencing import engine_of

pytestmark = pytest.mark.server


@pytest.fixture
def ran() -> list[Any]:
    return []


@pytest.fixture
def note(jobs: PgJobs, ran: list[Any]) -> Task[..., Any, Any]:
    return jobs.task(name="note")(ran.append)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker reads the pauses when it is told of them alone."""
    monkeypatch.setattr(pauses, "READ_S", 60.0)


def drain(jobs: PgJobs) -> None:
    jobs.worker(burst=True, concurrency=1).run()


def count(conn: psycopg.Connection[Any], what: str) -> int:
    row = conn.execute(f"SELECT count(*) FROM pgjobs.{what}").fetchone()
    assert row is not None
    return int(row[0])


def stands(job: Job[Any]) -> tuple[str, str | None]:
    return job.refresh().status.value, job.reason


# -- pauses of queues


def test_paused_queue_is_not_claimed_from_until_it_is_resumed(
    jobs: PgJobs, note: Task[..., Any, Any], ran: list[Any], conn: psycopg.Connection[Any]
) -> None:
    jobs.pause("mail", reason="the server is full")
    (pause,) = jobs.pauses()
    assert (pause.kind, pause.name, pause.reason, pause.until) == ("queue", "mail", "the server is full", None)
    waits = note.using(queue="mail").enqueue("mail")
    before = conn.execute("SELECT xmin FROM pgjobs.jobs").fetchall()
    note.enqueue("other")
    drain(jobs)
    assert ran == ["other"]
    assert waits.status is Status.QUEUED
    assert conn.execute("SELECT xmin FROM pgjobs.jobs WHERE queue = 'mail'").fetchall() == before, "no row is rewritten"
    assert jobs.resume("mail")
    assert not jobs.resume("mail")
    drain(jobs)
    assert ran == ["other", "mail"]


def test_running_worker_hears_of_pause_and_resumption(
    told: None, jobs: PgJobs, note: Task[..., Any, Any], ran: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgjobs.worker.claiming.pace.POLL_S", 60.0)
    reads = counted(monkeypatch)
    with jobs.worker(queues="mail,default"):
        note.using(queue="mail").enqueue(1).get(10)
        seen = reads()
        jobs.pause("mail")
        eventually(lambda: reads() > seen)
        waits = note.using(queue="mail").enqueue(2)
        note.enqueue(3).get(10)
        assert (ran, waits.status) == ([1, 3], Status.QUEUED)
        jobs.resume("mail")
        waits.get(5)


def counted(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Counts how often pauses are read, when what was read has been taken in."""
    done: list[None] = []
    see_to = pauses.Pauses.see_to

    def counting(self: pauses.Pauses) -> bool:
        before = self._read_at
        resumed = see_to(self)
        if self._read_at != before:
            done.append(None)
        return resumed

    monkeypatch.setattr(pauses.Pauses, "see_to", counting)
    return lambda: len(done)


def test_pause_is_noticed_though_the_notification_is_missed(
    jobs: PgJobs, note: Task[..., Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgjobs.worker.claiming.claimer.Claimer.hint_pauses", lambda self: None)
    reads = counted(monkeypatch)
    with jobs.worker():
        note.enqueue(1).get(10)
        jobs.pause("default")
        seen = reads()
        eventually(lambda: reads() > seen, timeout_s=pauses.READ_S + 2)
        waits = note.enqueue(2)
        jobs.resume("default")
        waits.get(pauses.READ_S + 3)


def test_what_runs_in_a_paused_queue_goes_on_to_its_end(jobs: PgJobs) -> None:
    begun, go_on = threading.Event(), threading.Event()

    @jobs.task
    def work() -> str:
        begun.set()
        go_on.wait(10)
        return "done"

    with jobs.worker():
        job = work.enqueue()
        assert begun.wait(10)
        jobs.pause("default")
        go_on.set()
        assert job.get(10) == "done"


def test_pause_ends_by_itself(jobs: PgJobs, note: Task[..., Any, Any], conn: psycopg.Connection[Any]) -> None:
    jobs.pause("default", for_="200ms")
    jobs.pause(task=note, until=datetime.now(UTC) + timedelta(seconds=1))
    with jobs.worker():
        note.enqueue(1).get(10)
    eventually(lambda: jobs.pauses() == [])
    assert count(conn, "holds") == 0


def test_jobs_that_came_back_to_a_paused_queue_start_when_it_is_resumed(
    jobs: PgJobs, note: Task[..., Any, Any], ran: list[Any], conn: psycopg.Connection[Any]
) -> None:
    with jobs.worker() as worker:
        note.enqueue_many([(i,) for i in range(50)])
        eventually(lambda: len(ran) == 50)
        claimer = worker._life_now().claimer
        jobs.pause("default")
        eventually(lambda: claimer._lanes.is_paused("default"))
        conn.execute("INSERT INTO pgjobs.jobs (task, args, position) VALUES ('note', '{\"object\": 99}', -7)")
        conn.execute("SELECT pg_notify('pgjobs.jobs', 'restored 0 -7 default')")
        eventually(lambda: claimer._hints._below)
        jobs.resume("default")
        eventually(lambda: 99 in ran or len(ran) == 51, timeout_s=2)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda jobs: jobs.pause(), "one of queue= and task="),
        (lambda jobs: jobs.pause("a", "b"), "one of queue= and task="),
        (lambda jobs: jobs.pause("a b"), "is not a name"),
        (lambda jobs: jobs.pause("a", for_="1h", until=datetime.now(UTC)), "give one of them"),
        (lambda jobs: jobs.pause("a", until=datetime(2030, 1, 1)), "aware datetime"),
    ],
)
def test_pause_that_cannot_be_meant_is_refused(jobs: PgJobs, call: Callable[[PgJobs], None], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        call(jobs)


# -- pauses of tasks


def test_jobs_of_a_paused_task_are_put_on_hold_once_and_come_back_in_order(
    jobs: PgJobs, note: Task[..., Any, Any], ran: list[Any], conn: psycopg.Connection[Any]
) -> None:
    other = jobs.task(name="other")(ran.append)
    jobs.pause(task=note)
    first = note.enqueue(0)
    note.enqueue_many([(i,) for i in range(1, 1500)])
    other.enqueue("other")
    drain(jobs)
    assert ran == ["other"]
    assert (*stands(first), first.attempt) == ("blocked", "paused", 0)
    assert count(conn, "holds WHERE kind = 'task' AND name = 'note'") == 1500
    assert count(conn, "jobs WHERE position IS NOT NULL") == 0
    assert jobs.resume(task="note")
    assert count(conn, "holds") == 0
    drain(jobs)
    assert ran == ["other", *range(1500)]


def test_duty_queues_again_what_was_put_on_hold_just_as_its_task_was_resumed(
    jobs: PgJobs, note: Task[..., Any, Any], conn: psycopg.Connection[Any]
) -> None:
    jobs.pause(task=note)
    jobs.pause(task="other")
    job = note.enqueue(1)
    still = jobs.using().enqueue("other", 1)
    drain(jobs)
    assert (stands(job), stands(still)) == (("blocked", "paused"),) * 2
    conn.execute("DELETE FROM pgjobs.pauses WHERE name = 'note'")
    with jobs.worker():
        job.get(10)
    assert stands(still) == ("blocked", "paused")


def test_stale_knowledge_of_a_pause_puts_nothing_on_hold(
    told: None, jobs: PgJobs, note: Task[..., Any, Any], conn: psycopg.Connection[Any]
) -> None:
    jobs.pause(task=note)
    with jobs.worker() as worker:
        job = note.enqueue(1)
        eventually(lambda: stands(job) == ("blocked", "paused"))
        worker._life_now().claimer.hint_pauses = lambda: None  # type: ignore[method-assign]
        conn.execute("DELETE FROM pgjobs.pauses")
        assert note.enqueue(2).get(10) is None


def test_job_cancelled_while_its_task_is_paused_is_cancelled(
    jobs: PgJobs, note: Task[..., Any, Any], conn: psycopg.Connection[Any]
) -> None:
    jobs.pause(task=note)
    job = note.enqueue(1)
    drain(jobs)
    job.cancel("enough")
    assert stands(job) == ("cancelled", "enough")
    assert count(conn, "holds") == 0
    job.retry()
    drain(jobs)
    assert stands(job) == ("blocked", "paused")


def test_row_of_a_hold_that_means_nothing_any_more_goes_with_the_resumption(
    jobs: PgJobs, note: Task[..., Any, Any], conn: psycopg.Connection[Any]
) -> None:
    job = note.using(delay="1h").enqueue(1)
    conn.execute("INSERT INTO pgjobs.holds (job_id, kind, name, position) VALUES (%s, 'task', 'note', 1)", [job.id])
    jobs.resume(task=note)
    assert count(conn, "holds") == 0
    assert job.status is Status.SCHEDULED


def test_resumption_passes_over_a_job_whose_row_somebody_holds(
    jobs: PgJobs, note: Task[..., Any, Any], conn: psycopg.Connection[Any], direct_url: str
) -> None:
    jobs.pause(task=note)
    held, free = note.enqueue(1), note.enqueue(2)
    drain(jobs)
    with psycopg.connect(direct_url) as app:
        app.execute("SELECT FROM pgjobs.jobs WHERE id = %s FOR UPDATE", [held.id])
        jobs.resume(task=note)
        assert (free.refresh().status, held.refresh().status) == (Status.QUEUED, Status.BLOCKED)
    with jobs.worker():
        held.get(10)


# -- holds


def test_job_on_hold_waits_until_it_is_let_go(jobs: PgJobs, note: Task[..., Any, Any], ran: list[Any]) -> None:
    first, second = note.enqueue(1), note.enqueue(2)
    first.hold("look at it")
    assert stands(first) == ("blocked", "held: look at it")
    drain(jobs)
    assert ran == [2]
    assert first.unhold().status is Status.QUEUED
    assert first.reason is None
    drain(jobs)
    assert ran == [2, 1]
    with pytest.raises(JobStateError, match="is succeeded and cannot be put on hold"):
        second.hold()
    with pytest.raises(JobStateError, match="cannot be let go; only one that is on hold can"):
        second.unhold()


def test_scheduled_job_on_hold_goes_back_to_its_time(
    jobs: PgJobs, note: Task[..., Any, Any], conn: psycopg.Connection[Any]
) -> None:
    job = note.using(delay="1h").enqueue(1)
    due = job.row.due_at
    assert job.hold().row.due_at is None
    assert (job.unhold().status, job.row.due_at) == (Status.SCHEDULED, due)
    late = note.using(delay="1h").enqueue(1).hold()
    conn.execute("UPDATE pgjobs.holds SET due_at = now() - interval '1 minute'")
    conn.execute("UPDATE pgjobs.jobs SET run_at = now() - interval '1 minute' WHERE id = %s", [late.id])
    assert late.unhold().status is Status.QUEUED


def test_running_job_cannot_be_put_on_hold(jobs: PgJobs) -> None:
    begun, go_on = threading.Event(), threading.Event()

    @jobs.task
    def work() -> None:
        begun.set()
        go_on.wait(10)

    with jobs.worker():
        job = work.enqueue()
        assert begun.wait(10)
        with pytest.raises(JobStateError, match="is running and cannot be put on hold"):
            job.hold()
        with pytest.raises(JobStateError, match="is running and cannot be moved"):
            job.move("elsewhere")
        go_on.set()
        job.get(10)


@pytest.mark.parametrize("end", ["cancel", "delete", "expire"])
def test_hold_goes_with_its_job(
    end: str, jobs: PgJobs, note: Task[..., Any, Any], conn: psycopg.Connection[Any]
) -> None:
    job = note.using(ttl="50ms" if end == "expire" else "1h").enqueue(1).hold()
    assert count(conn, "holds") == 1
    if end == "expire":
        with jobs.worker(queues="another"):
            eventually(lambda: job.refresh().status is Status.EXPIRED)
    else:
        getattr(job, end)()
    assert count(conn, "holds") == 0
    if end != "delete":
        assert job.retry().status is Status.QUEUED


def test_job_of_a_paused_task_may_be_put_on_hold_for_longer(
    jobs: PgJobs, note: Task[..., Any, Any], ran: list[Any]
) -> None:
    jobs.pause(task=note)
    job = note.enqueue(1)
    drain(jobs)
    job.hold("for longer")
    jobs.resume(task=note)
    assert stands(job) == ("blocked", "held: for longer")
    job.unhold()
    drain(jobs)
    assert ran == [1]


def test_many_are_held_and_let_go_in_their_order(jobs: PgJobs, note: Task[..., Any, Any], ran: list[Any]) -> None:
    ids = note.enqueue_many([(i,) for i in range(20)])
    assert sorted(jobs.hold(reversed(ids), "all")) == ids
    assert jobs.hold(ids) == []
    assert sorted(jobs.unhold(reversed(ids))) == ids
    drain(jobs)
    assert ran == list(range(20))


# -- moves


def test_moved_job_is_another_queues_at_its_end(jobs: PgJobs, note: Task[..., Any, Any], ran: list[Any]) -> None:
    job = note.enqueue("moved")
    note.using(queue="mail").enqueue("there before")
    assert job.move("mail").queue == "mail"
    jobs.worker(burst=True, concurrency=1, queues="mail").run()
    assert ran == ["there before", "moved"]
    with pytest.raises(OptionError, match="is not a name"):
        job.move("no name")


def test_prioritized_job_goes_first(jobs: PgJobs, note: Task[..., Any, Any], ran: list[Any]) -> None:
    ids = note.enqueue_many([(i,) for i in range(4)])
    assert jobs.prioritize(ids[2:], 10) == ids[2:]
    later = note.using(delay="1h").enqueue("later")
    assert later.prioritize(-5).row.priority == -5
    assert later.status is Status.SCHEDULED
    drain(jobs)
    assert ran == [2, 3, 0, 1]
    with pytest.raises(OptionError, match="from -100 to 100"):
        later.prioritize(1000)


def test_scheduled_job_is_run_now(jobs: PgJobs, note: Task[..., Any, Any], ran: list[Any]) -> None:
    ids = [note.using(delay=f"{hours}h").enqueue(hours).id for hours in (3, 1, 2)]
    assert sorted(jobs.run_now(ids)) == ids
    drain(jobs)
    assert ran == [1, 2, 3]
    with pytest.raises(JobStateError, match="cannot be queued now; only one that is scheduled can"):
        jobs.job(ids[0]).run_now()


def test_job_that_goes_first_still_does_after_a_move(jobs: PgJobs, note: Task[..., Any, Any], ran: list[Any]) -> None:
    note.using(queue="mail").enqueue("waits")
    note.using(lifo=True).enqueue("first").move("mail")
    drain(jobs)
    assert ran == ["first", "waits"]


def test_running_worker_takes_at_once_what_was_moved(
    jobs: PgJobs, note: Task[..., Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgjobs.worker.claiming.pace.POLL_S", 60.0)
    monkeypatch.setattr("pgjobs.worker.claiming.sweep.rest_after", lambda took_s: 60.0)
    with jobs.worker(queues="mail,default"):
        note.enqueue(0).get(10)
        scheduled, held, elsewhere = (
            note.using(delay="1h").enqueue(1),
            note.using(delay="1h").enqueue(2).hold(),
            note.using(queue="elsewhere").enqueue(3),
        )
        scheduled.run_now().get(5)
        held.unhold().run_now().get(5)
        elsewhere.move("mail").get(5)
        first = note.using(queue="elsewhere").enqueue(4)
        first.prioritize(50).move("mail").get(5)


async def test_async_twins_do_the_same(jobs: PgJobs, note: Task[..., Any, Any]) -> None:
    await jobs.apause("mail", for_="1h")
    assert [pause.name for pause in await jobs.apauses()] == ["mail"]
    assert await jobs.aresume("mail")
    await jobs.apause(task=note)
    assert await jobs.aresume(task=note)
    job = await note.using(delay="1h").aenqueue(1)
    assert (await job.ahold("x")).reason == "held: x"
    assert (await job.aunhold()).status is Status.SCHEDULED
    assert (await job.amove("mail")).queue == "mail"
    assert (await job.aprioritize(3)).row.priority == 3
    assert (await job.arun_now()).status is Status.QUEUED
    with pytest.raises(JobStateError):
        await job.arun_now()
    assert await jobs.ahold([job]) == [job.id] == await jobs.aunhold([job])
    assert await jobs.amove([job], "x") == [job.id] == await jobs.aprioritize([job], 1)
    assert await jobs.arun_now([job]) == []
    await jobs.aclose()


def test_plain_sql_does_the_same(jobs: PgJobs, note: Task[..., Any, Any], conn: psycopg.Connection[Any]) -> None:
    ids = [note.enqueue(1).id]
    assert conn.execute("SELECT id FROM pgjobs.hold(%s, 'by hand')", [ids]).fetchall() == [(ids[0],)]
    assert conn.execute("SELECT id FROM pgjobs.unhold(%s)", [ids]).fetchall() == [(ids[0],)]
    assert conn.execute("SELECT id FROM pgjobs.move(%s, 'mail')", [ids]).fetchall() == [(ids[0],)]
    assert conn.execute("SELECT id FROM pgjobs.prioritize(%s, 7)", [ids]).fetchall() == [(ids[0],)]
    conn.execute("SELECT pgjobs.pause('queue', 'mail', until => now() + interval '1 hour')")
    assert conn.execute("SELECT pgjobs.resume('queue', 'mail'), pgjobs.resume('queue', 'x')").fetchone() == (
        True,
        False,
    )
    job = jobs.job(ids[0])
    assert (job.queue, job.row.priority, job.status) == ("mail", 7, Status.QUEUED)


# -- the command line


def test_commands_do_the_same(jobs: PgJobs, note: Task[..., Any, Any], database_url: str) -> None:
    def run(*arguments: str) -> str:
        done = pgjobs(database_url, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    job = note.using(queue="mail").enqueue(1)
    assert run("queues", "pause", "mail", "--for", "1h", "--reason", "full") == "queue mail is paused"
    assert run("tasks", "pause", "note") == "task note is paused"
    listed = run("queues", "list").splitlines()
    assert listed[0].startswith("mail: 1 queued, 0 running, 0 scheduled; paused until ")
    assert listed[0].endswith("(full)")
    assert listed[1] == "task note: paused"
    assert run("tasks", "list") == "no task is known; workers publish theirs when they start"
    with jobs.worker(queues="none"):
        assert "‖ note" in run("tasks", "list")
    (known,) = json.loads(run("tasks", "list", "--json"))
    assert (known["name"], known["queue"], known["failed"], known["paused"]) == ("note", "default", 0, True)
    assert run("queues", "resume", "mail") == "queue mail is resumed"
    assert run("tasks", "resume", "note") == "task note is resumed"
    assert run("jobs", "hold", str(job.id)) == "1 put on hold"
    assert run("jobs", "unhold", "--queue", "mail", "--yes").endswith("1 let go")
    assert run("jobs", "move", str(job.id), "--to", "post") == "1 moved"
    assert run("jobs", "prioritize", str(job.id), "--to", "3") == "1 moved"
    assert pgjobs(database_url, "jobs", "run-now", str(job.id)).returncode == 1
    assert (job.refresh().queue, job.row.priority) == ("post", 3)
    assert pgjobs(database_url, "queues", "drain", "post", "--timeout", "0s").returncode == 1
    assert run("queues", "clear", "post", "--yes").endswith("1 deleted")
    assert run("queues", "drain", "post") == "queue post is empty"


# -- inline


def test_inline_job_runs_where_it_is_enqueued_without_a_database(ran: list[Any]) -> None:
    jobs = PgJobs("postgresql://nobody@127.0.0.1:1/none")

    @jobs.task(queue="mail", priority=3)
    def double(value: int) -> dict[str, Any]:
        job = current_job()
        ran.append((job.id, job.queue, job.priority, job.attempt))
        return {"double": (value, value)}

    with jobs.inline():
        job = double.using(delay="1h", unique=True).enqueue(2)
        assert job.get() == {"double": [2, 2]}, "as JSON gives it back"
        assert ran == [(job.id, "mail", 3, 1)]
        assert (jobs.job(job.id).status, job.args) == (Status.SUCCEEDED, {"value": 2})
        assert [jobs.job(job_id).result for job_id in double.enqueue_many([(1,), (3,)])] == [
            {"double": [1, 1]},
            {"double": [3, 3]},
        ]
        with pytest.raises(ArgumentsError):
            double.enqueue("a")  # type: ignore[arg-type]
    with pytest.raises(psycopg.OperationalError):
        double.enqueue(2)
    assert job.refresh().status is Status.SUCCEEDED


def test_inline_job_fails_as_any_other(ran: list[Any]) -> None:
    jobs = PgJobs(inline=True)

    @jobs.task(retry=3)
    def flaky(succeeds_at: int) -> int:
        ran.append(current_job().attempt)
        if current_job().attempt < succeeds_at:
            raise RuntimeError("not yet")
        return succeeds_at

    assert flaky.enqueue(3).get() == 3
    assert ran == [1, 2, 3]
    lost = flaky.enqueue(9)
    assert (lost.status, len(lost.failures())) == (Status.FAILED, 3)
    with pytest.raises(JobFailedError, match="RuntimeError: not yet"):
        lost.get()
    steered = jobs.task(name="steered")(steer)
    assert steered.enqueue("cancel").reason == "no"
    snoozed = steered.enqueue("snooze")
    assert (snoozed.status, snoozed.attempt) == (Status.SCHEDULED, 0)
    with pytest.raises(ResultTimeoutError):
        snoozed.get()
    assert steered.enqueue("set").status is Status.FAILED, "a set is no JSON"


def steer(how: str) -> object:
    match how:
        case "cancel":
            raise Cancel("no")
        case "snooze":
            raise Snooze("1h")
        case _:
            return {1}


async def test_inline_coroutines_run_from_both_sides(ran: list[Any]) -> None:
    jobs = PgJobs(inline=True)

    @jobs.task
    async def add(a: int, b: int) -> int:
        return a + b + current_job().attempt

    @jobs.task
    def subtract(a: int, b: int) -> int:
        return a - b - current_job().attempt

    assert add.enqueue(1, 2).get() == 4
    assert await (await add.aenqueue(1, 2)).aget() == 4
    assert await (await subtract.aenqueue(1, 2)).aget() == -2
    (job_id,) = await add.aenqueue_many([(5, 5)])
    assert (await jobs.ajob(job_id)).result == 11
    assert jobs.enqueue(steer, "cancel").status is Status.CANCELLED
    with pytest.raises(TaskNotFoundError, match="cannot run inline"):
        jobs.enqueue("nowhere:nothing")


def test_inline_jobs_have_what_a_test_gives_them(ran: list[Any]) -> None:
    jobs = PgJobs(inline=True)

    def session(engine: str = Resource()) -> Generator[str]:
        yield f"session of {engine}"
        ran.append("closed")

    @jobs.task
    def ask(what: str, engine: str = Resource(), session: str = Resource(session)) -> list[str]:
        return [what, engine, session]

    @jobs.task
    async def aask(session: str = Resource(session)) -> str:
        return session

    async def named(engine: str = Resource()) -> str:
        return f"named {engine}"

    async def opened(name: str = Resource(named), length: int = Resource(lambda: 7)) -> AsyncGenerator[str]:
        yield f"{name} {length}"
        ran.append("closed")

    @jobs.task
    async def own(opened: str = Resource(opened)) -> str:
        return opened

    with jobs.inline({"engine": "fake"}):
        assert ask.enqueue("a").get() == ["a", "fake", "session of fake"]
        assert (aask.enqueue().get(), ran) == ("session of fake", ["closed"] * 2)
        assert (own.enqueue().get(), ran) == ("named fake 7", ["closed"] * 3)
    lacking = ask.enqueue("a")
    assert lacking.status is Status.FAILED
    assert "jobs.inline(" in (lacking.failures()[0].message or "")


async def test_inline_jobs_are_steered_without_a_database(ran: list[Any]) -> None:
    jobs = PgJobs("postgresql://nobody@127.0.0.1:1/none", inline=True)

    @jobs.task(retry=1)
    def divide(a: int, b: int) -> float:
        ran.append((a, b))
        return a / b

    snoozed, asnoozed = (jobs.enqueue(steer, "snooze") for _ in "ab")
    assert snoozed.cancel("no more").status is Status.CANCELLED
    assert ((await asnoozed.acancel()).reason, snoozed.reason) == ("cancelled", "no more")

    broken = divide.enqueue(1, 0)
    for steered in (broken.cancel, broken.hold, broken.unhold, broken.run_now):
        with pytest.raises(JobStateError, match="is failed and cannot be"):
            steered()
    with pytest.raises(JobStateError, match="is failed and cannot be moved"):
        await broken.amove("mail")
    with pytest.raises(ArgumentsError, match="missing"):
        broken.retry(args={"a": 1})
    assert broken.retry().status is Status.FAILED
    assert broken.retry(args={"a": 1, "b": 2}).get() == 0.5
    assert (await broken.aretry(args={"a": 1, "b": 4})).result == 0.25
    assert (await broken.aretry()).result == 0.25
    assert ran == [(1, 0), (1, 0), (1, 2), (1, 4), (1, 4)]
    assert len(broken.failures()) == 2, "they are kept"
    assert [reason.text for reason in broken.explain()] == ["it ran where it was enqueued, and is succeeded"]
    assert await broken.aexplain() == broken.explain()

    assert jobs.retry([broken, snoozed]) == [broken.id, snoozed.id]
    broken.delete()
    await asnoozed.adelete()
    assert jobs.delete([snoozed]) == [snoozed.id]


async def test_inline_jobs_stand_beside_those_of_the_table(jobs: PgJobs, ran: list[Any]) -> None:
    @jobs.task
    async def note(i: int) -> int:
        current_job().progress(i)
        current_job().attach("note.txt", str(i))
        logging.getLogger("of the job").warning("note %d", i)
        return i

    before = await note.aenqueue(1)
    async with jobs.worker():
        assert await before.aget(timeout=10) == 1
    with jobs.inline():
        inside = await note.aenqueue(2)
        for job, i in ((jobs.job(before.id), 1), (inside, 2)):
            assert (await job.arefresh()).result == i
            assert job.refresh().result == i
            assert [file.name for file in job.files()] == [file.name for file in await job.afiles()] == ["note.txt"]
            assert job.file("note.txt") == await job.afile("note.txt") == str(i).encode()
            assert job.failures() == await job.afailures() == []
            assert [line.line for line in job.logs()] == [line.line for line in await job.alogs()]
        with pytest.raises(JobFileNotFoundError):
            inside.file("other.txt")
        with pytest.raises(JobNotFoundError):
            jobs.wait([new_id()], 1)
        assert jobs.retry([inside, before]) == [inside.id, before.id], "one runs again here, the other one waits"
        assert jobs.cancel([inside, before]) == {before.id: "cancelled"}
        assert await jobs.aretry([before]) == [before.id]
        assert await jobs.acancel([inside, before]) == {before.id: "cancelled"}
        assert jobs.delete([inside, before]) == [inside.id, before.id]
        assert [job.result for job in jobs.broadcast(note, 3)] == [3]
        assert [job.result for job in await jobs.abroadcast(note, 4)] == [4]
    await jobs.aclose()


async def test_inline_job_leaves_behind_what_any_other_does(ran: list[Any]) -> None:
    jobs = PgJobs("postgresql://nobody@127.0.0.1:1/none", inline=True)

    @jobs.task
    def follow(n: int) -> int:
        ran.append(n)
        return n

    @jobs.task(retry=2)
    def work(n: int) -> str:
        me = current_job()
        me.log(f"attempt {me.attempt}", "warning")
        me.progress(me.attempt, 2)
        me.set_meta(seen=[*me.meta.get("seen", []), me.attempt])
        me.attach("b.txt", f"attempt {me.attempt}")
        child = me.using(priority=5, meta={"of": n}).enqueue(follow, 10 * n + me.attempt)
        if me.attempt == 1:
            raise ValueError
        me.attach("a.csv", b"a,b")
        return str(child.id)

    done = [work.using(meta={"tenant": 5}).enqueue(0), await work.aenqueue(1)]
    assert ran == [2, 12], "those of the attempts that succeeded"
    for n, job in enumerate(done):
        child = jobs.job(job.get())
        assert (child.get(), child.row.priority, child.row.meta) == (10 * n + 2, 5, {"of": n})
        assert (job.row.meta or {})["seen"] == [1, 2]
        assert job.progress == {"done": 2, "total": 2}
        assert [(line.attempt, line.level, line.line) for line in await job.alogs()] == [
            (1, "warning", "attempt 1"),
            (2, "warning", "attempt 2"),
        ]
        assert [(file.name, file.content_type, file.size) for file in await job.afiles()] == [
            ("a.csv", "text/csv", 3),
            ("b.txt", "text/plain", 9),
        ]
        assert (job.file("b.txt"), await job.afile("a.csv")) == (b"attempt 2", b"a,b")
        assert (job.logs(after=1)[0].id, len(job.files())) == (2, 2)
        with pytest.raises(JobFileNotFoundError):
            job.file("c")
        assert list(jobs.as_completed([job, child, job])) == [job, child]
        assert [each async for each in jobs.aas_completed([child])] == [child]


def test_inline_jobs_have_a_transaction_of_their_own() -> None:
    engine = create_engine("sqlite://")
    jobs = PgJobs(inline=True)

    @jobs.task(transaction=sessionmaker(engine))
    def count(to: int, *, session: Session) -> int:
        return session.scalar(text("SELECT :to"), {"to": to}) or 0

    assert count.enqueue(7).get() == 7


def test_inline_job_completes_within_the_callers_transaction_too() -> None:
    jobs = PgJobs(inline=True)

    @jobs.task
    def pay() -> None:
        current_job().complete(None, result="paid")

    assert pay.enqueue().get() == "paid"


# -- here


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that claims nothing of its own accord."""
    monkeypatch.setattr("pgjobs.worker.claiming.claimer.Claimer._room", lambda self: 0)


def test_job_starts_here_right_after_its_commit(
    blind: None, jobs: PgJobs, note: Task[..., Any, Any], conn: psycopg.Connection[Any]
) -> None:
    with jobs.worker(queues="another") as worker:
        job = note.using(here=True, meta={"a": 1}, priority=3).enqueue(1)
        assert job.get(10) is None
        assert (job.attempt, job.row.priority, job.row.meta) == (1, 3, {"a": 1})
        other = note.enqueue(2)
        assert other.status is Status.QUEUED
    assert (count(conn, "claims"), worker.done) == (0, 1)


@pytest.mark.parametrize("commits", [True, False])
def test_job_of_a_session_starts_here_when_it_is_committed(
    blind: None, commits: bool, jobs: PgJobs, note: Task[..., Any, Any], ran: list[Any]
) -> None:
    with engine_of(jobs) as engine, jobs.worker(queues="another"), Session(engine) as session:
        note.using(session, here=True).enqueue(1)
        assert ran == []
        session.commit() if commits else session.rollback()
        if not commits:
            session.execute(text("SELECT 1"))
            session.commit()
        note.using(here=True).enqueue(2).get(10)
        eventually(lambda: sorted(ran) == ([1, 2] if commits else [2]))


def test_job_of_a_savepoint_that_was_rolled_back_never_runs(
    blind: None, jobs: PgJobs, note: Task[..., Any, Any], ran: list[Any]
) -> None:
    with engine_of(jobs) as engine, jobs.worker(queues="another"), Session(engine) as session:
        with session.begin_nested() as savepoint:
            note.using(session, here=True).enqueue("lost")
            savepoint.rollback()
        note.using(session, here=True).enqueue("kept")
        session.commit()
        eventually(lambda: ran)
    assert ran == ["kept"]


def test_job_whose_commit_nobody_can_know_runs_as_any_other(
    jobs: PgJobs, note: Task[..., Any, Any], direct_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgjobs.worker.claiming.reconcile.RECONCILE_S", 0.2)
    with jobs.worker(), psycopg.connect(direct_url) as app:
        job = note.using(app, here=True).enqueue(1)
        app.commit()
        assert job.get(10) is None
        assert job.attempt == 1


def test_job_to_start_here_is_not_lost_with_its_process(jobs: PgJobs, note: Task[..., Any, Any]) -> None:
    with jobs.worker(queues="another") as worker:
        worker._life_now().claimer.adopt = lambda claim_id, row: None  # type: ignore[method-assign] # it died just then
        job = note.using(here=True).enqueue(1)
        assert (job.status, job.attempt) == (Status.RUNNING, 1)
        jobs.database.run(statements.declare_dead([worker.id]))
        with jobs.worker():
            assert job.get(10) is None


def test_job_to_start_here_heeds_pauses(jobs: PgJobs, note: Task[..., Any, Any], ran: list[Any]) -> None:
    jobs.pause("default")
    jobs.pause(task="other")
    other = jobs.task(name="other", queue="mail")(ran.append)
    with jobs.worker() as worker:
        eventually(lambda: worker._life_now().claimer._pauses.any_)
        first, second = note.using(here=True).enqueue(1), other.using(here=True).enqueue(2)
        eventually(lambda: (first.refresh().status, second.refresh().status) == (Status.QUEUED, Status.BLOCKED))
    assert ran == []


async def test_async_twin_starts_here_too(jobs: PgJobs, note: Task[..., Any, Any], database_url: str) -> None:
    engine = create_async_engine(database_url.replace("postgresql://", "postgresql+psycopg://"))
    async with jobs.worker(queues="another"):
        assert await (await note.using(here=True).aenqueue(1)).aget(10) is None
        async with AsyncSession(engine) as session:
            job = await note.using(session, here=True).aenqueue(2)
            await session.commit()
        assert await jobs.await_([job.id], 10)
    await engine.dispose()
    await jobs.aclose()


def test_here_needs_a_worker_and_starts_one_job_at_once(jobs: PgJobs, note: Task[..., Any, Any]) -> None:
    with pytest.raises(OptionError, match="no worker runs in this process; start one"):
        note.using(here=True).enqueue(1)
    with pytest.raises(OptionError, match="leave it out of enqueue_many"):
        note.using(here=True).enqueue_many([(1,)])
    for more in ({"delay": 5}, {"lifo": True}, {"unique": True}, {"idempotency_key": "x"}):
        with pytest.raises(OptionError, match="here starts the job at once"):
            note.using(here=True, **more)  # type: ignore[arg-type]


# -- the depth of a queue


def test_full_queue_raises_or_drops(jobs: PgJobs, note: Task[..., Any, Any], conn: psycopg.Connection[Any]) -> None:
    bounded = note.using(max_depth=2)
    assert [bounded.enqueue(i).is_dropped for i in range(2)] == [False, False]
    with pytest.raises(QueueFullError, match="2 jobs may wait there") as caught:
        bounded.enqueue(3)
    assert (caught.value.queue, caught.value.limit) == ("default", 2)
    note.using(queue="mail", max_depth=1).enqueue("elsewhere there is room")
    dropped = note.using(max_depth=2, when_full="drop").enqueue(3)
    assert (dropped.is_dropped, dropped.is_new) == (True, False)
    with pytest.raises(JobNotFoundError):
        dropped.refresh()
    note.enqueue("who asks for no bound knows none")
    assert count(conn, "jobs") == 4


def test_bulk_that_finds_no_room_is_not_written_at_all(
    jobs: PgJobs, note: Task[..., Any, Any], conn: psycopg.Connection[Any]
) -> None:
    calls = [(i,) for i in range(2500)]
    with pytest.raises(QueueFullError):
        note.using(max_depth=2400).enqueue_many(calls)
    assert note.using(max_depth=10, when_full="drop").enqueue_many(calls) == []
    assert count(conn, "jobs") == 0
    assert len(note.using(max_depth=2500).enqueue_many(calls)) == 2500


def test_producer_waits_for_room(jobs: PgJobs, note: Task[..., Any, Any], ran: list[Any]) -> None:
    patient = note.using(max_depth=1, when_full="block")
    patient.enqueue(1)
    with pytest.raises(QueueFullError):
        note.using(max_depth=1, when_full="block", full_timeout="30ms").enqueue(2)
    with pytest.raises(QueueFullError):
        patient.enqueue_many([(2,), (3,)])  # there will never be room for two
    thread = threading.Thread(target=patient.enqueue, args=(2,))
    thread.start()
    with jobs.worker():
        thread.join(10)
        eventually(lambda: ran == [1, 2])


async def test_async_producer_waits_too(jobs: PgJobs, note: Task[..., Any, Any]) -> None:
    patient = note.using(max_depth=1, when_full="block", full_timeout=10)
    await patient.aenqueue(1)
    second = asyncio.create_task(patient.aenqueue(2))
    async with jobs.worker():
        assert await (await second).aget(10) is None
    await jobs.aclose()


def test_count_of_a_deep_queue_stops_at_the_bound(
    jobs: PgJobs, note: Task[..., Any, Any], conn: psycopg.Connection[Any]
) -> None:
    note.enqueue_many([(i,) for i in range(20_000)])
    conn.execute("VACUUM ANALYZE pgjobs.jobs")
    plan = explain(conn, statements.depth("default", 100), planned=False)
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 20


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_depth": 0}, "1 or more"),
        ({"max_depth": 5, "when_full": "wait"}, "raise, block, drop"),
        ({"when_full": "drop"}, "max_depth is not given"),
        ({"max_depth": 5, "full_timeout": 5}, "give when_full='block' too"),
    ],
)
def test_depth_that_cannot_be_meant_is_refused(jobs: PgJobs, options: Any, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        jobs.task(name="bounded", **options)(lambda: None)


# -- a job for every worker


def test_every_worker_runs_its_own_job_and_no_other(
    jobs: PgJobs, database_url: str, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgjobs.worker.claiming.pace.POLL_S", 60.0)
    monkeypatch.setattr("pgjobs.worker.claiming.sweep.rest_after", lambda took_s: 60.0)
    ran: list[tuple[str, UUID]] = []
    apps = {name: PgJobs(database_url) for name in ("all", "mail")}
    with ExitStack() as stack:
        workers = {}
        for name, app in apps.items():
            stack.callback(app.close)
            app.task(name="who")(lambda i, name=name: ran.append((name, current_job().id)))
            workers[name] = stack.enter_context(app.worker(queues={"all": "*", "mail": "mail"}[name]))
        eventually(lambda: count(conn, "idlers") == 2)
        made = jobs.broadcast("who", 1)
        assert len(made) == 2
        jobs.wait(made, 10)
        queues = {f"@{worker.id}": name for name, worker in workers.items()}
        assert sorted(ran) == sorted((queues[job.queue], job.id) for job in made)
        assert all(job.row.expires_at for job in made)
        assert jobs.database.run(statements.queue_stats()) == [], "nobody's own queue is shown"


def test_sweep_finds_a_broadcast_that_nobody_has_told_of(
    jobs: PgJobs, note: Task[..., Any, Any], conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgjobs.worker.claiming.lanes.FORGET_S", 0.1)
    with jobs.worker(queues="mail") as worker:
        lanes = worker._life_now().claimer._lanes
        conn.execute(
            "INSERT INTO pgjobs.jobs (task, queue, args) VALUES ('note', %s, '{\"object\": 1}')", [lanes.private]
        )
        eventually(lambda: count(conn, "jobs WHERE status = 'succeeded'") == 1)
        eventually(lambda: (lanes.private, 0) not in lanes.known)


def test_broadcast_to_a_worker_that_is_gone_expires(
    jobs: PgJobs, note: Task[..., Any, Any], ran: list[Any], conn: psycopg.Connection[Any]
) -> None:
    with jobs.worker():
        pass
    assert jobs.broadcast(note, 1) == []
    conn.execute("UPDATE pgjobs.workers SET dead_at = NULL, stopping_at = NULL")
    (job,) = jobs.using(ttl="100ms").broadcast(note, 1)
    conn.execute("UPDATE pgjobs.workers SET dead_at = now()")
    with jobs.worker():
        eventually(lambda: job.refresh().status is Status.EXPIRED)
    assert ran == []


@pytest.fixture
def for_one_that_left(jobs: PgJobs, note: Task[..., Any, Any], conn: psycopg.Connection[Any]) -> Job[Any]:
    """A broadcast job that has expired, since its worker had left; it has a webhook."""
    with jobs.worker():
        pass
    conn.execute("UPDATE pgjobs.workers SET dead_at = NULL, stopping_at = NULL")
    (job,) = jobs.using(ttl="1ms", webhook=Webhook("http://127.0.0.1:9/")).broadcast(note, 1)
    conn.execute("UPDATE pgjobs.workers SET dead_at = now()")
    assert jobs.database.run(statements.expire(world.EPOCH)).jobs == 1
    return job


def test_message_of_a_broadcast_waits_where_somebody_reads_it(
    for_one_that_left: Job[Any], conn: psycopg.Connection[Any]
) -> None:
    assert conn.execute(
        "SELECT queue, args->'body'->'data'->>'queue' FROM pgjobs.jobs WHERE task = 'pgjobs.webhook'"
    ).fetchall() == [("default", for_one_that_left.queue)]


@pytest.mark.parametrize("gone", ["dead_at = now()", "stopping_at = now()", "seen_at = '-infinity'"])
def test_job_of_a_worker_that_has_left_is_not_retried_and_the_error_says_what_to_do(
    gone: str, jobs: PgJobs, for_one_that_left: Job[Any], conn: psycopg.Connection[Any], database_url: str
) -> None:
    job = for_one_that_left
    conn.execute("UPDATE pgjobs.workers SET dead_at = NULL")
    conn.execute(f"UPDATE pgjobs.workers SET {gone}")  # type: ignore[call-overload]
    assert jobs.retry([job]) == []
    for args in (None, {"object": 2}):
        with pytest.raises(JobStateError, match="was for a worker that has left; enqueue it anew"):
            job.retry(args)
    assert (job.refresh().status, job.args) == (Status.EXPIRED, {"object": 1})
    done = pgjobs(database_url, "jobs", "retry", str(job.id))
    assert (done.returncode, "was for a worker that has left; enqueue it anew" in done.stderr) == (1, True)
    conn.execute("UPDATE pgjobs.workers SET dead_at = NULL, stopping_at = NULL, seen_at = now()")
    assert job.retry().status is Status.QUEUED


async def test_async_broadcast_and_what_it_refuses(jobs: PgJobs, note: Task[..., Any, Any]) -> None:
    async with jobs.worker():
        (job,) = await jobs.abroadcast(note, 1)
        await job.aget(10)
    for options in ({"delay": 5}, {"unique": True}, {"here": True}, {"max_depth": 5}, {"lifo": True}):
        with pytest.raises(OptionError, match="a job for every worker starts at once"):
            jobs.using(**options).broadcast(note, 1)  # type: ignore[arg-type]
    await jobs.aclose()


def test_command_broadcasts(jobs: PgJobs, note: Task[..., Any, Any], ran: list[Any], database_url: str) -> None:
    with jobs.worker():
        done = pgjobs(database_url, "workers", "broadcast", "note", ":5", "--ttl", "30s")
        assert done.returncode == 0, done.stderr
        jobs.job(done.stdout.strip()).get(10)
        assert ran == [5]
        assert "idle" in pgjobs(database_url, "workers").stdout


# -- aging


def test_what_has_waited_for_long_goes_before_a_higher_priority(
    jobs: PgJobs, note: Task[..., Any, Any], ran: list[Any], conn: psycopg.Connection[Any]
) -> None:
    def fill(minutes: float) -> None:
        for name, priority in (("high", 1), ("low", -1)):
            note.using(priority=priority).enqueue(name)
        conn.execute(
            "UPDATE pgjobs.jobs SET created_at = now() - %s * interval '1 minute' WHERE priority < 0", [minutes]
        )

    for minutes, first in ((2.5, "low"), (0.5, "high"), (1.5, "high")):
        ran.clear()
        fill(minutes)
        jobs.worker(burst=True, concurrency=1, aging="45s").run()
        assert ran[0] == first, f"after {minutes} minutes"
        fill(minutes)
        jobs.worker(burst=True, concurrency=1).run()
        assert ran[2] == "high", "without aging"


def test_wait_of_a_scheduled_job_counts_from_its_time(
    jobs: PgJobs, note: Task[..., Any, Any], ran: list[Any], conn: psycopg.Connection[Any]
) -> None:
    note.using(priority=-1).enqueue("low")
    conn.execute("UPDATE pgjobs.jobs SET created_at = now() - interval '1 day', run_at = now()")
    note.enqueue("normal")
    jobs.worker(burst=True, concurrency=1, aging="1h").run()
    assert ran == ["normal", "low"]


def test_ages_are_read_by_the_first_entry_of_a_lane(
    jobs: PgJobs, note: Task[..., Any, Any], conn: psycopg.Connection[Any]
) -> None:
    note.enqueue_many([(i,) for i in range(20_000)])
    conn.execute("VACUUM ANALYZE pgjobs.jobs")
    plan = explain(conn, statements.ages([statements.Range(("default", 0)), statements.Range(("none", 0))]))
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 20


def test_aging_that_cannot_be_meant_is_refused(jobs: PgJobs, database_url: str) -> None:
    with pytest.raises(OptionError, match="a point of priority"):
        jobs.worker(aging=0)
    done = pgjobs(database_url, "worker", "-A", "tests.apps.basic", "--aging", "0s")
    assert (done.returncode, "a point of priority" in done.stderr) == (2, True)


def test_worker_process_ages(database_url: str) -> None:
    with WorkerProcess(database_url, "--aging", "60s", "--burst") as worker:
        assert worker.leave() == 0, worker.lines
