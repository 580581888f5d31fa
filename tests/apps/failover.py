"""What workers run while their database fails over: jobs that note each run in a file, and jobs with an effect."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psycopg

from pgjobs import PgJobs, Retry, current_job

jobs = PgJobs()

PATIENT = Retry(max_attempts=100, backoff="200ms", cap="1s")


@jobs.task(retry=PATIENT)
def work(n: int) -> int:
    time.sleep(0.01)
    return n


@jobs.task(retry=PATIENT)
async def quick(n: int) -> int:
    return n


@jobs.task(retry=PATIENT)
def effect(n: int) -> None:
    """Its effect and its completion are one transaction."""
    with psycopg.connect(os.environ["PGJOBS_URL"], connect_timeout=5) as conn:
        conn.execute("INSERT INTO effects (job_id) VALUES (%s)", [current_job().id])
        current_job().complete(conn)


@jobs.task(retry=PATIENT)
def hold(flag: str) -> str:
    """Says that it runs, once more each time, and waits until the flag goes."""
    with Path(f"{flag}.{current_job().id}").open("a") as runs:
        runs.write("run\n")
    while Path(flag).exists():
        time.sleep(0.01)
    return "held"
