"""An application whose spans go to a file, one JSON object a line."""

from __future__ import annotations

import os
from pathlib import Path

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

from pgjobs import PgJobs
from pgjobs.contrib.opentelemetry import instrument

provider = TracerProvider()
if "SPANS" in os.environ:
    out = Path(os.environ["SPANS"]).open("a")  # noqa: SIM115 - as long as the process
    exporter = ConsoleSpanExporter(out=out, formatter=lambda span: span.to_json(indent=None) + "\n")
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=60_000))

jobs = PgJobs()
instrument(jobs, tracer_provider=provider)


@jobs.task
def near() -> None:
    """Runs in a thread."""


@jobs.task(executor="process")
def far() -> None:
    """Runs in a process of the pool."""
