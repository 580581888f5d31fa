"""Tasks with a private argument: one fails, one runs in a process of its own."""

from __future__ import annotations

from typing import Annotated

from pgjobs import PgJobs, Private

jobs = PgJobs()


@jobs.task
def login(user: str, password: Annotated[str, Private], level: int = 0) -> None:
    raise RuntimeError(f"{user} cannot log in")


@jobs.task(executor="process")
def apart(password: Annotated[str, Private]) -> int:
    return len(password)


@jobs.task
def weigh(grams: dict[int, float]) -> float:
    return sum(grams.values())
