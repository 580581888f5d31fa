"""Unique jobs: what makes a key, how long it is kept, and what becomes of the second."""

from __future__ import annotations

import threading
from contextlib import closing
from datetime import date
from typing import Any

import psycopg
import pytest

from pgjobs import Cancel, DuplicateJobError, Job, OptionError, PgJobs, Retry, Status, Task, Unique
from tests.support import eventually


def greet(jobs: PgJobs, **options: Any) -> Task[..., Any, Any]:
    return jobs.task(name="greet", **options)(lambda name, loud=False: f"hello {name}")


def drain(jobs: PgJobs) -> None:
    jobs.worker(burst=True).run()


def same(first: Job[Any], second: Job[Any]) -> bool:
    return first.id == second.id and first.is_new and not second.is_new


# -- what makes a key


def test_same_arguments_make_one_job(jobs: PgJobs) -> None:
    task = greet(jobs, unique=True)
    first = task.enqueue("Ann")
    assert same(first, task.enqueue("Ann"))
    assert same(first, task.enqueue(name="Ann")), "however they are passed"
    assert same(first, task.enqueue("Ann", loud=False)), "or not, and then are as they are by default"
    assert same(first, task.enqueue("Ann", False))
    assert task.enqueue("Ann", loud=True).is_new
    assert task.enqueue("Bob").is_new


def test_defaults_that_no_row_could_hold_are_left_out_of_the_key(jobs: PgJobs) -> None:
    @jobs.task(unique=True)
    def due(on: date = date(2027, 1, 31), to: Any = object()) -> None: ...

    first = due.enqueue()
    assert same(first, due.enqueue(date(2027, 1, 31)))
    assert due.enqueue(to=5).is_new


@pytest.mark.parametrize("by", ["name", ["name"], lambda name, loud=False: name.lower()])
def test_some_arguments_or_a_function_may_make_the_key(jobs: PgJobs, by: Any) -> None:
    task = greet(jobs, unique=by)
    first = task.enqueue("Ann")
    assert same(first, task.enqueue("Ann", loud=True))
    assert task.enqueue("Bob").is_new


def test_scope_says_among_which_jobs(jobs: PgJobs) -> None:
    other = jobs.task(name="other")(lambda name, loud=False: None)
    for scope, queue_matters, task_matters in (("task", False, True), ("queue", True, True), ("all", False, False)):
        task, name = greet(jobs), f"Ann of {scope}"
        unique = Unique(scope=scope)  # type: ignore[arg-type]
        assert task.using(unique=unique).enqueue(name).is_new
        assert task.using(unique=unique, queue="mail").enqueue(name).is_new == queue_matters
        assert other.using(unique=unique).enqueue(name).is_new == task_matters


def test_key_shows_no_argument(jobs: PgJobs, conn: psycopg.Connection) -> None:
    greet(jobs, unique=True).enqueue("very-private")
    ((key,),) = conn.execute("SELECT unique_key FROM pgjobs.jobs").fetchall()
    assert key.startswith("greet#")
    assert "private" not in key


def test_idempotency_key_outlives_the_end(jobs: PgJobs) -> None:
    task = greet(jobs)
    first = task.using(idempotency_key="order-1").enqueue("Ann")
    drain(jobs)
    assert same(first, task.using(idempotency_key="order-1").enqueue("Bob"))
    assert task.using(idempotency_key="order-2").enqueue("Bob").is_new
    assert task.enqueue("Ann").is_new


def test_undecorated_functions_and_names_may_be_unique_too(jobs: PgJobs) -> None:
    assert same(jobs.using(unique=True).enqueue("x:y", 1), jobs.using(unique=True).enqueue("x:y", 1))


# -- how long it is kept


def greet_any(name: str, loud: bool = False) -> str:
    match name:
        case "fails":
            raise RuntimeError(name)
        case "gives up":
            raise Cancel("no such name")
        case _:
            return name


@pytest.mark.parametrize("kept", [False, True], ids=["given up", "kept for a period"])
@pytest.mark.parametrize("end", ["Ann", "fails", "gives up", "cancelled", "expired"])
def test_key_is_given_up_at_every_end_unless_it_is_for_a_period(jobs: PgJobs, end: str, kept: bool) -> None:
    unique = Unique("name", period="1h") if kept else Unique("name")
    task = jobs.task(name="greet", unique=unique, retry=Retry(max_attempts=1))(greet_any)
    first = task.using(ttl="10ms" if end == "expired" else "1h").enqueue(end)
    if end == "cancelled":
        first.cancel()
    elif end == "expired":
        with jobs.worker(queues="another"):
            eventually(lambda: first.refresh().status is Status.EXPIRED)
    else:
        drain(jobs)
    assert first.refresh().status.ended
    assert task.enqueue(end).is_new != kept


def test_key_is_kept_while_the_job_rests_between_attempts(jobs: PgJobs) -> None:
    task = jobs.task(name="greet", unique=True, retry=Retry(backoff="1h"))(greet_any)
    first = task.enqueue("fails")
    drain(jobs)
    assert first.refresh().status is Status.SCHEDULED
    assert same(first, task.enqueue("fails"))


def test_key_of_a_period_is_free_when_it_is_over_though_the_task_has_none_any_more(
    jobs: PgJobs, conn: psycopg.Connection
) -> None:
    first = greet(jobs, unique=Unique("name", period="1h")).enqueue("ann")
    drain(jobs)
    conn.execute("UPDATE pgjobs.jobs SET created_at = now() - interval '2 hours'")
    jobs.tasks.clear()
    assert greet(jobs, unique=Unique("name")).enqueue("ann").id != first.id


def test_key_of_a_period_is_free_when_it_is_over(jobs: PgJobs, conn: psycopg.Connection) -> None:
    task = greet(jobs, unique=Unique(period="1h"))
    first = task.enqueue("Ann")
    conn.execute("UPDATE pgjobs.jobs SET created_at = now() - interval '2 hours'")
    assert same(first, task.enqueue("Ann")), "it has not ended"
    drain(jobs)
    second = task.enqueue("Ann")
    assert second.is_new
    assert same(second, task.enqueue("Ann"))


def test_key_of_a_period_is_free_for_sql_too_when_it_is_over(jobs: PgJobs, conn: psycopg.Connection) -> None:
    """Only of a job that has ended, and has a period."""
    enqueue = "SELECT pgjobs.enqueue('greet', '{\"name\": \"Ann\"}', unique_key => 'k', options => %s)"
    of_an_hour = ['{"unique_for": 3600}']

    def made() -> Any:
        return conn.execute(enqueue, of_an_hour).fetchone()

    greet(jobs)
    first = made()
    conn.execute("UPDATE pgjobs.jobs SET created_at = now() - interval '2 hours'")
    assert made() == first, "it has not ended"
    drain(jobs)
    conn.execute("UPDATE pgjobs.jobs SET created_at = now() - interval '59 minutes'")
    assert made() == first, "its period is not over"
    conn.execute("UPDATE pgjobs.jobs SET created_at = now() - interval '61 minutes'")
    second = made()
    assert second != first
    assert made() == second


def test_until_started_one_may_wait_while_another_runs(jobs: PgJobs) -> None:
    begun, go_on = threading.Event(), threading.Event()

    @jobs.task(unique=Unique(until="started"))
    def work() -> None:
        begun.set()
        go_on.wait(10)

    first = work.enqueue()
    assert same(first, work.enqueue())
    with jobs.worker(concurrency=1):
        assert begun.wait(10)
        second = work.enqueue()
        assert second.is_new
        assert same(second, work.enqueue())
        go_on.set()
        second.get(10)


# -- what becomes of the second


def test_second_may_raise(jobs: PgJobs) -> None:
    task = greet(jobs, unique=Unique(on_conflict="raise"))
    first = task.enqueue("Ann")
    with pytest.raises(DuplicateJobError, match="wait until it has ended") as caught:
        task.enqueue("Ann")
    assert caught.value.job_id == first.id


def test_second_may_replace_the_arguments_while_the_first_waits(jobs: PgJobs) -> None:
    task = greet(jobs, unique=Unique("name", on_conflict="replace"))
    first = task.enqueue("Ann")
    assert same(first, task.enqueue("Ann", loud=True))
    assert first.refresh().args == {"name": "Ann", "loud": True}
    drain(jobs)
    assert task.enqueue("Ann").is_new


def test_second_may_move_the_start(jobs: PgJobs) -> None:
    task = greet(jobs, unique=Unique("name", on_conflict="debounce"))
    first = task.using(delay="1h").enqueue("Ann")
    due = first.row.due_at
    assert due is not None
    assert same(first, task.using(delay="3h").enqueue("Ann", loud=True))
    moved = first.refresh().row
    assert moved.due_at is not None
    assert 7100 < (moved.due_at - due).total_seconds() < 7300
    assert moved.args == {"name": "Ann", "loud": True}
    assert moved.status is Status.SCHEDULED


def test_many_have_an_id_each_or_those_that_are_new(jobs: PgJobs) -> None:
    task = greet(jobs)
    first = task.using(unique=True).enqueue("b")
    calls = [("a",), ("b",), ("a",), ("c",)]
    ids = task.using(unique=True).enqueue_many(calls)
    assert ids[1] == first.id
    assert ids[0] == ids[2]
    assert len(set(ids)) == 3
    assert task.using(unique=Unique(on_conflict="skip")).enqueue_many([*calls, ("d",)]) == [jobs_of(jobs, "d")]


def jobs_of(jobs: PgJobs, name: str) -> Any:
    with closing(jobs.database.connect("test")) as conn:
        row = conn.execute("SELECT id FROM pgjobs.jobs WHERE args->>'name' = %s", [name]).fetchone()
    return row and row[0]


def test_thousands_at_once_are_unique_too(jobs: PgJobs, conn: psycopg.Connection) -> None:
    task = greet(jobs, unique=True)
    ids = task.enqueue_many([(f"{i % 1500}",) for i in range(3000)])
    assert len(ids) == 3000
    assert ids[:1500] == ids[1500:]
    assert conn.execute("SELECT count(*) FROM pgjobs.jobs").fetchone() == (1500,)


async def test_async_calls_do_so_too(jobs: PgJobs) -> None:
    task = greet(jobs, unique=True)
    first = await task.aenqueue("Ann")
    assert same(first, await task.aenqueue("Ann"))
    assert await task.aenqueue_many([("Ann",)]) == [first.id]
    await jobs.aclose()


# -- side by side


def test_key_of_an_open_transaction_is_waited_for(jobs: PgJobs, direct_url: str) -> None:
    task = greet(jobs, unique=True)
    found: list[Job[Any]] = []
    for commits in (False, True):
        with psycopg.connect(direct_url) as open_:
            first = task.using(open_).enqueue("Ann")
            thread = threading.Thread(target=lambda: found.append(task.enqueue("Ann")))
            thread.start()
            eventually(lambda: waits_for_a_lock(jobs))
            open_.commit() if commits else open_.rollback()
        thread.join(10)
        assert (found[-1].id == first.id) == commits
        drain(jobs)


def waits_for_a_lock(jobs: PgJobs) -> bool:
    with jobs.database.connect("test") as conn:
        row = conn.execute("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'").fetchone()
        return row is not None and row[0] > 0


def test_many_threads_make_one_job_and_wait_for_none(jobs: PgJobs, conn: psycopg.Connection) -> None:
    task = greet(jobs, unique=True)
    threads = [
        threading.Thread(target=task.enqueue_many, args=([(f"{i * sign % 50}",) for i in range(50)],))
        for sign in (1, -1) * 8
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert conn.execute("SELECT count(*), count(DISTINCT unique_key) FROM pgjobs.jobs").fetchone() == (50, 50)


# -- what cannot be meant


@pytest.mark.parametrize(
    ("unique", "words"),
    [
        (lambda: Unique(by=[]), "by nothing"),
        (lambda: Unique(scope="server"), "one of task, queue, all"),  # type: ignore[arg-type]
        (lambda: Unique(until="started", period=5), "give one of them"),
        (lambda: Unique(on_conflict="ignore"), "existing, skip, replace, raise, debounce"),  # type: ignore[arg-type]
        (lambda: Unique("nam"), "no argument 'nam' to be unique by; it has name, loud"),
        (lambda: 5, "names of arguments, a function, or Unique"),
        (lambda: Unique(by=5), "unique by 5 is no key"),  # type: ignore[arg-type]
        (lambda: Unique(by=b"name"), "is no key"),  # type: ignore[arg-type]
    ],
)
def test_policy_that_cannot_be_meant_is_refused(jobs: PgJobs, unique: Any, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        greet(jobs, unique=unique())


@pytest.mark.parametrize("made", [None, "", "x" * 600, "a\0b", object()])
def test_key_that_cannot_be_stored_is_refused(jobs: PgJobs, made: Any) -> None:
    with pytest.raises(OptionError, match="key"):
        greet(jobs, unique=lambda name, loud=False: made).enqueue("Ann")


def test_debounce_without_a_delay_is_refused(jobs: PgJobs) -> None:
    with pytest.raises(OptionError, match="add using\\(delay=…\\)"):
        greet(jobs, unique=Unique(on_conflict="debounce")).enqueue("Ann")


def test_idempotency_key_is_for_one_job(jobs: PgJobs) -> None:
    with pytest.raises(OptionError, match="using\\(idempotency_key=…\\)"):
        greet(jobs, idempotency_key="x")
    with pytest.raises(OptionError, match="leave it out of enqueue_many"):
        greet(jobs).using(idempotency_key="x").enqueue_many([("Ann",)])


# -- last in, first out


def test_jobs_that_go_first_run_before_all_others_the_last_one_first(jobs: PgJobs) -> None:
    ran: list[str] = []
    task = jobs.task(name="note")(ran.append)
    task.enqueue_many([("a",), ("b",)])
    for name in "cd":
        task.using(lifo=True).enqueue(name)
    task.using(lifo=True).enqueue_many([("e",), ("f",)])
    task.using(lifo=True, priority=-1).enqueue("g")
    jobs.worker(burst=True, concurrency=1).run()
    assert ran == ["f", "e", "d", "c", "a", "b", "g"]


def test_running_worker_takes_what_goes_first(jobs: PgJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgjobs.worker.claiming.pace.POLL_S", 60.0)
    task = jobs.task(name="note")(lambda i: i)
    with jobs.worker():
        for i in range(5):
            assert task.enqueue(i).get(10) == i
            assert task.using(lifo=True).enqueue(i).get(10) == i


def test_sweep_finds_what_goes_first_though_nobody_was_told(jobs: PgJobs, conn: psycopg.Connection) -> None:
    task = jobs.task(name="note")(lambda i: i)
    with jobs.worker():
        task.enqueue_many([(i,) for i in range(50)])
        eventually(lambda: conn.execute("SELECT count(*) FROM pgjobs.jobs WHERE status = 'queued'").fetchone() == (0,))
        conn.execute("INSERT INTO pgjobs.jobs (task, args, position) VALUES ('note', '{\"i\": 1}', -7)")
        eventually(
            lambda: conn.execute("SELECT count(*) FROM pgjobs.jobs WHERE status = 'succeeded'").fetchone() == (51,)
        )
