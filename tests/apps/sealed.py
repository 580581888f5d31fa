"""An encrypting task of the process executor."""

from __future__ import annotations

from typing import Any

from pgjobs import PgJobs, current_job

jobs = PgJobs()


@jobs.task(encrypt=True, executor="process")
def apart(word: str) -> dict[str, Any]:
    return {"word": word, "seen": current_job().args}


@jobs.task(encrypt=True, executor="process", capture=True)
def loud(word: str) -> None:
    print(word, flush=True)  # noqa: T201 - it is there to be captured
    current_job().log(f"from afar: {word}")
