"""``pgjobs dev``: a database that is ready, a worker that follows the code, and a way to look at the tables."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from pgjobs import PgJobs
from pgjobs.cli import dev
from tests.processes import environment
from tests.support import eventually, with_database

pytestmark = pytest.mark.slow

CODE = """
from pgjobs import PgJobs
jobs = PgJobs()

@jobs.task
def answer() -> int:
    return {answer}
"""


@pytest.fixture
def empty_url(server_url: str) -> Iterator[str]:
    name = sql.Identifier(f"pgjobs_dev_{uuid4().hex[:12]}")
    with psycopg.connect(server_url, autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE DATABASE {}").format(name))
        yield with_database(server_url, name.as_string().strip('"'))
        conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


def test_worker_follows_the_code(empty_url: str, tmp_path: Path) -> None:
    code, log = tmp_path / "app.py", tmp_path / "log"
    code.write_text(CODE.format(answer=1))
    command = [sys.executable, "-m", "pgjobs", "dev", "-A", "app", "--url", empty_url]

    def said(words: str) -> int:
        return log.read_text().count(words)

    with log.open("w") as out:
        process = subprocess.Popen(command, cwd=tmp_path, env=environment(""), stderr=out)
    try:
        eventually(lambda: said(" ready: "), timeout_s=20)
        assert said("applied 0001"), "it has migrated"
        eventually(lambda: said("dbname=") == 1)
        jobs = PgJobs(empty_url)
        assert jobs.enqueue("app.answer").get(15) == 1
        code.write_text(CODE.format(answer=2))
        eventually(lambda: said(" ready: ") == 2)
        assert jobs.enqueue("app.answer").get(15) == 2
        code.write_text("def broken(:")
        eventually(lambda: said("SyntaxError"))
        eventually(lambda: said("waiting for a change"))
        assert process.poll() is None
        code.write_text(CODE.format(answer=3))
        eventually(lambda: said(" ready: ") == 3)
        assert jobs.enqueue("app.answer").get(15) == 3
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
        assert "Traceback" not in log.read_text().split("SyntaxError")[1]
        jobs.close()
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("environ", "url", "named"),
    [
        ({}, None, "embedded:"),
        ({}, "postgresql://given", "postgresql://given"),
        ({"DATABASE_URL": "postgresql://of-the-app"}, None, None),
        ({"PGHOST": "of-the-app"}, None, None),
    ],
)
def test_embedded_server_serves_those_who_name_no_database(
    environ: dict[str, str], url: str | None, named: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PGJOBS_URL", "DATABASE_URL", "PGHOST", "PGSERVICE", "PGDATABASE", "PGUSER"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    dev._name_database(url, None)
    import os

    assert os.environ.get("PGJOBS_URL") == named
    monkeypatch.setenv("PGJOBS_URL", "")


def test_password_is_not_shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGJOBS_URL", raising=False)
    dev._say_where("postgresql://ann:secret@host/name", "mine")
    said = capsys.readouterr().err
    assert "secret" not in said
    assert 'user=ann dbname=name host=host" -c "SELECT * FROM mine.jobs"' in said
