"""A task with a private argument."""

from __future__ import annotations

from typing import Annotated

from pgjobs import PgJobs, Private

jobs = PgJobs()


@jobs.task
def login(user: str, password: Annotated[str, Private]) -> None:
    raise RuntimeError(f"{user} cannot log in")
