"""The benchmark's tasks with a span for each run, by OpenTelemetry's SDK; what it exports goes nowhere."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from pgjobs.bench.tasks import jobs
from pgjobs.contrib.opentelemetry import instrument

__all__ = ["jobs"]


class Nowhere(SpanExporter):
    """Takes spans as an exporter does, and sends them nowhere."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(Nowhere()))
instrument(jobs, tracer_provider=provider)
