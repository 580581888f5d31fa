"""What the benchmark runs: nothing, in each executor, and a function that says when it was started."""

import os
import time

from pgjobs import PgJobs

SCHEMA = "pgjobs_bench"

jobs = PgJobs(schema=SCHEMA)


@jobs.task
async def noop(i: int) -> None:
    """Does nothing, on the loop."""


@jobs.task
def noop_thread(i: int) -> None:
    """Does nothing, in a thread."""


@jobs.task(executor="process")
def noop_process(i: int) -> None:
    """Does nothing, in a process."""


@jobs.task
async def started_at() -> float:
    """Says when it started, by this machine's clock."""
    return time.time()


@jobs.task
async def lateness(due: float) -> float:
    """Says how many seconds later than due it started."""
    return time.time() - due


@jobs.task
async def pid() -> int:
    """Says which process runs it."""
    return os.getpid()
