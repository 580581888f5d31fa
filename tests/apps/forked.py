"""Tasks of the fork executor, and such as write, use and give way, in both kinds of processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from pgjobs import PgJobs, Retry, current_job

jobs = PgJobs()
seen: list[int] = []


@jobs.task(executor="fork")
def whence() -> tuple[int, int, int]:
    """The process, its parent, and how many jobs this module has seen run."""
    seen.append(1)
    return os.getpid(), os.getppid(), len(seen)


@jobs.task(executor="fork")
async def anap() -> str:
    await asyncio.sleep(0.01)
    return str(current_job().id)


@jobs.task(executor="fork", retry=Retry(1))
def signalled(name: str) -> None:
    os.kill(os.getpid(), getattr(signal, name))
    time.sleep(30)


@jobs.task(executor="fork", retry=Retry(1))
def wrong() -> None:
    raise LookupError("no such thing")


@jobs.task(executor="process", retry=Retry(1))
def close_stdout() -> str:
    sys.stdout.close()
    return "closed"


@jobs.task(executor="fork", capture=True, retry=Retry(1))
def lose_stdout() -> str:
    sys.stdout.close()
    sys.stderr = None
    return "lost"


@jobs.task(executor="fork")
def hold_with_a_child(flag: str) -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        Path(f"{flag}.{current_job().id}").write_text(str(child.pid))


@jobs.task(executor="fork")
def leave_a_child(flag: str) -> None:
    child = subprocess.Popen(["sleep", "60"])
    Path(f"{flag}.{current_job().id}").write_text(str(child.pid))
    child.returncode = 0  # so that nothing warns of it


def _write(how: str) -> None:
    print("printed")
    print("to stderr", file=sys.stderr)
    subprocess.run(["echo", "by a program"], check=True)
    if how == "die":
        sys.stdout.flush()
        os.kill(os.getpid(), 9)
    if how == "hang":
        sys.stdout.flush()
        time.sleep(60)
    if how == "flood":
        print("x" * 300_000, end="last words")


@jobs.task(executor="fork", capture=True, retry=Retry(1), name="tests.apps.forked.write_fork")
def write_fork(how: str = "well") -> None:
    _write(how)


@jobs.task(executor="process", capture=True, retry=Retry(1), name="tests.apps.forked.write_process")
def write_process(how: str = "well") -> None:
    _write(how)


@jobs.task(executor="process")
def written_to() -> tuple[int, int, int, int]:
    """The process, where its stdout and stderr go, and how many files it has open."""
    return os.getpid(), os.fstat(1).st_ino, os.fstat(2).st_ino, len(os.listdir("/dev/fd"))


@jobs.task(executor="process", capture=True)
def write(digits: str) -> None:
    sys.stdout.buffer.write(bytes.fromhex(digits))


@jobs.task(executor="process")
def silent() -> None:
    print("not kept")


def _spend(seconds: float, megabytes: int) -> None:
    memory = bytearray(os.urandom(1 << 20)) * megabytes
    end = time.process_time() + seconds
    while time.process_time() < end:
        sum(range(10_000))
    assert len(memory) == megabytes << 20


@jobs.task(executor="fork", name="tests.apps.forked.spend_fork")
def spend_fork(seconds: float, megabytes: int) -> None:
    _spend(seconds, megabytes)


@jobs.task(executor="process", name="tests.apps.forked.spend_process")
def spend_process(seconds: float, megabytes: int) -> None:
    _spend(seconds, megabytes)


@jobs.task(executor="process", nice=7, name="tests.apps.forked.nice_process")
def nice_process() -> int:
    return os.nice(0)


@jobs.task(executor="fork", nice=7, name="tests.apps.forked.nice_fork")
def nice_fork() -> int:
    return os.nice(0)


@jobs.task(executor="process")
def not_nice() -> int:
    return os.nice(0)


@jobs.task
def in_a_thread() -> None: ...
