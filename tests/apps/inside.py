"""Tasks that say something of themselves, for each executor: ``NAME.async``, ``.thread``, ``.process``, ``.fork``."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg

from pgjobs import PgJobs, Resource, Retry, current_job

jobs = PgJobs(capture_logs="WARNING")


def variants(function: Callable[..., Any], **options: Any) -> None:
    """Registers a function for each executor."""

    @functools.wraps(function)
    async def alike(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    for executor in ("async", "thread", "process", "fork"):
        made = alike if executor == "async" else function
        jobs.task(name=f"{function.__name__}.{executor}", executor=executor, **options)(made)  # type: ignore[call-overload]


def wait_for(flag: str) -> None:
    deadline = time.monotonic() + 20
    while flag and Path(flag).exists() and time.monotonic() < deadline:
        time.sleep(0.01)


def count_to(total: int, flag: str = "") -> None:
    for done in range(total):
        current_job().progress(done, total, f"at {done}")
    wait_for(flag)
    current_job().progress(total, total)


def talk(flag: str = "") -> None:
    job = current_job()
    job.log("first")
    job.log("second\0", level="warning")
    wait_for(flag)
    job.log("last", level=logging.ERROR)


def remember(colour: str) -> Any:
    job = current_job()
    before = job.meta
    job.set_meta(colour=colour, more={"a": [1]})
    return [before, job.meta, job.tags]


def take_longer(seconds: float) -> str:
    """Needs more time than it has, and asks for it."""
    job = current_job()
    job.extend("1m")
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.01)
    assert job.remaining_s is not None
    assert job.remaining_s > 30
    return "done"


def leave_a_file(url: str, commits: bool) -> None:
    job = current_job()
    job.attach("a.txt", "first")
    job.attach("a.txt", "second")
    with psycopg.connect(url) as conn:
        job.attach("b.bin", b"\0\xff", conn=conn)
        if not commits:
            conn.rollback()


def lead(follows: int, fails: int, url: str = "") -> list[str]:
    """Has others enqueued; fails so many times."""
    job = current_job()
    children = [job.enqueue("follow.thread", i) for i in range(follows)]
    job.using(delay="1h", priority=7, meta={"of": str(job.id)}).enqueue("follow.thread", -1)
    if job.attempt <= fails:
        raise ValueError("not yet")
    ids = [str(child.id) for child in children]
    if url:
        with psycopg.connect(url) as conn:
            job.complete(conn, ids)
            row = conn.execute("SELECT count(*) FROM pgjobs.jobs WHERE task = 'follow.thread'").fetchone()
            assert row == (follows + 1,), "they are there at once"
    return ids


def follow(i: int) -> int:
    return i


def warn(words: str) -> None:
    logging.getLogger("app").warning("%s", words)
    logging.getLogger("app").info("too quiet")
    logging.getLogger("pgjobs.worker").warning("not the job's")


def die_after(done: int) -> None:
    current_job().progress(done)
    current_job().log("before the end")
    time.sleep(0.5)
    os._exit(3)


variants(count_to)
variants(talk)
variants(remember, tags=["red"])
variants(take_longer, timeout=0.4, retry=1)
variants(leave_a_file)
variants(lead, retry=Retry(3, backoff=0))
variants(follow)
variants(warn)
jobs.task(name="die_after.process", executor="process", retry=1)(die_after)


@contextlib.contextmanager
def lifespan() -> Iterator[dict[str, Any]]:
    yield {"opened_in": os.getpid(), "words": Words(["a", "b"])}


class Words(list[str]):
    """Something to be found by its type."""


def per_run(words: Words = Resource()) -> Iterator[str]:
    yield "+".join(words)


def use(i: int, opened_in: int = Resource(), theirs: Words = Resource(), joined: str = Resource(per_run)) -> list[Any]:
    return [i, opened_in == os.getpid(), theirs, joined]


jobs.lifespan = lifespan
variants(use)
