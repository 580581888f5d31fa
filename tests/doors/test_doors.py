"""Those who come from RQ and Celery change imports and the constructor, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import psycopg
import pytest

from pgjobs import PgJobs, Queue
from tests.doors.words import count_words_at_url
from tests.processes import ROOT, WorkerProcess, environment

pytestmark = pytest.mark.server


@pytest.fixture
def page() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"five words stand on this page"[:-5])

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/a?b=c"
        server.shutdown()
        thread.join()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "app", "task"),
    [
        ("from_rq", "tests.doors.words", "tests.doors.words:count_words_at_url"),
        ("from_rq", "tests.doors.from_rq", "tests.doors.words:count_words_at_url"),
        ("from_celery", "tests.doors.from_celery", "tests.doors.from_celery.count_words_at_url"),
    ],
)
def test_program_runs_as_it_was_written_there(
    program: str, app: str, task: str, page: str, database_url: str, conn: psycopg.Connection
) -> None:
    with WorkerProcess(database_url, app=app).ready():
        done = subprocess.run(
            [sys.executable, "-m", f"tests.doors.{program}", page],
            env=environment(database_url),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    job_id, words = done.stdout.split()
    row = conn.execute("SELECT id::text, task, args, result FROM pgjobs.jobs").fetchone()
    assert row == (job_id, task, {"url": page}, 5)
    assert int(words) == 5


def test_programs_hold_no_word_of_ours_but_in_the_constructor() -> None:
    for name, imports in (("from_rq", "PgJobs, Queue"), ("from_celery", "PgJobs")):
        lines = Path(__file__).with_name(f"{name}.py").read_text().splitlines()
        ours = [line for line in lines[1:] if "pgjobs" in line.lower()]
        assert ours[0] == f"from pgjobs import {imports}"
        assert len(ours) == 2
        assert "PgJobs()" in ours[1]


@pytest.mark.parametrize("kind", ["jobs", "url", "connection"])
def test_queue_is_a_door_to_one_queue(
    kind: str, jobs: PgJobs, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGJOBS_URL", database_url)
    with psycopg.connect(database_url) as own:
        given = {"jobs": jobs, "url": database_url, "connection": own}[kind]
        queue = Queue("low", connection=given)
        job = queue.enqueue(count_words_at_url, "http://x/")
        assert (job.queue, job.args) == ("low", {"url": "http://x/"})
        later = queue.using(delay="1h", priority=2).enqueue(count_words_at_url, "http://y/")
        assert (later.queue, later.status.value, later.row.priority) == ("low", "scheduled", 2)
        own.rollback()
    with psycopg.connect(database_url) as again:
        row = again.execute("SELECT count(*) FROM pgjobs.jobs").fetchone()
    assert row == (0 if kind == "connection" else 2,), "on a connection it belongs to its transaction"
    queue.jobs.close()


async def test_async_twin_of_the_door(jobs: PgJobs) -> None:
    job = await Queue(connection=jobs).aenqueue(count_words_at_url, "http://x/")
    assert (await job.arefresh()).queue == "default"
    await jobs.aclose()


def test_what_is_no_connection_is_refused() -> None:
    with pytest.raises(TypeError, match="not a connection"):
        Queue(connection=42)
