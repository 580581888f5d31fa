"""A worker as its operators see it: its log as JSON."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from pgjobs import PgJobs
from tests.apps import watched
from tests.processes import WorkerProcess
from tests.support import eventually

APP = "tests.apps.watched"
SECRET = "keep-this-one"


@pytest.fixture
def app(jobs: PgJobs) -> PgJobs:
    """The tasks of the application, enqueued in the test's database."""
    for task in watched.jobs.tasks.values():
        jobs.task(name=task.name, **task.options)(task.function)
    return jobs


# -- logs


def test_log_is_json_and_says_whose_each_line_is(app: PgJobs, database_url: str, conn: psycopg.Connection[Any]) -> None:
    with WorkerProcess(database_url, "--log-format", "json", app=APP) as worker:
        greeting = app.enqueue(f"{APP}.greet", "Ann", SECRET)
        far = app.enqueue(f"{APP}.far")
        failing = app.enqueue(f"{APP}.boom", SECRET)
        conn.execute(
            "INSERT INTO pgjobs.jobs (task, args) VALUES (%s, %s)", (f"{APP}.number", f'{{"password": "{SECRET}"}}')
        )
        eventually(lambda: failing.refresh().status.ended and far.refresh().status.ended, timeout_s=20)
        eventually(lambda: worker.said(f"{APP}.number"))
        worker.popen.terminate()
        worker.leave()
    lines = [json.loads(line) for line in worker.lines]
    assert {"time", "level", "logger", "message", "worker"} <= set.intersection(*(set(line) for line in lines))
    (hello,) = (line for line in lines if line["logger"] == "app" and "customer" in line)
    assert (hello["job_id"], hello["task"], hello["queue"], hello["attempt"]) == (
        str(greeting.id), f"{APP}.greet", "mail", 1,
    )  # fmt: skip
    assert (hello["message"], hello["customer"]) == ("hello Ann", "Ann")
    (afar,) = (line for line in lines if line["message"] == "from afar")
    assert (afar["job_id"], afar["worker"]) == (str(far.id), hello["worker"])
    of_failing = [(line["level"], line["attempt"]) for line in lines if line.get("job_id") == str(failing.id)]
    assert of_failing == [("warning", 1), ("error", 2)]
    assert not worker.said(SECRET)
