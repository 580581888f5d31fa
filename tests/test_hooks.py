"""What an application hangs around its jobs: middleware, listeners, context, webhooks."""

from __future__ import annotations

import base64
import hashlib
import hmac
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from contextvars import ContextVar
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import UUID

import psycopg
import pytest

from pgjobs import (
    ConfigurationError,
    CurrentJob,
    Job,
    JobCancelled,
    JobEnqueued,
    JobEvent,
    JobFailed,
    JobRetried,
    JobSnoozed,
    JobStarted,
    JobSucceeded,
    Middleware,
    NewJob,
    OptionError,
    PgJobs,
    Retry,
    Snooze,
    Status,
    TraceContext,
    Webhook,
    WebhookError,
    current_job,
    events,
    migrations,
    statements,
    webhooks,
)
from pgjobs.connections.link import Link
from pgjobs.context import TRACEPARENT, TRACESTATE, Variable
from pgjobs.job import new_id
from pgjobs.newjob import Prepared
from pgjobs.worker.deaths import Death, Deaths
from tests.support import eventually

pytestmark = pytest.mark.server


def drain(jobs: PgJobs) -> None:
    jobs.worker(burst=True, concurrency=2).run()


class Noting(Middleware):
    """Writes down what it sees."""

    def __init__(self, name: str, seen: list[Any]) -> None:
        self.name = name
        self.seen = seen

    def enqueue(self, job: NewJob, call_next: Callable[[NewJob], Prepared]) -> Prepared:
        self.seen.append((self.name, "enqueue", job.task, job.args))
        return call_next(job)

    def run(self, job: CurrentJob, call_next: Callable[[], Any]) -> Any:
        self.seen.append((self.name, "run", job.task))
        try:
            result = call_next()
        except Exception as error:
            self.seen.append((self.name, "saw", type(error).__name__))
            raise
        self.seen.append((self.name, "ran", result))
        return result

    async def arun(self, job: CurrentJob, call_next: Callable[[], Awaitable[Any]]) -> Any:
        self.seen.append((self.name, "arun", job.task))
        return await call_next()


class Refusing(Middleware):
    def enqueue(self, job: NewJob, call_next: Callable[[NewJob], Prepared]) -> Prepared:
        if job.options.get("queue") == "closed":
            raise PermissionError("closed")
        return call_next(job)


# -- middleware


def test_middleware_is_stacked_in_order(jobs: PgJobs) -> None:
    seen: list[Any] = []
    jobs.task(name="before")(lambda: "earlier")
    jobs.use(Noting("outer", seen), Noting("inner", seen))
    jobs.task(name="double")(lambda n: n * 2)
    job = jobs.enqueue("double", 21)
    drain(jobs)
    assert job.get(1) == 42
    assert seen == [
        ("outer", "enqueue", "double", (21,)),
        ("inner", "enqueue", "double", (21,)),
        ("outer", "run", "double"),
        ("inner", "run", "double"),
        ("inner", "ran", 42),
        ("outer", "ran", 42),
    ]
    jobs.enqueue("before")
    drain(jobs)
    assert seen[-1] == ("outer", "ran", "earlier"), "a task that was there before has it too"


def test_middleware_sees_what_a_run_raises(jobs: PgJobs) -> None:
    seen: list[Any] = []
    jobs.use(Noting("it", seen))

    @jobs.task(name="fail", retry=1)
    def fail() -> None:
        raise LookupError

    job = fail.enqueue()
    drain(jobs)
    assert seen[-1] == ("it", "saw", "LookupError")
    assert job.refresh().status is Status.FAILED


async def test_async_tasks_have_the_async_twin_around_them(jobs: PgJobs) -> None:
    seen: list[Any] = []
    jobs.use(Noting("it", seen))

    @jobs.task(name="anap")
    async def anap() -> str:
        return "rested"

    job = await anap.aenqueue()
    async with jobs.worker():
        assert await job.aget(10) == "rested"
    assert [each[1] for each in seen] == ["enqueue", "arun"]
    await jobs.aclose()


def test_middleware_may_turn_a_failure_into_a_result(jobs: PgJobs) -> None:
    class Forgiving(Middleware):
        def run(self, job: CurrentJob, call_next: Callable[[], Any]) -> Any:
            try:
                return call_next()
            except ZeroDivisionError:
                return f"forgiven in attempt {job.attempt}"

    jobs.use(Forgiving())
    jobs.task(name="divide")(lambda n: 1 / n)
    job = jobs.enqueue("divide", 0)
    drain(jobs)
    assert job.get(1) == "forgiven in attempt 1"


def test_middleware_changes_options_and_arguments_before_the_row_is_written(jobs: PgJobs) -> None:
    class Tenant(Middleware):
        def enqueue(self, job: NewJob, call_next: Callable[[NewJob], Prepared]) -> Prepared:
            job.note(tenant=5)
            job.options["queue"] = f"tenant-{job.args[0] % 2}"
            job.kwargs["more"] = True
            return call_next(job)

    @jobs.task(name="send", meta={"own": 1})
    def send(n: int, more: bool = False) -> None: ...

    jobs.use(Tenant())
    alone = send.using(priority=3).enqueue(1)
    assert (alone.row.queue, alone.row.priority, alone.row.meta) == ("tenant-1", 3, {"own": 1, "tenant": 5})
    assert alone.args == {"n": 1, "more": True}
    ids = send.enqueue_many([(2,), (4,), (5,), (6,)])
    rows = [jobs.job(job_id).row for job_id in ids]
    assert [(row.queue, row.args["n"]) for row in rows] == [
        ("tenant-0", 2), ("tenant-0", 4), ("tenant-1", 5), ("tenant-0", 6),
    ]  # fmt: skip
    assert send.options == {"meta": {"own": 1}}, "the task's own are as they were"


async def test_middleware_refuses_a_job_by_raising(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    jobs.use(Refusing())
    jobs.task(name="send")(lambda n: n)
    door = jobs.using(queue="closed")
    with pytest.raises(PermissionError):
        door.enqueue("send", 1)
    with pytest.raises(PermissionError):
        await door.aenqueue("send", 1)
    with pytest.raises(PermissionError):
        door.enqueue_many("send", [(1,)])
    with pytest.raises(PermissionError):
        door.enqueue("module:function", 1)
    assert conn.execute("SELECT count(*) FROM pgjobs.jobs").fetchone() == (0,)
    assert jobs.enqueue("send", 1).is_new


def test_middleware_that_forgets_to_go_on_is_an_error(jobs: PgJobs) -> None:
    class Forgetful(Middleware):
        def enqueue(self, job: NewJob, call_next: Callable[[NewJob], Prepared]) -> Prepared:
            return None  # type: ignore[return-value]

    jobs.use(Forgetful())
    with pytest.raises(OptionError, match=r"Forgetful.enqueue returned None; return what call_next\(job\) returns"):
        jobs.enqueue("module:function")


def test_options_that_middleware_sets_are_checked(jobs: PgJobs) -> None:
    class Wrong(Middleware):
        def enqueue(self, job: NewJob, call_next: Callable[[NewJob], Prepared]) -> Prepared:
            job.options["priority"] = 1000
            return call_next(job)

    jobs.use(Wrong())
    with pytest.raises(OptionError, match="priority is 1000"):
        jobs.enqueue("module:function")


def test_what_no_middleware_goes_around_is_called_as_it_is(jobs: PgJobs) -> None:
    jobs.use(Refusing())  # which has nothing around runs

    @jobs.task
    def plain() -> None: ...

    assert plain.body is plain.function


# -- events


def test_listeners_hear_of_every_step(jobs: PgJobs) -> None:
    heard: list[JobEvent] = []
    jobs.subscribe(heard.append, JobEvent)  # type: ignore[arg-type]

    @jobs.task(name="work", retry=Retry(2, backoff=0))
    def work(how: str) -> None:
        if how == "fail":
            raise LookupError("no such thing")
        if how == "snooze":
            raise Snooze(60)

    job = work.enqueue("fail")
    assert heard == [JobEnqueued(job.id, "work", "default")]
    with jobs.worker():
        jobs.wait([job], 10)
        snoozed, fine = work.enqueue("snooze"), work.enqueue("well")
        jobs.wait([fine], 10)
    kinds = [(type(event), event.job_id) for event in heard]
    assert [kind for kind, job_id in kinds if job_id == job.id] == [
        JobEnqueued, JobStarted, JobRetried, JobStarted, JobFailed,
    ]  # fmt: skip
    for job, end in ((fine, JobSucceeded), (snoozed, JobSnoozed)):
        told = [kind for kind, job_id in kinds if job_id == job.id]
        assert JobEnqueued in told, "before or after the worker, which may begin before enqueue has returned"
        assert [kind for kind in told if kind is not JobEnqueued] == [JobStarted, end]
    failed = next(event for event in heard if isinstance(event, JobFailed))
    assert (failed.attempt, failed.reason, failed.exception, failed.message) == (
        2, "error", "LookupError", "no such thing",
    )  # fmt: skip


def test_start_is_told_once_though_the_run_takes_more_time(jobs: PgJobs) -> None:
    heard: list[Any] = []
    jobs.subscribe(heard.append, JobStarted)

    @jobs.task(timeout=10)
    def work() -> None:
        current_job().extend(5)
        current_job().extend(5)

    work.enqueue()
    drain(jobs)
    assert len(heard) == 1


def test_nothing_is_made_of_events_that_nobody_wants(jobs: PgJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    for kind in (JobEnqueued, JobStarted, JobSucceeded):
        monkeypatch.setattr(kind, "__init__", lambda self, *fields, name=kind.__name__: made.append(name))
    heard: list[Any] = []
    jobs.subscribe(heard.append, JobCancelled, events.WorkerStopped)
    jobs.task(name="work")(lambda: None)
    jobs.enqueue("work")
    drain(jobs)
    assert made == []
    assert [type(event) for event in heard] == [events.WorkerStopped]


def test_bulk_tells_of_the_jobs_that_are_new(jobs: PgJobs) -> None:
    heard: list[Any] = []
    jobs.subscribe(heard.append, JobEnqueued)
    jobs.task(name="once", unique=True)(lambda n: n)
    first = jobs.enqueue("once", 1)
    ids = jobs.enqueue_many("once", [(1,), (2,)])
    many = jobs.enqueue_many("once.not", [(n,) for n in range(1500)])
    assert [event.job_id for event in heard] == [first.id, ids[1], *many]


@pytest.mark.parametrize("error", [RuntimeError("broken"), SystemExit(1)])
def test_listener_that_raises_disturbs_nobody(
    error: BaseException, jobs: PgJobs, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[Any] = []

    def broken(event: events.Event) -> None:
        raise error

    jobs.subscribe(broken, JobEnqueued, JobSucceeded)
    jobs.subscribe(heard.append, JobSucceeded)
    jobs.task(name="work")(lambda: 1)
    job = jobs.enqueue("work")
    drain(jobs)
    assert job.get(1) == 1
    assert len(heard) == 1
    assert "a listener to JobSucceeded raised" in caplog.text


@pytest.mark.parametrize("kinds", [(), ("JobFailed",), (int,)])
def test_subscription_names_kinds_of_events(jobs: PgJobs, kinds: Any) -> None:
    with pytest.raises(OptionError, match=r"subscribe\(listener, JobFailed\)"):
        jobs.subscribe(print, *kinds)


# -- context

LOCALE: ContextVar[str] = ContextVar("locale")
TENANT: ContextVar[int] = ContextVar("tenant")


@pytest.fixture
def travelling(database_url: str) -> Any:
    app = PgJobs(database_url, context=[LOCALE, TENANT, TraceContext()])
    yield app
    app.close()


def seen_around(jobs: PgJobs) -> list[Any]:
    seen: list[Any] = []

    @jobs.task(name="look")
    def look() -> None:
        seen.append((LOCALE.get(None), TENANT.get(None), TRACEPARENT.get(None), TRACESTATE.get(None)))

    @jobs.task(name="alook")
    async def alook() -> None:
        look()

    return seen


PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize("task", ["look", "alook"])
def test_context_travels_with_a_job(task: str, travelling: PgJobs) -> None:
    seen = seen_around(travelling)
    tokens = (LOCALE.set("de"), TRACEPARENT.set(PARENT), TRACESTATE.set("a=1"))
    job = travelling.enqueue(task)
    for variable, token in zip((LOCALE, TRACEPARENT, TRACESTATE), tokens, strict=True):
        variable.reset(token)
    travelling.enqueue(task)
    travelling.worker(burst=True, concurrency=1).run()
    assert seen == [("de", None, PARENT, "a=1"), (None, None, None, None)]
    options = job.row.options or {}
    assert options["context"] == {"locale": "de", "traceparent": PARENT, "tracestate": "a=1"}


def test_context_is_as_it_was_after_a_run() -> None:
    with Variable(TENANT).extract({"tenant": 7}):
        assert TENANT.get() == 7
    assert TENANT.get(None) is None


def test_context_of_the_call_goes_before_what_is_found(travelling: PgJobs) -> None:
    seen = seen_around(travelling)
    token = LOCALE.set("de")
    travelling.using(context={"locale": "fr", "tenant": 7}).enqueue("look")
    LOCALE.reset(token)
    drain(travelling)
    assert seen == [("fr", 7, None, None)]


def test_traceparent_that_is_none_is_dropped(travelling: PgJobs) -> None:
    seen = seen_around(travelling)
    travelling.using(context={"traceparent": "00-nonsense", "tracestate": "a=1"}).enqueue("look")
    token = TRACEPARENT.set("ff" + PARENT[2:])
    job = travelling.enqueue("look")
    TRACEPARENT.reset(token)
    drain(travelling)
    assert seen == [(None, None, None, None)] * 2
    assert job.row.options is None


def test_carrier_of_ones_own(database_url: str) -> None:
    entered: list[Any] = []

    class Carrier:
        def inject(self) -> Mapping[str, Any]:
            return {"who": {"user": 5}}

        def extract(self, context: Mapping[str, Any], /) -> AbstractContextManager[object]:
            entered.append(context["who"])
            return nullcontext()

    app = PgJobs(database_url, context=[Carrier()])
    app.task(name="work")(lambda: None)
    app.enqueue("work")
    drain(app)
    assert entered == [{"user": 5}]
    app.close()


def test_what_cannot_travel_is_refused(database_url: str) -> None:
    with pytest.raises(OptionError, match="'locale' cannot travel with jobs; give a ContextVar"):
        PgJobs(database_url, context=["locale"])  # type: ignore[list-item]


# -- webhooks

SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"


class Receiver:
    """A server that keeps what it is sent, and answers as it is told to."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[tuple[int, dict[str, str]]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # what a redirect would make of it
                self.do_POST()

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                receiver.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
                status, headers = receiver.answers.pop(0) if receiver.answers else (200, {})
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *line: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def messages(self) -> list[Any]:
        return [webhooks.verify(headers, body, SECRET) for headers, body in self.got]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def signing(database_url: str) -> Iterator[PgJobs]:
    app = PgJobs(database_url, webhook_secret=SECRET)
    app.task(name="double")(lambda n: n * 2)

    @app.task(name="fail", retry=1)
    def fail() -> None:
        raise LookupError("no such thing")

    yield app
    app.close()


def sent(conn: psycopg.Connection[Any]) -> list[Any]:
    """The jobs that send messages: status and reason."""
    return conn.execute("SELECT status, reason FROM pgjobs.jobs WHERE task = 'pgjobs.webhook' ORDER BY id").fetchall()


def test_end_of_a_job_is_posted_signed(signing: PgJobs, receiver: Receiver, conn: psycopg.Connection[Any]) -> None:
    job = signing.using(webhook=receiver.url, meta={"order": 7}, queue="mail").enqueue("double", 21)
    drain(signing)
    ((headers, _),) = receiver.got
    (message,) = receiver.messages
    row = job.refresh().row
    assert (message["type"], message["data"]["id"], message["data"]["status"]) == (
        "job.succeeded",
        str(job.id),
        "succeeded",
    )
    assert (message["data"]["task"], message["data"]["attempt"], message["data"]["meta"]) == ("double", 1, {"order": 7})
    assert datetime.fromisoformat(message["data"]["finished_at"]) == row.finished_at
    assert "result" not in message["data"], "nobody has asked for it"
    assert headers["content-type"] == "application/json"
    assert conn.execute("SELECT id::text, queue, status FROM pgjobs.jobs WHERE task = 'pgjobs.webhook'").fetchone() == (
        headers["webhook-id"],
        "mail",
        "succeeded",
    )


def test_hooks_are_told_of_the_ends_they_ask_for(signing: PgJobs, receiver: Receiver) -> None:
    hooks = [Webhook(receiver.url, on=["failed"]), Webhook(receiver.url, on=["succeeded"], result=True)]
    signing.using(webhook=hooks).enqueue("double", 21)
    drain(signing)
    signing.using(webhook=hooks).enqueue("fail")
    drain(signing)
    told = [(message["data"]["status"], message["data"].get("result")) for message in receiver.messages]
    assert told == [("succeeded", 42), ("failed", None)]
    assert receiver.messages[1]["data"]["reason"] == "error"


def test_retry_is_no_end(signing: PgJobs, receiver: Receiver) -> None:
    signing.using(webhook=receiver.url, retry=Retry(2, backoff=0)).enqueue("fail")
    with signing.worker():
        eventually(lambda: receiver.got)
    assert [message["data"]["attempt"] for message in receiver.messages] == [2]


def test_completion_in_the_applications_transaction_is_told_with_it(
    signing: PgJobs, receiver: Receiver, conn: psycopg.Connection[Any]
) -> None:
    waiting: list[int] = []

    @signing.task(name="within", webhook=receiver.url, retry=1)
    def within(commit: bool) -> None:
        with psycopg.connect(signing.database.url) as own:
            current_job().complete(own)
            if not commit:
                own.rollback()
        waiting.append(len(sent(conn)))

    within.enqueue(True)
    drain(signing)
    within.enqueue(False)
    drain(signing)
    assert [message["type"] for message in receiver.messages] == ["job.succeeded", "job.failed"]
    assert waiting == [1, 1], "the first one is there with the commit, the second one not before the end"


def test_expired_job_is_told(signing: PgJobs, receiver: Receiver, conn: psycopg.Connection[Any]) -> None:
    signing.using(webhook=receiver.url, ttl=0.01, queue="other").enqueue("double", 1)
    with signing.worker():
        eventually(lambda: receiver.got)
    assert [message["type"] for message in receiver.messages] == ["job.expired"]


def test_job_of_a_dead_worker_that_is_given_up_is_told(
    signing: PgJobs, receiver: Receiver, conn: psycopg.Connection[Any]
) -> None:
    job = signing.using(webhook=receiver.url).enqueue("double", 1)
    with closing(Link(signing.database, "test")) as link:
        worker = new_id()
        link.one(
            statements.register(
                worker, supervisor=worker, name="w", host="h", pid=1, process="{}", queues=["*"], slots=1
            )
        )
        link.one(statements.claim(worker, new_id(), [statements.Range(("default", 0))], 1))
        conn.execute("UPDATE pgjobs.jobs SET crashes = 2")
        deaths = Deaths(lambda event: None)
        deaths.add(Death([worker], [job.id], [], "the process died"))
        deaths.report(link)
    drain(signing)
    assert [(message["type"], message["data"]["reason"]) for message in receiver.messages] == [("job.failed", "poison")]


@pytest.fixture
def claimed(signing: PgJobs, receiver: Receiver) -> Iterator[tuple[Link, UUID, UUID, Job[Any]]]:
    """A job with a webhook under the claim of a worker that does nothing with it: link, worker, claim, job."""
    job = signing.using(webhook=receiver.url, retry=1).enqueue("double", 1)
    with closing(Link(signing.database, "test")) as link:
        worker, claim = new_id(), new_id()
        link.one(
            statements.register(
                worker, supervisor=worker, name="w", host="h", pid=1, process="{}", queues=["*"], slots=1
            )
        )
        assert link.one(statements.claim(worker, claim, [statements.Range(("default", 0))], 1))
        yield link, worker, claim, job


def told(signing: PgJobs, receiver: Receiver) -> list[tuple[str, str | None]]:
    """What the receiver has been sent once all messages are: type and reason."""
    drain(signing)
    return [(message["type"], message["data"]["reason"]) for message in receiver.messages]


def test_job_that_is_cancelled_while_it_waits_is_told(signing: PgJobs, receiver: Receiver) -> None:
    hooks = [Webhook(receiver.url, on=["cancelled"]), Webhook(receiver.url, on=["failed"])]
    waiting = signing.using(webhook=hooks, delay="1h").enqueue("double", 1)
    held = signing.using(webhook=hooks).enqueue("double", 2)
    signing.enqueue("double", 3).cancel()
    assert held.hold()
    waiting.cancel(reason="not wanted")
    held.cancel(reason="nor this")
    assert sorted(told(signing, receiver)) == [("job.cancelled", "nor this"), ("job.cancelled", "not wanted")]


def test_cancelling_that_is_rolled_back_is_not_told(
    signing: PgJobs, receiver: Receiver, conn: psycopg.Connection[Any]
) -> None:
    job = signing.using(webhook=receiver.url, delay="1h").enqueue("double", 1)
    with conn.transaction(force_rollback=True):
        conn.execute("SELECT pgjobs.cancel(ARRAY[%s])", [job.id])
        assert len(sent(conn)) == 1
    assert sent(conn) == []
    conn.execute("SELECT pgjobs.cancel(ARRAY[%s])", [job.id])
    assert conn.execute("SELECT max_attempts FROM pgjobs.jobs WHERE task = 'pgjobs.webhook'").fetchall() == [
        (webhooks.RETRY.attempts,)
    ]


def test_job_that_a_duty_ends_for_its_timeout_is_told(
    claimed: tuple[Link, UUID, UUID, Job[Any]], signing: PgJobs, receiver: Receiver, conn: psycopg.Connection[Any]
) -> None:
    link, worker, _, job = claimed
    assert link.one(statements.time_out([worker], [job.id])) == [(job.id, "failed")]
    assert told(signing, receiver) == [("job.failed", "timeout")]


def test_job_of_a_dead_worker_that_was_to_stop_is_told(
    claimed: tuple[Link, UUID, UUID, Job[Any]], signing: PgJobs, receiver: Receiver
) -> None:
    link, worker, _, job = claimed
    job.cancel(reason="enough")
    link.one(statements.declare_dead([worker]))
    assert link.one(statements.reap([worker], [job.id], 3, "gone")) == [(job.id, "cancelled")]
    assert told(signing, receiver) == [("job.cancelled", "enough")]


def test_job_that_is_given_back_and_was_to_stop_is_told(
    claimed: tuple[Link, UUID, UUID, Job[Any]], signing: PgJobs, receiver: Receiver
) -> None:
    link, _, claim, job = claimed
    job.cancel(reason="enough")
    assert link.one(statements.release([claim], [job.id])).ids == [job.id]
    assert told(signing, receiver) == [("job.cancelled", "enough")]


def test_job_that_fails_by_its_ttl_is_told(signing: PgJobs, receiver: Receiver) -> None:
    signing.using(webhook=receiver.url, ttl=0.01, on_expiry="fail", queue="other").enqueue("double", 1)
    eventually(lambda: signing.database.run(statements.expire(datetime(1970, 1, 1, tzinfo=UTC))).jobs)
    assert told(signing, receiver) == [("job.failed", "ttl passed")]


def test_messages_are_sent_from_a_schema_of_any_name(database_url: str, receiver: Receiver) -> None:
    migrations.migrate(database_url, schema="other")
    app = PgJobs(database_url, schema="other", webhook_secret=SECRET)
    app.task(name="double")(lambda n: n * 2)
    app.using(webhook=receiver.url, delay="1h").enqueue("double", 1).cancel()
    app.using(webhook=receiver.url).enqueue("double", 1)
    drain(app)
    assert sorted(message["type"] for message in receiver.messages) == ["job.cancelled", "job.succeeded"]
    app.close()


def test_jobs_that_have_ended_before_are_announced_no_more(
    signing: PgJobs, receiver: Receiver, conn: psycopg.Connection[Any]
) -> None:
    """Whoever may call the function, which has the rights of the schema's owner, can have nothing sent again."""
    job = signing.using(webhook=receiver.url, delay="1h").enqueue("double", 1)
    job.cancel()
    conn.execute("DELETE FROM pgjobs.jobs WHERE task = 'pgjobs.webhook'")
    assert conn.execute("SELECT pgjobs.announce(ARRAY[%s])", [job.id]).fetchone() == (0,)


def test_message_is_enqueued_once_however_often_it_is_asked_for(
    signing: PgJobs, receiver: Receiver, conn: psycopg.Connection[Any]
) -> None:
    job = signing.using(webhook=receiver.url, delay="1h").enqueue("double", 1)
    with conn.transaction():
        conn.execute("SELECT pgjobs.cancel(ARRAY[%s])", [job.id])
        assert conn.execute("SELECT pgjobs.announce(ARRAY[%s])", [job.id]).fetchone() == (0,)
    assert len(sent(conn)) == 1
    job.retry()
    signing.worker(burst=True).run()
    assert len(sent(conn)) == 2, "another end is another message"


def test_receiver_that_fails_is_asked_again_and_one_that_is_gone_is_not(
    signing: PgJobs, receiver: Receiver, conn: psycopg.Connection[Any]
) -> None:
    receiver.answers = [(500, {}), (503, {"Retry-After": "3600"}), (410, {})]
    hooks = [receiver.url] * 3
    signing.using(webhook=hooks).enqueue("double", 1)
    signing.worker(max_jobs=4, burst=True, concurrency=1).run()
    rows = conn.execute(
        "SELECT status, reason, due_at > now() + interval '59 minutes' FROM pgjobs.jobs"
        " WHERE task = 'pgjobs.webhook' ORDER BY status, due_at"
    ).fetchall()
    assert rows == [
        ("cancelled", "the receiver wants no more messages (410 Gone)", None),
        ("scheduled", "error", False),
        ("scheduled", "error", True),
    ]
    assert len(receiver.got) == 3


def test_redirect_is_not_followed(signing: PgJobs, receiver: Receiver, conn: psycopg.Connection[Any]) -> None:
    receiver.answers = [(302, {"Location": receiver.url}), (307, {"Location": receiver.url})]
    signing.using(webhook=[receiver.url] * 2).enqueue("double", 1)
    signing.worker(max_jobs=3, burst=True, concurrency=1).run()
    assert len(receiver.got) == 2
    assert [status for status, _ in sent(conn)] == ["scheduled", "scheduled"]


@pytest.mark.parametrize(
    ("hosts", "status", "reason"),
    [
        (["example.com", "127.*"], "succeeded", None),
        ("example.com, 127.0.0.1", "succeeded", None),
        ("", "succeeded", None),
        (["*.example.com"], "cancelled", "127.0.0.1 is none of webhook_hosts"),
        ([], "cancelled", "127.0.0.1 is none of webhook_hosts"),
    ],
)
def test_messages_go_to_hosts_that_are_allowed(
    hosts: Any, status: str, reason: str | None, database_url: str, receiver: Receiver, conn: psycopg.Connection[Any]
) -> None:
    with closing(PgJobs(database_url, webhook_secret=SECRET, webhook_hosts=hosts)) as jobs:
        jobs.task(name="double")(lambda n: n * 2)
        jobs.using(webhook=receiver.url).enqueue("double", 1)
        drain(jobs)
        drain(jobs)
    assert sent(conn) == [(status, reason)]
    assert len(receiver.got) == (status == "succeeded")


@pytest.mark.parametrize("hosts", [5, [5], ["https://example.com"], "a b", ["", "a"]])
def test_hosts_that_are_none_are_refused(hosts: Any) -> None:
    with pytest.raises(ConfigurationError, match="webhook_hosts"):
        PgJobs("postgresql://h/d", webhook_hosts=hosts)


def test_nothing_is_sent_unsigned(database_url: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGJOBS_WEBHOOK_SECRET", raising=False)
    app = PgJobs(database_url)
    app.task(name="work")(lambda: None)
    app.using(webhook=receiver.url).enqueue("work")
    app.worker(max_jobs=2, burst=True).run()
    with app.database.connection() as own:
        (message,) = own.execute("SELECT message FROM pgjobs.failures").fetchone() or ()
    assert "set PGJOBS_WEBHOOK_SECRET" in message
    assert receiver.got == []
    app.close()


def test_webhook_option_written_by_sql_stops_nobody(signing: PgJobs, conn: psycopg.Connection[Any]) -> None:
    for hooks in ('"x"', "7", "null", "[1, {}]", '{"url": 5}'):
        conn.execute(
            "INSERT INTO pgjobs.jobs (task, args, options)"
            " VALUES ('double', '{\"n\": 1}', jsonb_build_object('webhook', %s::jsonb))",
            [hooks],
        )
    drain(signing)
    assert conn.execute("SELECT DISTINCT status FROM pgjobs.jobs").fetchall() == [("succeeded",)]
    assert sent(conn) == []


@pytest.mark.parametrize(
    ("hook", "what"),
    [
        ("ftp://example.com", "'ftp://example.com' is no URL to post to"),
        ("https://", "is no URL to post to"),
        (["file:///etc/passwd"], "is no URL to post to"),
        ("https://example.com:99999/", "is no URL to post to"),
        ("https://example.com:port/", "is no URL to post to"),
        ("https://example.com/a b", "is no URL to post to"),
        ("https://example.com/\n", "is no URL to post to"),
        ("https://example.com/ż", "is no URL to post to"),
        ("https://żółć.pl/", "is no URL to post to"),
        ("https://example..com/", "is no URL to post to"),
        (f"https://{'a' * 70}.com/", "is no URL to post to"),
        ("https://ann:secret@example.com/", r"^(?!.*secret).*has a user or a password"),
    ],
)
def test_webhook_that_is_no_url_is_refused(jobs: PgJobs, hook: Any, what: str) -> None:
    with pytest.raises(OptionError, match=what):
        jobs.using(webhook=hook).enqueue("module:function")


@pytest.mark.parametrize("on", [[], ["ended"], "failed"])
def test_end_that_is_none_is_refused(on: Any) -> None:
    with pytest.raises(OptionError, match="give a list of succeeded, failed, cancelled, expired"):
        Webhook("https://example.com", on=on)


def test_result_goes_along_or_does_not() -> None:
    with pytest.raises(OptionError, match="give True or False"):
        Webhook("https://example.com", result="false")  # type: ignore[arg-type]


def test_signature_is_that_of_the_standard() -> None:
    """The example of the specification's own libraries."""
    assert (
        webhooks.sign(
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1614265330,
            b'{"test": 2432232314}',
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        )
        == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


def signed(body: bytes, secret: str = SECRET, age_s: int = 0) -> dict[str, str]:
    stamp = int(time.time()) - age_s
    return {
        "Webhook-Id": "1",
        "Webhook-Timestamp": str(stamp),
        "Webhook-Signature": webhooks.sign("1", stamp, body, secret),
    }


def test_receiver_accepts_what_is_signed_with_one_of_its_secrets() -> None:
    headers = signed(b"[1]")
    assert webhooks.verify(headers, b"[1]", ["another", SECRET]) == [1]
    headers["Webhook-Signature"] = "v1a,other " + headers["Webhook-Signature"]
    assert webhooks.verify(headers, b"[1]", SECRET) == [1]


@pytest.mark.parametrize("secret", ["", "whsec_", ["", SECRET]])
def test_receiver_without_a_secret_accepts_nothing(secret: Any) -> None:
    forged = hmac.new(b"", f"1.{int(time.time())}.[1]".encode(), hashlib.sha256).digest()
    headers = {
        "webhook-id": "1",
        "webhook-timestamp": str(int(time.time())),
        "webhook-signature": "v1," + base64.b64encode(forged).decode(),
    }
    with pytest.raises(ConfigurationError, match="secret is empty"):
        webhooks.verify(headers, b"[1]", secret)


@pytest.mark.parametrize(
    ("headers", "body", "what"),
    [
        (lambda: signed(b"[1]"), b"[2]", "not that of this message"),
        (lambda: signed(b"[1]", "another"), b"[1]", "not that of this message"),
        (lambda: signed(b"[1]", age_s=301), b"[1]", "too far from now"),
        (lambda: signed(b"[1]", age_s=-400), b"[1]", "too far from now"),
        (lambda: signed(b"[1]") | {"Webhook-Id": "2"}, b"[1]", "not that of this message"),
        (dict, b"[1]", "not all there"),
        (lambda: signed(b"[1]") | {"Webhook-Timestamp": "soon"}, b"[1]", "not all there"),
        (lambda: signed(b"[1]") | {"Webhook-Timestamp": "9" * 400}, b"[1]", "too far from now"),
        (lambda: signed(b"[1]") | {"Webhook-Signature": "v1,ü"}, b"[1]", "not that of this message"),
    ],
)
def test_receiver_refuses_what_is_not_as_it_was_signed(headers: Any, body: bytes, what: str) -> None:
    with pytest.raises(WebhookError, match=what):
        webhooks.verify(headers(), body, SECRET)


def test_what_cannot_be_called_is_refused_as_a_wrapper_and_as_a_listener() -> None:
    jobs = PgJobs("postgresql://127.0.0.1:1/none")
    with pytest.raises(OptionError, match="5 wraps nothing"):
        jobs.wrap(5)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    with pytest.raises(OptionError, match="5 hears nothing"):
        jobs.subscribe(5, JobFailed)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
