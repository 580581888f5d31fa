"""An application for the tests of worker processes. Its database is the one of the environment."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from pgjobs import PgJobs, Retry, current_job

jobs = PgJobs()
_private = PgJobs("postgresql://nobody@nowhere/none")


@jobs.task
def add(a: int, b: int) -> int:
    return a + b


@jobs.task
def pid() -> int:
    return os.getpid()


@jobs.task(retry=Retry(2, backoff=0))
def boom() -> None:
    raise ValueError("boom")


@jobs.task
def hold(flag: str, seconds: float = 30.0) -> int:
    """Says that it runs, and waits until the flag goes, in steps that can be interrupted."""
    Path(f"{flag}.{current_job().id}").touch()
    deadline = time.monotonic() + seconds
    while Path(flag).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return os.getpid()


@jobs.task
async def ahold(flag: str, seconds: float = 30.0) -> int:
    """The same on the loop."""
    Path(f"{flag}.{current_job().id}").touch()
    deadline = time.monotonic() + seconds
    while Path(flag).exists() and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    return os.getpid()


@jobs.task
def kill_me(times: int) -> str:
    """Takes its process with it, while it has crashed fewer times than that."""
    if current_job().crashes < times:
        os.kill(os.getpid(), 9)
    return "survived"


@jobs.task
def never_gives_way(seconds: float) -> str:
    """Holds the interpreter's lock as long as it can, as a regular expression gone wild does."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        sum(range(200_000))
    return "done"


def plain(text: str) -> str:
    """A function that nobody has decorated."""
    return text.upper()


def make() -> PgJobs:
    """A factory, as -A takes it."""
    return jobs
