"""OpenTelemetry: spans of enqueues and runs, and what links them."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from pgjobs import Cancel, PgJobs, Retry, Snooze, current_job
from pgjobs.context import TRACEPARENT, TraceContext
from pgjobs.contrib.opentelemetry import instrument
from tests.processes import ROOT, WorkerProcess
from tests.support import eventually

SECRET = "keep-this-one"


class Spans:
    """What was exported."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("test")

    def named(self, name: str) -> list[ReadableSpan]:
        return sorted(
            (span for span in self.exporter.get_finished_spans() if span.name == name), key=lambda s: s.start_time or 0
        )

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span


@pytest.fixture
def spans() -> Spans:
    return Spans()


def drain(jobs: PgJobs) -> None:
    jobs.worker(burst=True).run()


def ids(span: ReadableSpan) -> tuple[int, int]:
    found = span.get_span_context()
    assert found is not None
    return found.trace_id, found.span_id


def links(span: ReadableSpan) -> list[tuple[int, int]]:
    return [(link.context.trace_id, link.context.span_id) for link in span.links]


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


@pytest.mark.parametrize("is_async", [False, True])
def test_run_links_to_the_span_of_its_enqueue(is_async: bool, jobs: PgJobs, spans: Spans) -> None:
    instrument(jobs, tracer_provider=spans.provider)

    def work(text: str) -> None:
        spans.tracer.start_span("within").end()

    async def awork(text: str) -> None:
        await asyncio.sleep(0)
        spans.tracer.start_span("within").end()

    task = jobs.task(name="work", queue="mail")(awork if is_async else work)
    with spans.tracer.start_as_current_span("request") as request:
        job = task.enqueue(SECRET)
    drain(jobs)
    create, process, within = spans.one("create mail"), spans.one("process mail"), spans.one("within")
    assert (create.kind, process.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    assert create.parent is not None
    assert create.parent.span_id == request.get_span_context().span_id
    assert (process.parent, links(process)) == (None, [ids(create)])
    assert ids(process)[0] != ids(create)[0], "a trace of its own"
    assert within.parent is not None
    assert within.parent.span_id == ids(process)[1]
    shared = {"messaging.system": "pgjobs", "messaging.destination.name": "mail", "pgjobs.task": "work"}
    assert attributes(create) == shared | {"messaging.operation.type": "create", "messaging.operation.name": "create"}
    assert attributes(process) == shared | {
        "messaging.operation.type": "process", "messaging.operation.name": "process",
        "messaging.message.id": str(job.id), "pgjobs.attempt": 1,
    }  # fmt: skip
    assert process.status.status_code is StatusCode.UNSET
    assert not any(SECRET in span.to_json() for span in spans.exporter.get_finished_spans())


def test_run_continues_the_trace_where_that_is_asked_for(jobs: PgJobs, spans: Spans) -> None:
    instrument(jobs, tracer_provider=spans.provider, same_trace=True)
    jobs.task(name="work")(lambda: None).enqueue()
    drain(jobs)
    create, process = spans.one("create default"), spans.one("process default")
    assert process.parent is not None
    assert (process.parent.trace_id, process.parent.span_id) == ids(create)


def test_baggage_travels_and_a_run_leaves_nothing_behind(jobs: PgJobs, spans: Spans) -> None:
    instrument(jobs, tracer_provider=spans.provider)
    task = jobs.task(name="work")(lambda: baggage.get_baggage("tenant"))
    token = context.attach(baggage.set_baggage("tenant", "blue"))
    try:
        job = task.enqueue()
    finally:
        context.detach(token)
    with jobs.worker(concurrency=1):
        assert job.get(10) == "blue"
        assert task.enqueue().get(10) is None


def test_each_attempt_is_a_span_linked_to_the_one_enqueue(jobs: PgJobs, spans: Spans) -> None:
    instrument(jobs, tracer_provider=spans.provider)

    @jobs.task(name="fails", retry=Retry(2, [0]))
    def fails() -> None:
        raise ValueError("no")

    job = fails.enqueue()
    with jobs.worker():
        eventually(lambda: job.refresh().status.ended)
    create, attempts = spans.one("create default"), spans.named("process default")
    assert [links(span) for span in attempts] == [[ids(create)]] * 2
    assert [(attributes(s)["pgjobs.attempt"], attributes(s)["pgjobs.outcome"]) for s in attempts] == [
        (1, "retried"), (2, "failed"),
    ]  # fmt: skip
    for span in attempts:
        assert (span.status.status_code, attributes(span)["error.type"]) == (StatusCode.ERROR, "ValueError")
        assert [event.name for event in span.events] == ["exception"]


@pytest.mark.parametrize(
    ("error", "outcome", "events"),
    [(Snooze("1h"), "snoozed", 0), (Cancel("enough"), "cancelled", 0), (KeyError("as ever"), "failed", 1)],
)
def test_steering_and_what_is_expected_are_no_errors(
    error: Exception, outcome: str, events: int, jobs: PgJobs, spans: Spans
) -> None:
    instrument(jobs, tracer_provider=spans.provider)

    @jobs.task(name="steers", retry=1, throws=(KeyError,))
    def steers() -> None:
        raise error

    steers.enqueue()
    drain(jobs)
    span = spans.one("process default")
    assert (span.status.status_code, len(span.events)) == (StatusCode.UNSET, events)
    assert attributes(span)["pgjobs.outcome"] == outcome


def test_jobs_that_a_job_enqueues_are_created_within_its_span(jobs: PgJobs, spans: Spans) -> None:
    instrument(jobs, tracer_provider=spans.provider)
    child = jobs.task(name="child", queue="child")(lambda: None)

    @jobs.task(name="parent")
    def parent() -> None:
        child.enqueue()
        current_job().enqueue(child)

    parent.enqueue()
    drain(jobs)
    process = spans.one("process default")
    created = spans.named("create child")
    assert [span.parent and span.parent.span_id for span in created] == [ids(process)[1]] * 2
    assert sorted(link for span in spans.named("process child") for link in links(span)) == sorted(map(ids, created))


def test_what_the_caller_has_given_is_the_parent_where_no_span_is(database_url: str, spans: Spans) -> None:
    """A producer without OpenTelemetry that has a traceparent from elsewhere."""
    with closing(PgJobs(database_url, context=[TraceContext()])) as jobs:
        instrument(jobs, tracer_provider=spans.provider)
        task = jobs.task(name="work")(lambda: None)
        token = TRACEPARENT.set("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        try:
            task.enqueue()
            with spans.tracer.start_as_current_span("request"):
                task.enqueue()
        finally:
            TRACEPARENT.reset(token)
    first, second = spans.named("create default")
    assert first.parent is not None
    assert first.parent.span_id == 0xB7AD6B7169203331
    assert second.parent is not None
    assert second.parent.span_id == ids(spans.one("request"))[1]


def test_refused_enqueue_is_an_error_of_its_span(jobs: PgJobs, spans: Spans) -> None:
    instrument(jobs, tracer_provider=spans.provider)
    task = jobs.task(name="work")(lambda: None)
    with pytest.raises(TypeError):
        task.enqueue(1)  # type: ignore[call-arg]
    assert spans.one("create default").status.status_code is StatusCode.ERROR


def test_spans_are_exported_before_a_process_is_gone(database_url: str, tmp_path: Path, jobs: PgJobs) -> None:
    """Processes leave by os._exit, which runs no atexit of the SDK."""
    path = tmp_path / "spans"
    app = "tests.apps.traced"
    for name in ("near", "far"):
        jobs.enqueue(f"{app}.{name}")
    with WorkerProcess(database_url, "--burst", app=app, SPANS=str(path)) as worker:
        assert worker.leave() == 0
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert sorted(span["attributes"]["pgjobs.task"] for span in found) == [f"{app}.far", f"{app}.near"]


COUNTING = """
import sys
from types import SimpleNamespace
from opentelemetry import context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanKind
from pgjobs.contrib.opentelemetry import _Tracing

def calls(function):
    count = 0
    def noted(frame, what, argument):
        nonlocal count
        count += what == "call"
    function()
    sys.setprofile(noted)
    function()
    sys.setprofile(None)
    return count

provider = TracerProvider()
tracing, tracer = _Tracing(provider, same_trace=False), provider.get_tracer("bare")
job = SimpleNamespace(id=1, queue="mail", task="send", attempt=1, context={})
attributes = {str(number): "x" for number in range(7)}  # a run's span has as many
bare = calls(lambda: tracer.start_span("bare", context.Context(), SpanKind.CONSUMER, attributes).end())
print(calls(lambda: tracing.run(job, int)) - bare)
"""


def test_span_of_a_run_takes_little_more_than_a_bare_one() -> None:
    """Counted in calls of Python functions, in a process without other threads."""
    done = subprocess.run([sys.executable, "-c", COUNTING], capture_output=True, text=True, check=True, cwd=ROOT)
    assert int(done.stdout) <= 30


def test_import_without_the_library_names_the_extra() -> None:
    code = "import sys; sys.modules['opentelemetry'] = None; import pgjobs.contrib.opentelemetry"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "install the extra otel: pgjobs-queue[otel]" in ended.stderr


def test_nothing_is_sent_without_a_provider(jobs: PgJobs) -> None:
    instrument(jobs)
    job = jobs.task(name="work")(lambda: trace.get_current_span().is_recording()).enqueue()
    drain(jobs)
    assert job.get(0) is False
