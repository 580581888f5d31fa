"""An application for the tests of worker processes. Its database is the one of the environment."""

from __future__ import annotations

import asyncio
import ctypes
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


@jobs.task
def echo(text: str) -> str:
    time.sleep(0.02)
    return text


@jobs.task
def clock() -> float:
    return time.time()


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
async def block_loop(seconds: float) -> None:
    """Lets no other coroutine of its process go on."""
    time.sleep(seconds)


@jobs.task
def never_gives_way(seconds: float) -> str:
    """Holds the interpreter's lock as long as it can, as a regular expression gone wild does."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        sum(range(200_000))
    return "done"


@jobs.task
def hold_interpreter(flag: str, seconds: int) -> int:
    """Sleeps inside C code that keeps the interpreter's lock: no Python code runs in this process meanwhile."""
    Path(f"{flag}.{current_job().id}").touch()
    ctypes.PyDLL(None).sleep(seconds)
    return os.getpid()


@jobs.task
def sleep_deaf(flag: str, seconds: float) -> int:
    """Sleeps in one call, in which the thread does not see an exception that is raised for it."""
    Path(f"{flag}.{current_job().id}").touch()
    time.sleep(seconds)
    return os.getpid()


@jobs.task
def hog(flag: str, megabytes: int, seconds: float) -> int:
    """Takes memory, and holds it while the flag stands."""
    memory = bytearray(os.urandom(1 << 20)) * megabytes
    Path(f"{flag}.{current_job().id}").touch()
    deadline = time.monotonic() + seconds
    while Path(flag).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return len(memory)


@jobs.task
def leave_quietly() -> None:
    """Ends its process as if all were well."""
    os._exit(0)


def plain(text: str) -> str:
    """A function that nobody has decorated."""
    return text.upper()


def make() -> PgJobs:
    """A factory, as -A takes it."""
    return jobs
