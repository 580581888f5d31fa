"""OpenTelemetry: a span for each enqueue and each run, linked. Needs ``pgjobs-queue[otel]``.

::

    trace.set_tracer_provider(provider)
    jobs = PgJobs()
    instrument(jobs)

The calls belong into the module that ``-A`` names, so that workers and processes of a pool make them too. Where tasks
fork (``executor="fork"``) the provider needs a SimpleSpanProcessor: that of batches starts a thread, with which nothing
can be forked.

Names follow the messaging conventions: a producer span ``create {queue}``, since the row is made in a transaction that
commits later, and a consumer span ``process {queue}`` for each attempt. The trace context travels in the job's context,
beside what ``PgJobs(context=[…])`` carries.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextvars import Token
from typing import Any, Final, TypeAlias

from pgjobs.app import PgJobs
from pgjobs.config import DEFAULT_QUEUE
from pgjobs.events import Event, WorkerStopped
from pgjobs.newjob import NewJob, Prepared
from pgjobs.running.current import CurrentJob
from pgjobs.running.middleware import Middleware
from pgjobs.running.outcome import outcome_of
from pgjobs.running.run import CURRENT
from pgjobs.worker.executors.pool import APART

try:
    from opentelemetry import context, propagate, trace
    from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, TracerProvider
except ImportError as error:
    raise ImportError(
        "pgjobs.contrib.opentelemetry needs OpenTelemetry; install the extra otel: pgjobs-queue[otel]"
    ) from error

_Token: TypeAlias = Token[context.Context]

FLUSH_MS: Final = 5_000
"""How long a process that ends waits for its last spans to be exported."""


def instrument(jobs: PgJobs, *, tracer_provider: TracerProvider | None = None, same_trace: bool = False) -> None:
    """Has spans made of enqueues and runs, with the job's id, task, queue and attempt, and no arguments.

    A run's span begins a trace of its own and links to the span of its enqueue: a job may run long after its producer's
    trace, and many times. What a job enqueues is created within its span. Exceptions that a task ``throws`` are
    recorded, and are no error.

    Args:
        tracer_provider: instead of the global one.
        same_trace: have a run's span continue the producer's trace, as its child.
    """
    tracing = _Tracing(tracer_provider or trace.get_tracer_provider(), same_trace=same_trace)
    jobs.use(tracing)
    jobs.subscribe(tracing.stopped, WorkerStopped)


class _Tracing(Middleware):
    def __init__(self, provider: TracerProvider, *, same_trace: bool) -> None:
        self._provider = provider
        self._tracer = trace.get_tracer("pgjobs", tracer_provider=provider)
        self._same_trace = same_trace

    def enqueue(self, job: NewJob, call_next: Callable[[NewJob], Prepared]) -> Prepared:
        given: Mapping[str, Any] = job.options.get("context") or {}
        with self._tracer.start_as_current_span(
            f"create {job.options.get('queue', DEFAULT_QUEUE)}",
            context=_around(given),
            kind=SpanKind.PRODUCER,
            attributes=_attributes("create", job.options.get("queue", DEFAULT_QUEUE), job.task),
        ):
            carried: dict[str, str] = {}
            propagate.inject(carried)
            if carried:
                job.options["context"] = {**given, **carried}
            return call_next(job)

    def run(self, job: CurrentJob, call_next: Callable[[], Any]) -> Any:
        span, token = self._begin(job)
        try:
            return call_next()
        except BaseException as error:
            _judge(span, error)
            raise
        finally:
            self._end(span, token)

    async def arun(self, job: CurrentJob, call_next: Callable[[], Awaitable[Any]]) -> Any:
        span, token = self._begin(job)
        try:
            return await call_next()
        except BaseException as error:
            _judge(span, error)
            raise
        finally:
            self._end(span, token)

    # Begun and ended by hand: the generators of `with` would take as long as all else that is done here.

    def _begin(self, job: CurrentJob) -> tuple[Span, _Token]:
        """Starts a run's span, with the producer's baggage; in the producer's trace only where that is asked for."""
        parent, links = context.Context(), None
        if job.context:
            producer = propagate.extract(_texts(job.context), parent)
            origin = trace.get_current_span(producer).get_span_context()
            links = [Link(origin)] if origin.is_valid else None
            parent = producer if self._same_trace else trace.set_span_in_context(trace.INVALID_SPAN, producer)
        attributes = _attributes("process", job.queue, job.task)
        attributes["messaging.message.id"] = str(job.id)
        attributes["pgjobs.attempt"] = job.attempt
        span = self._tracer.start_span(f"process {job.queue}", parent, SpanKind.CONSUMER, attributes, links)
        return span, context.attach(trace.set_span_in_context(span, parent))

    def _end(self, span: Span, token: _Token) -> None:
        context.detach(token)
        span.end()
        self._flush_apart()

    def _flush_apart(self) -> None:
        """Exports at once what a process of its own has recorded: it may be gone the next moment."""
        if (run := CURRENT.get(None)) is not None and run.task.executor in APART:
            self._flush()

    def stopped(self, event: Event) -> None:
        """Exports the last spans of a worker, whose process leaves without atexit."""
        self._flush()

    def _flush(self) -> None:
        if (flush := getattr(self._provider, "force_flush", None)) is not None:  # the SDK's; the API has none
            flush(FLUSH_MS)


def _judge(span: Span, error: BaseException) -> None:
    """Says in the span how the run ended: steering and a stop from outside are no errors."""
    outcome = outcome_of(CURRENT.get(), error)
    if outcome is None:
        return
    span.set_attribute("pgjobs.outcome", outcome.status)
    if (failure := outcome.failure) is not None:
        span.record_exception(error)
        span.set_attribute("error.type", failure.exception)
        if not failure.expected:
            span.set_status(Status(StatusCode.ERROR, failure.exception))


def _attributes(operation: str, queue: str, task: str) -> dict[str, Any]:
    return {
        "messaging.system": "pgjobs",
        "messaging.operation.type": operation,
        "messaging.operation.name": operation,
        "messaging.destination.name": queue,
        "pgjobs.task": task,
    }


def _around(given: Mapping[str, Any]) -> context.Context | None:
    """The context of an enqueue: the current one (None), or what the caller or a carrier has given where no span is."""
    in_a_span = trace.get_current_span().get_span_context().is_valid
    return None if in_a_span or not given else propagate.extract(_texts(given))


def _texts(carried: Mapping[str, Any]) -> dict[str, str]:
    return {name: value for name, value in carried.items() if isinstance(value, str)}
