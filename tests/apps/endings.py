"""Every way a run can end, for each executor: ``NAME.async``, ``NAME.thread``, ``NAME.process``."""

from __future__ import annotations

import asyncio
import ctypes
import functools
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

from pgjobs import Cancel, PgJobs, RetryLater, Snooze, current_job

jobs = PgJobs()


class Pickleless(Exception):
    """It holds what cannot be pickled, and its constructor wants more than its text."""

    def __init__(self, first: int, second: Any) -> None:
        super().__init__(f"first is {first}")
        self.second = second


class Base(BaseException):
    """No ``except Exception`` sees it."""


def mark(flag: str) -> None:
    """Says that a run has begun: a character a run."""
    with Path(f"{flag}.{current_job().id}").open("a") as file:
        file.write("x")


def variants(name: str, body: Callable[..., Any], abody: Callable[..., Any] | None = None) -> None:
    """Registers a body for each executor; as a coroutine function it blocks the loop, unless another one is given."""
    if abody is None:

        @functools.wraps(body)
        async def awrapped(*args: Any, **kwargs: Any) -> Any:
            return body(*args, **kwargs)

        abody = awrapped
    jobs.task(name=f"{name}.async", executor="async")(abody)
    jobs.task(name=f"{name}.thread", executor="thread")(body)
    jobs.task(name=f"{name}.process", executor="process")(body)


def returns(flag: str) -> str:
    mark(flag)
    return "done"


def raises(flag: str) -> None:
    mark(flag)
    raise ValueError("no")


def raises_pickleless(flag: str) -> None:
    mark(flag)
    raise Pickleless(1, lambda: None)


def raises_base(flag: str) -> None:
    mark(flag)
    raise Base("no")


def exits(flag: str) -> None:
    mark(flag)
    raise SystemExit(3)


def unstorable(flag: str) -> object:
    mark(flag)
    return object()


def snoozes(flag: str) -> None:
    mark(flag)
    raise Snooze(3600)


def retries_later(flag: str) -> None:
    mark(flag)
    raise RetryLater(3600)


def cancels(flag: str) -> None:
    mark(flag)
    raise Cancel("as it likes")


def holds(flag: str, seconds: float = 60.0) -> str:
    """In steps that can be interrupted, until the flag goes."""
    mark(flag)
    deadline = time.monotonic() + seconds
    while Path(flag).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return "done"


async def aholds(flag: str, seconds: float = 60.0) -> str:
    mark(flag)
    deadline = time.monotonic() + seconds
    while Path(flag).exists() and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    return "done"


def neighbours(flag: str) -> str:
    """As ``holds``, but only the first time."""
    mark(flag)
    while Path(flag).exists() and len(Path(f"{flag}.{current_job().id}").read_text()) == 1:
        time.sleep(0.01)
    return "done"


async def aneighbours(flag: str) -> str:
    mark(flag)
    while Path(flag).exists() and len(Path(f"{flag}.{current_job().id}").read_text()) == 1:
        await asyncio.sleep(0.01)
    return "done"


def heeds(flag: str, seconds: float = 60.0) -> str:
    """Looks whether it is cancelled."""
    mark(flag)
    deadline = time.monotonic() + seconds
    while Path(flag).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
        if current_job().is_cancelled:
            raise Cancel
    return "done"


def swallows(flag: str) -> str:
    """Goes on whatever is raised in it."""
    mark(flag)
    deadline = time.monotonic() + 60
    while Path(flag).exists() and time.monotonic() < deadline:
        try:
            while time.monotonic() < deadline:
                time.sleep(0.01)
        except BaseException:
            continue
    return "done"


async def aswallows(flag: str) -> str:
    mark(flag)
    deadline = time.monotonic() + 60
    while Path(flag).exists() and time.monotonic() < deadline:
        try:
            while time.monotonic() < deadline:
                await asyncio.sleep(0.01)
        except BaseException:
            continue
    return "done"


def spins(flag: str, seconds: float = 60.0) -> str:
    """Runs Python code without a pause."""
    mark(flag)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        pass
    return "done"


def sleeps_deaf(flag: str, seconds: float = 60.0) -> str:
    """Waits in one call, in which nothing can be raised."""
    mark(flag)
    time.sleep(seconds)
    return "done"


def holds_the_interpreter(flag: str, seconds: int = 60) -> str:
    """C code that does not give the interpreter's lock back."""
    mark(flag)
    ctypes.PyDLL(None).sleep(seconds)
    return "done"


def leaves(flag: str) -> None:
    mark(flag)
    os._exit(3)


def breaks(flag: str) -> None:
    mark(flag)
    os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(5)


def hogs(flag: str, megabytes: int) -> str:
    memory = bytearray(os.urandom(1 << 20)) * megabytes
    mark(flag)
    time.sleep(60)
    return str(len(memory))


def completes_and_waits(flag: str) -> str:
    """Commits when the flag goes."""
    with psycopg.connect(os.environ["PGJOBS_URL"]) as conn:
        current_job().complete(conn, "by the application")
        mark(flag)
        while Path(flag).exists():
            time.sleep(0.01)
    return "done"


async def acompletes_and_waits(flag: str) -> str:
    async with await psycopg.AsyncConnection.connect(os.environ["PGJOBS_URL"]) as conn:
        await current_job().acomplete(conn, "by the application")
        mark(flag)
        while Path(flag).exists():
            await asyncio.sleep(0.01)
    return "done"


def completes_and_rolls_back(flag: str) -> str:
    mark(flag)
    with psycopg.connect(os.environ["PGJOBS_URL"]) as conn:
        current_job().complete(conn, "by the application")
        conn.rollback()
    return "done"


variants("returns", returns)
variants("raises", raises)
variants("raises_pickleless", raises_pickleless)
variants("raises_base", raises_base)
variants("exits", exits)
variants("unstorable", unstorable)
variants("snoozes", snoozes)
variants("retries_later", retries_later)
variants("cancels", cancels)
variants("holds", holds, aholds)
variants("neighbours", neighbours, aneighbours)
variants("heeds", heeds, aholds)
variants("swallows", swallows, aswallows)
variants("spins", spins)
variants("sleeps_deaf", sleeps_deaf)
variants("holds_the_interpreter", holds_the_interpreter)
variants("leaves", leaves)
variants("breaks", breaks)
variants("hogs", hogs)
variants("completes_and_waits", completes_and_waits, acompletes_and_waits)
variants("completes_and_rolls_back", completes_and_rolls_back)
