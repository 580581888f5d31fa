"""Tasks of the process executor, for a worker in the test's own process and for ``pgjobs worker``."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import threading
import time
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import psycopg

from pgjobs import Cancel, PgJobs, Retry, RetryLater, Snooze, current_job

jobs = PgJobs()
seen: list[int] = []


class OddError(Exception):
    """It cannot be pickled, which must not matter."""

    def __init__(self, first: int, second: Any) -> None:
        super().__init__(f"odd {first}")
        self.second = second


@jobs.task(executor="process")
def pid() -> int:
    return os.getpid()


@jobs.task(executor="process")
def count() -> int:
    """How many jobs this process has run, by a global of the module."""
    seen.append(1)
    return len(seen)


@jobs.task(executor="process")
def echo(*values: Any, **named: Any) -> list[Any]:
    return [*values, named]


@jobs.task(executor="process")
def told(value: Any) -> str:
    return repr(value)


@jobs.task(executor="process")
async def anap(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return str(current_job().id)


@jobs.task(executor="process", retry=Retry(2, backoff=0))
def odd() -> None:
    raise OddError(7, lambda: None)


@jobs.task(executor="process", retry=Retry(2, backoff=0))
def exit_with(code: int) -> None:
    os._exit(code)


@jobs.task(executor="process", retry=Retry(1))
def signalled(name: str) -> None:
    os.kill(os.getpid(), getattr(signal, name))
    time.sleep(30)


@jobs.task(executor="process", retry=Retry(1))
def system_exit() -> None:
    raise SystemExit(3)


@jobs.task(executor="process")
def hold(flag: str, seconds: float = 30.0) -> int:
    Path(f"{flag}.{current_job().id}").write_text(str(os.getpid()))
    deadline = time.monotonic() + seconds
    while Path(flag).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return os.getpid()


@jobs.task(executor="process")
def hold_with_a_child(flag: str) -> None:
    """Starts a program of its own and waits for it."""
    with subprocess.Popen(["sleep", "60"]) as child:
        Path(f"{flag}.{current_job().id}").write_text(str(child.pid))


@jobs.task(executor="process")
def die_leaving_a_child(flag: str) -> None:
    child = subprocess.Popen(["sleep", "60"])
    Path(f"{flag}.{current_job().id}").write_text(str(child.pid))
    time.sleep(0.2)
    os._exit(3)


@jobs.task(executor="process")
def hog(megabytes: int, seconds: float) -> int:
    memory = bytearray(os.urandom(1 << 20)) * megabytes
    time.sleep(seconds)
    return len(memory)


@jobs.task(executor="process")
def steer(how: str) -> None:
    raise {"snooze": Snooze(3600), "later": RetryLater(3600), "cancel": Cancel("as it likes")}[how]


@jobs.task(executor="process")
def unstorable() -> object:
    return object()


@jobs.task(executor="process", retry=Retry(1))
def complete_within(url: str, commit: bool) -> str:
    with psycopg.connect(url) as conn:
        current_job().complete(conn, "by the application")
        if not commit:
            conn.rollback()
    return "by the return"


@jobs.task(executor="process")
def say(words: str) -> None:
    logging.getLogger("app").warning("%s", words)


@jobs.task
def in_a_thread() -> int:
    return os.getpid()


tenant: ContextVar[str] = ContextVar("tenant", default="nobody")


@jobs.task(executor="process")
def bind(name: str) -> str:
    """Binds a context variable, and returns what it was before."""
    before = tenant.get()
    tenant.set(name)
    return before


@jobs.task(executor="process")
async def abind(name: str) -> str:
    return bind.function(name)


@jobs.task(executor="process")
def leave_a_thread() -> int:
    threading.Thread(target=time.sleep, args=(60,)).start()
    return os.getpid()
