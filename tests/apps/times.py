"""Tasks of the process executor whose times run out."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from pgjobs import PgJobs, Retry, SoftTimeoutError, current_job

jobs = PgJobs()


class ExpectedError(Exception):
    """Raised now and then."""


@jobs.task(executor="process", on_expiry="run")
def late() -> bool:
    return current_job().is_late


@jobs.task(executor="process", soft_timeout=0.2)
def works(catches: bool) -> str:
    try:
        end = time.monotonic() + 20
        while time.monotonic() < end:
            sum(range(1000))
    except SoftTimeoutError:
        if not catches:
            raise
        return "cleaned up"
    return "was not told"


@jobs.task(executor="process", soft_timeout=0.2)
async def waits(catches: bool) -> str:
    try:
        await asyncio.sleep(20)
    except SoftTimeoutError:
        if not catches:
            raise
        await asyncio.sleep(0.01)
        return "cleaned up"
    return "was not told"


@jobs.task(executor="process", deadline="1h", retry=Retry(5, 7200, jitter=False))
def fails() -> Any:
    raise ValueError("no")


@jobs.task(executor="process", throws=(ExpectedError,), retry=1)
def throws() -> Any:
    raise ExpectedError("as ever")
