"""What the benchmarks run."""

import time

from pgjobs import PgJobs

jobs = PgJobs()


@jobs.task
async def noop(i: int) -> None:
    """Does nothing, on the loop."""


@jobs.task
def noop_in_thread(i: int) -> None:
    """Does nothing, in a thread."""


@jobs.task
async def started_at() -> float:
    """Says when it started, by this machine's clock."""
    return time.time()
