"""Tasks that Sentry watches in processes of their own; what it is told goes where SENTRY_DSN says."""

from __future__ import annotations

import os

import sentry_sdk

from pgjobs import PgJobs, Retry
from pgjobs.contrib.sentry import instrument

if "SENTRY_DSN" in os.environ:
    sentry_sdk.init(traces_sample_rate=1.0)
jobs = PgJobs()
instrument(jobs)


@jobs.task(executor="process")
def work_process(text: str) -> int:
    return len(text)


@jobs.task(executor="fork")
def work_fork(text: str) -> int:
    return len(text)


@jobs.task(executor="process", retry=Retry(2, [0]))
def fail_process(text: str) -> None:
    raise ValueError("no")


@jobs.task(executor="fork", retry=Retry(2, [0]))
def fail_fork(text: str) -> None:
    raise ValueError("no")


@jobs.task(executor="process", retry=Retry(1))
def die_process(text: str) -> None:
    os._exit(3)


@jobs.task(executor="fork", retry=Retry(1))
def die_fork(text: str) -> None:
    os._exit(3)
