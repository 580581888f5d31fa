"""What the workers run under fire: jobs that behave, and jobs that don't. Every run is written down as it begins."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any, Final

import psycopg

from pgjobs import PgJobs, Retry, current_job

jobs = PgJobs()

_RUNS: Final = os.environ.get("PGJOBS_CHAOS_RUNS", os.devnull)
_DIRECT: Final = os.environ.get("PGJOBS_CHAOS_URL", "")
_file: list[int] = []

PATIENT: Final = Retry(max_attempts=100, backoff="200ms", cap="1s")
ONCE: Final = Retry(max_attempts=1)


def note(begun: bool = True) -> None:
    """Appends a line, which a crash of this process cannot tear: one write to a file in memory.

    The time is the machine's monotonic one, which all its processes share, whatever their clocks say.
    """
    if not _file:
        _file.append(os.open(_RUNS, os.O_WRONLY | os.O_APPEND | os.O_CREAT))
    os.write(_file[0], f"{'+' if begun else '-'}{current_job().id.hex} {os.getpid()} {time.monotonic():.3f}\n".encode())


@jobs.task(retry=PATIENT)
async def quick(n: int) -> int:
    note()
    return n


@jobs.task(retry=PATIENT)
async def waits(n: int) -> int:
    note()
    await asyncio.sleep(0.05)
    note(begun=False)
    return n


@jobs.task(retry=PATIENT)
def works(n: int) -> int:
    note()
    time.sleep(0.02)
    note(begun=False)
    return n


@jobs.task(retry=PATIENT, executor="process")
def pooled(n: int) -> int:
    note()
    return n


@jobs.task(retry=PATIENT)
def effect(n: int) -> None:
    """Its effect and its completion are one transaction. An attempt that fails has ended."""
    note()
    try:
        with psycopg.connect(_DIRECT, connect_timeout=5) as conn:
            conn.execute("INSERT INTO chaos.effects (n) VALUES (%s)", [n])
            current_job().complete(conn)
    except psycopg.Error:
        note(begun=False)
        raise


@jobs.task(retry=PATIENT)
def flaky(n: int) -> int:
    note()
    if current_job().attempt == 1:
        note(begun=False)
        raise RuntimeError("the first attempt fails")
    return n


@jobs.task(retry=PATIENT, executor="process")
def segfaults(n: int) -> None:
    note()
    os.kill(os.getpid(), signal.SIGSEGV)


@jobs.task(retry=PATIENT)
def exits(n: int) -> None:
    note()
    os._exit(3)


@jobs.task(retry=PATIENT)
def holds_the_interpreter(n: int) -> None:
    note()
    ctypes.PyDLL(None).sleep(20)


@jobs.task(retry=PATIENT)
def never_yields(n: int) -> None:
    note()
    while True:
        pass


@jobs.task(retry=PATIENT)
async def blocks_the_loop(n: int) -> None:
    note()
    time.sleep(60)


@jobs.task(retry=PATIENT)
def forks(n: int) -> int:
    """Its child outlives it, with copies of every descriptor that it had."""
    note()
    if os.fork() == 0:
        time.sleep(1)
        os._exit(0)
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    return n


@jobs.task(retry=PATIENT)
def hungry(n: int) -> int:
    note()
    return len(bytearray(150_000_000)) and n


@dataclass(frozen=True)
class Kind:
    """A task of the load: how many in a million jobs, and how each must end."""

    name: str
    in_a_million: int
    ends: str = "succeeded"

    @property
    def options(self) -> dict[str, Any]:
        """What it is enqueued with: bad jobs have one attempt, and a second's time."""
        return {"retry": PATIENT} if self.ends == "succeeded" else {"retry": ONCE, "timeout": 1}


KINDS: Final = (
    Kind("quick", 500_000),
    Kind("waits", 370_000),
    Kind("works", 110_000),
    Kind("effect", 8_000),
    Kind("pooled", 9_000),
    Kind("flaky", 2_700),
    Kind("forks", 100),
    Kind("hungry", 50),
    Kind("segfaults", 50, "failed"),
    Kind("never_yields", 40, "failed"),
    Kind("blocks_the_loop", 40, "failed"),
    Kind("holds_the_interpreter", 10, "failed"),
    Kind("exits", 10, "failed"),
)
"""Three processes with 16 slots do some 2,000 of them a second, so that there is always work for a fault to hit."""

CALM: Final = (Kind("quick", 980_000), Kind("works", 10_000), Kind("effect", 5_000), Kind("pooled", 5_000))
"""The load without faults."""
