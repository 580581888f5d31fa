"""An application whose worker is watched: jobs that log, fail, run on a pool, and have something to hide."""

from __future__ import annotations

import logging

from pgjobs import PgJobs, Retry

jobs = PgJobs()
logger = logging.getLogger("app")


@jobs.task
async def noop() -> None:
    """Nothing."""


@jobs.task(queue="mail", private=["password"])
def greet(name: str, password: str) -> None:
    logger.info("hello %s", name, extra={"customer": name})


@jobs.task(executor="process")
def far() -> None:
    logger.warning("from afar")


@jobs.task(retry=Retry(2, [0]), private=["password"])
def boom(password: str) -> None:
    raise ValueError("boom")


@jobs.task(private=["password"])
def number(password: int) -> None:
    """Its argument is a number."""
