"""Sentry is told of runs and of jobs that have failed, and of no arguments."""

from __future__ import annotations

import asyncio
import gzip
import json
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import sentry_sdk
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport

from pgjobs import PgJobs, Retry, Snooze
from pgjobs.contrib.sentry import instrument
from pgjobs.worker.executors.pool import APART
from tests.processes import WorkerProcess
from tests.support import eventually

SECRET = "the-argument"


class Kept(Transport):
    """A transport that keeps what it is given."""

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self.items: list[dict[str, Any]] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        self.items += [item.payload.json for item in envelope.items if item.payload.json is not None]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [item for item in self.items if (item.get("type") == "transaction") == (kind == "transaction")]


@pytest.fixture
def sent() -> Iterator[Kept]:
    transport = Kept()
    sentry_sdk.init(
        dsn="http://key@127.0.0.1:1/1", transport=transport, traces_sample_rate=1.0, default_integrations=True
    )
    try:
        yield transport
    finally:
        sentry_sdk.get_client().close(timeout=0)
        sentry_sdk.init()


def drain(jobs: PgJobs) -> None:
    jobs.worker(burst=True).run()


def errors_of(sent: Kept) -> list[tuple[str, str]]:
    """For each error the task, and the exception's name or the message."""
    none = {"values": [{"type": None}]}
    return [
        (event["tags"]["pgjobs.task"], event.get("exception", none)["values"][-1]["type"] or event["message"])
        for event in sent.of("error")
    ]


def test_run_is_a_transaction_with_the_job_as_tags(jobs: PgJobs, sent: Kept) -> None:
    before = jobs.task(name="before")(lambda: 1)
    instrument(jobs)

    @jobs.task(name="after", queue="mail")
    async def after() -> int:
        await asyncio.sleep(0)
        return 2

    first, second = before.enqueue(), after.enqueue()
    drain(jobs)
    assert (first.get(0), second.get(0)) == (1, 2)
    found = {item["transaction"]: item for item in sent.of("transaction")}
    assert found["after"]["tags"] == {
        "pgjobs.job_id": str(second.id), "pgjobs.task": "after", "pgjobs.queue": "mail", "pgjobs.attempt": "1",
    }  # fmt: skip
    assert found["before"]["contexts"]["trace"]["op"] == "queue.process"
    assert sent.of("error") == []


@pytest.mark.parametrize("is_async", [False, True])
def test_failure_is_sent_when_it_is_final_and_once(is_async: bool, jobs: PgJobs, sent: Kept) -> None:
    instrument(jobs)

    def fails(text: str) -> None:
        raise ValueError("no")

    async def afails(text: str) -> None:
        raise ValueError("no")

    task = jobs.task(name="fails", retry=Retry(3, [0]))(afails if is_async else fails)
    job = task.enqueue(SECRET)
    with jobs.worker():
        eventually(lambda: job.refresh().status.ended)
    assert errors_of(sent) == [("fails", "ValueError")]
    (event,) = sent.of("error")
    assert event["tags"]["pgjobs.attempt"] == "3"
    assert SECRET not in json.dumps(sent.items)


def test_retries_and_arguments_are_sent_where_they_are_asked_for(jobs: PgJobs, sent: Kept) -> None:
    instrument(jobs, retries=True, args=True)

    @jobs.task(name="fails", retry=Retry(2, [0]), private=["password"])
    def fails(text: str, password: str) -> None:
        raise ValueError("no")

    job = fails.enqueue(SECRET, password="hidden")
    with jobs.worker():
        eventually(lambda: job.refresh().status.ended)
    assert errors_of(sent) == [("fails", "ValueError")] * 2
    assert [event["contexts"]["pgjobs"]["args"] for event in sent.of("error")] == [
        {"text": SECRET, "password": "[private]"}
    ] * 2


def test_what_is_expected_or_no_failure_is_not_sent(jobs: PgJobs, sent: Kept) -> None:
    instrument(jobs)

    @jobs.task(name="t", retry=1, throws=(KeyError,))
    def work(how: str) -> None:
        raise {"throws": KeyError("as ever"), "snoozes": Snooze("1h")}[how]

    work.enqueue_many([("throws",), ("snoozes",)])
    drain(jobs)
    assert sent.of("error") == []


def unstorable() -> object:
    return object()


def test_failure_that_no_code_has_raised_is_sent_too(jobs: PgJobs, sent: Kept) -> None:
    instrument(jobs)
    expires = jobs.task(name="expires", ttl="1ms", on_expiry="fail")(lambda: 1).enqueue()
    jobs.task(name="unstorable", queue="run")(unstorable).enqueue()
    with jobs.worker(queues="run"):
        eventually(lambda: expires.refresh().status.ended)
        eventually(lambda: len(sent.of("error")) == 2)
    assert sorted(errors_of(sent)) == [
        ("expires", "expires failed: ttl passed"), ("unstorable", "unstorable failed: unstorable result"),
    ]  # fmt: skip


def test_call_outside_of_a_job_is_a_plain_call(jobs: PgJobs, sent: Kept) -> None:
    instrument(jobs)
    task = jobs.task(name="t")(lambda x: x + 1)
    assert task(1) == 2
    assert sent.items == []


# -- in processes of their own


class Receiver(ThreadingHTTPServer):
    """Takes what Sentry's own transport sends."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Endpoint)
        self.items: list[dict[str, Any]] = []

    def of(self, kind: str, task: str) -> list[dict[str, Any]]:
        """Transactions or events of a task."""
        return [
            item
            for item in list(self.items)
            if (item.get("type") == "transaction") == (kind == "transaction")
            and item.get("tags", {}).get("pgjobs.task") == f"tests.apps.reporting_to_sentry.{task}"
        ]


class Endpoint(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        data = gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body
        found = [item.payload.json for item in Envelope.deserialize(data).items]
        assert isinstance(self.server, Receiver)
        self.server.items += [item for item in found if item is not None]
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None: ...


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("executor", APART)
def test_runs_in_processes_are_told_of_once(executor: str, jobs: PgJobs, database_url: str, receiver: Receiver) -> None:
    dsn = f"http://key@127.0.0.1:{receiver.server_port}/1"
    with WorkerProcess(database_url, app="tests.apps.reporting_to_sentry", SENTRY_DSN=dsn).ready() as worker:
        name = f"tests.apps.reporting_to_sentry.{{}}_{executor}".format
        work = jobs.enqueue(name("work"), SECRET)
        fail = jobs.using(retry=2).enqueue(name("fail"), SECRET)
        jobs.wait([work, fail], 60)
        die = jobs.using(retry=1).enqueue(name("die"), SECRET)
        jobs.wait([die], 60)
        worker.signal(signal.SIGTERM)
        worker.leave()
    found = {kind: len(receiver.of(kind, f"work_{executor}")) for kind in ("transaction", "error")}
    assert found == {"transaction": 1, "error": 0}
    (span,) = receiver.of("transaction", f"work_{executor}")
    assert (span["transaction"], span["contexts"]["trace"]["op"]) == (work.task, "queue.process")
    assert span["tags"] == {
        "pgjobs.job_id": str(work.id), "pgjobs.task": work.task, "pgjobs.queue": "default", "pgjobs.attempt": "1",
    }  # fmt: skip
    assert [each["tags"]["pgjobs.attempt"] for each in receiver.of("transaction", f"fail_{executor}")] == ["1", "2"]
    (error,) = receiver.of("error", f"fail_{executor}")
    assert (error["exception"]["values"][-1]["type"], error["tags"]["pgjobs.attempt"]) == ("ValueError", "2")
    (death,) = receiver.of("error", f"die_{executor}")
    assert death["message"] == f"{die.task} failed: crash"
    assert SECRET not in json.dumps(receiver.items)
