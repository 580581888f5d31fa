"""Releases beside each other: which worker works on which schema, and what a migration costs those who are at work."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgjobs import PgJobs, SchemaError, migrations
from pgjobs.config import SCHEMA_REVISION
from pgjobs.connections.link import Link
from tests.processes import ROOT, WorkerProcess, environment, pgjobs
from tests.support import eventually

pytestmark = pytest.mark.server

OLDER = "0e4353a"
"""The commit whose workers and producers must get on with the schema of this one…"""

OLDER_REVISION = "0003"
"""…and the revision that they were made for."""

ROWS = 300_000
WAIT_S = 1.5
"""The longest that a statement may wait for a migration: its lock timeout, and what a busy machine adds."""

ALL = sorted(path.stem[:4] for path in (ROOT / "migrations" / "versions").glob("0*.py"))

HARMLESS = f"""
ALTER TABLE pgjobs.jobs ADD COLUMN note text;
CREATE TABLE pgjobs.notes (id uuid PRIMARY KEY, note text NOT NULL);
COMMENT ON TABLE pgjobs.alembic_version IS 'works with releases of revision {OLDER_REVISION} and later';
"""

APPLICATION = """
import asyncio, time
import pgjobs

jobs = pgjobs.PgJobs()

@jobs.task
def work(n: int) -> str:
    time.sleep(0.01)
    return pgjobs.__file__

@jobs.task
async def awork(n: int) -> str:
    await asyncio.sleep(0.01)
    return pgjobs.__file__

def produce(first: int) -> None:
    for n in range(first, first + 100):
        (work if n % 2 else awork).enqueue(n)
    work.enqueue_many([(n,) for n in range(first + 100, first + 150)])
"""

LATER = f"{int(SCHEMA_REVISION) + 1:04}"
EARLIER = f"{int(SCHEMA_REVISION) - 1:04}"


def check(jobs: PgJobs) -> None:
    link = Link(jobs.database, "test")
    try:
        link.check_schema()
    finally:
        link.close()


def be_at(conn: psycopg.Connection, revision: str, oldest: str | None = None) -> None:
    conn.execute("UPDATE pgjobs.alembic_version SET version_num = %s", [revision])
    said = "NULL" if oldest is None else f"'works with releases of revision {oldest} and later'"
    conn.execute(f"COMMENT ON TABLE pgjobs.alembic_version IS {said}".encode())


def test_later_schema_that_says_so_is_worked_on(jobs: PgJobs, conn: psycopg.Connection) -> None:
    be_at(conn, LATER, SCHEMA_REVISION)
    check(jobs)


@pytest.mark.parametrize("oldest", [None, LATER])
def test_later_schema_that_does_not_is_refused(jobs: PgJobs, conn: psycopg.Connection, oldest: str | None) -> None:
    be_at(conn, LATER, oldest)
    with pytest.raises(SchemaError, match=f"revision {LATER}, this release needs {SCHEMA_REVISION}; upgrade"):
        check(jobs)


def test_earlier_schema_is_refused(jobs: PgJobs, conn: psycopg.Connection) -> None:
    be_at(conn, EARLIER)
    with pytest.raises(SchemaError, match=f"revision {EARLIER}, this release needs {SCHEMA_REVISION}; run `pgjobs mi"):
        check(jobs)


# -- workers as processes


def release(directory: Path, patch: pytest.MonkeyPatch, script: str) -> None:
    """Makes this a release with one more revision, 9999, until the patch is undone."""
    shutil.copytree(ROOT / "migrations", directory)
    (directory / "versions" / "9999_later.sql").write_text(script)
    (directory / "versions" / "9999_later.py").write_text(
        f"""
from pathlib import Path
from pgjobs.migrations import execute
revision, down_revision = "9999", "{migrations.head()}"
def upgrade(op, schema):
    execute(op, Path(__file__).with_suffix(".sql"), schema)
"""
    )
    patch.setattr(migrations, "_location", lambda: directory)


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """A directory with an older release, from the history, and an application."""
    command = ["git", "-C", str(ROOT), "archive", OLDER, "pgjobs", "migrations"]
    archive = subprocess.run(command, capture_output=True, check=False) if shutil.which("git") else None
    if archive is None or archive.returncode:
        pytest.skip(f"needs git, and a history that goes back to {OLDER}")
    directory = tmp_path / "older"
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(directory, filter="data")
    (directory / "application.py").write_text(APPLICATION)
    return directory


@pytest.mark.slow
def test_worker_and_producer_of_an_older_release_work_beside_this_one_on_a_later_schema(
    older: Path, tmp_path: Path, database_url: str, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    current = tmp_path / "current"
    current.mkdir()
    shutil.copy(older / "application.py", current)
    release(tmp_path / "migrations", monkeypatch, HARMLESS)
    assert migrations.migrate(database_url) == ["9999"]
    paths = {older: str(older), current: os.pathsep.join([str(ROOT), str(current)])}
    with ExitStack() as stack:
        for cwd, path in paths.items():
            worker = WorkerProcess(database_url, "-c", "4", app="application", cwd=cwd, PYTHONPATH=path)
            stack.enter_context(worker).ready()
        producing = [
            subprocess.Popen(
                [sys.executable, "-c", f"import application; application.produce({first})"],
                env=environment(database_url, PYTHONPATH=path),
                cwd=cwd,
            )
            for first, (cwd, path) in enumerate(paths.items())
        ]
        assert [process.wait(30) for process in producing] == [0, 0]
        count = "SELECT count(*) FILTER (WHERE finished_at IS NOT NULL), count(*) FROM pgjobs.jobs"
        eventually(lambda: conn.execute(count).fetchone() == (300, 300), timeout_s=30)
    assert conn.execute("SELECT DISTINCT status FROM pgjobs.jobs").fetchall() == [("succeeded",)]
    assert conn.execute("SELECT count(*) FROM pgjobs.failures").fetchone() == (0,)
    used = {Path(row[0]).parents[1] for row in conn.execute("SELECT DISTINCT result #>> '{}' FROM pgjobs.jobs")}
    assert used == {older, ROOT}, "both have worked, each with its own code"


@pytest.mark.slow
def test_worker_on_an_earlier_schema_leaves_with_5_and_the_remedy(
    direct_url: str, database_url: str, conn: psycopg.Connection[Any]
) -> None:
    conn.execute("DROP SCHEMA pgjobs CASCADE")
    migrations.migrate(direct_url, to=EARLIER)
    with WorkerProcess(database_url) as worker:
        assert worker.leave() == 5
    assert (
        len(worker.said(f"is at revision {EARLIER}, this release needs {SCHEMA_REVISION}; run `pgjobs migrate`")) == 1
    )
    assert not worker.said("Traceback")


# -- a migration among those who are at work


class Clients:
    """Plain SQL in short transactions, without rest; remembers how long its slowest statement took."""

    def __init__(self, url: str) -> None:
        self.slowest_s = 0.0
        self.transactions = 0
        self._url = url
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._work) for _ in "abc"]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *ended: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(30)

    def _work(self) -> None:
        with psycopg.connect(self._url) as conn:
            while not self._over.is_set():
                for statement in (
                    "INSERT INTO pgjobs.jobs (task) VALUES ('t')",
                    "UPDATE pgjobs.jobs SET meta = '{}' WHERE id = (SELECT id FROM pgjobs.jobs ORDER BY id DESC LIMIT 1"
                    " FOR UPDATE SKIP LOCKED)",
                    "DELETE FROM pgjobs.claims WHERE id IS NULL",
                ):
                    began = time.monotonic()
                    conn.execute(statement)
                    self.slowest_s = max(self.slowest_s, time.monotonic() - began)
                conn.commit()
                self.transactions += 1
                self._over.wait(0.005)


def hold_tables(url: str, begun: threading.Event, until: Callable[[], object]) -> None:
    """A transaction that has read two tables, and stays open."""
    with psycopg.connect(url) as conn:
        conn.execute("SELECT FROM pgjobs.jobs LIMIT 1")
        conn.execute("SELECT FROM pgjobs.claims LIMIT 1")
        begun.set()
        until()


@pytest.fixture
def first_schema(direct_url: str, conn: psycopg.Connection[Any]) -> Iterator[str]:
    """URL of a database at the first revision."""
    conn.execute("DROP SCHEMA pgjobs CASCADE")
    migrations.migrate(direct_url, to="0001")
    return direct_url


@pytest.mark.slow
def test_migration_under_load_makes_no_statement_wait_for_long(
    first_schema: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each revision meets a transaction that is open for longer than it may wait for a lock."""
    release(tmp_path / "migrations", monkeypatch, HARMLESS)
    with Clients(first_schema) as clients, ThreadPoolExecutor(1) as pool:
        for revision in [*ALL[1:], "9999"]:
            begun = threading.Event()
            long = pool.submit(hold_tables, first_schema, begun, lambda: time.sleep(2.5))
            assert begun.wait(10)
            before = clients.transactions
            assert migrations.migrate(first_schema, to=revision) == [revision]
            long.result()
            eventually(lambda before=before: clients.transactions > before + 20)
    assert clients.slowest_s < WAIT_S
    assert "is locked by a long transaction; trying again" in caplog.text
    assert migrations.current(first_schema) == "9999"


@pytest.mark.slow
def test_migration_gives_up_when_a_transaction_never_ends(first_schema: str) -> None:
    over, begun = threading.Event(), threading.Event()
    with Clients(first_schema) as clients, ThreadPoolExecutor(1) as pool:
        pool.submit(hold_tables, first_schema, begun, lambda: over.wait(60))
        try:
            assert begun.wait(10)
            done = pgjobs(first_schema, "migrate", "--lock-wait", "4s")
        finally:
            over.set()
    assert done.returncode == 5
    *retries, last = done.stderr.splitlines()
    assert all("trying again for up to" in line for line in retries)
    assert len(retries) in (1, 2)
    assert "stayed locked for 4 s, and nothing was changed; end the oldest transactions" in last
    assert clients.slowest_s < WAIT_S
    assert migrations.current(first_schema) == "0001"


# -- what a migration costs where there are many jobs


def fill(conn: psycopg.Connection[Any], rows: int) -> None:
    """Makes jobs in every status."""
    conn.execute(
        "INSERT INTO pgjobs.jobs (id, task, status, position, due_at, finished_at)"
        " SELECT gen_random_uuid(), 't', CASE n %% 3 WHEN 0 THEN 'queued' WHEN 1 THEN 'scheduled' ELSE 'succeeded' END,"
        "        CASE n %% 3 WHEN 0 THEN n END, CASE n %% 3 WHEN 1 THEN now() + interval '1 day' END,"
        "        CASE n %% 3 WHEN 2 THEN now() END"
        "  FROM generate_series(1, %s) AS n",
        [rows],
    )
    conn.execute("ANALYZE pgjobs.jobs")


def cost(url: str, revision: str) -> tuple[bool, int]:
    """Applies a revision; returns whether it has written the jobs anew, and how many of them it has read or changed."""
    with psycopg.connect(url, autocommit=True) as conn:
        before = _counters(conn)
        assert migrations.migrate(url, to=revision) == [revision]
        eventually(lambda: not _sessions(conn))  # they report what they have done as they leave
        after = _counters(conn)
    return after[0] != before[0], after[1] - before[1]


def _counters(conn: psycopg.Connection[Any]) -> tuple[int, int]:
    conn.execute("SELECT pg_stat_clear_snapshot()")
    row = conn.execute(
        "SELECT relfilenode::int8, seq_tup_read + coalesce(idx_tup_fetch, 0) + n_tup_ins + n_tup_upd + n_tup_del"
        "  FROM pg_class JOIN pg_stat_user_tables ON relid = pg_class.oid WHERE relid = 'pgjobs.jobs'::regclass"
    ).fetchone()
    assert row is not None
    return row[0], row[1]


def _sessions(conn: psycopg.Connection[Any]) -> int:
    row = conn.execute(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE application_name = 'pgjobs migrate' AND datname = current_database()"
    ).fetchone()
    return int(row[0]) if row else 0


COSTLY = {
    "writes the table anew": "ALTER TABLE pgjobs.jobs ADD COLUMN mark uuid DEFAULT gen_random_uuid();",
    "reads the table": "ALTER TABLE pgjobs.jobs ADD CONSTRAINT named CHECK (task <> '');",
    "builds an index": "CREATE INDEX jobs_task ON pgjobs.jobs (task);",
    "changes the rows": "UPDATE pgjobs.jobs SET meta = '{}';",
}


@pytest.mark.slow
def test_no_revision_reads_or_writes_the_jobs_that_are_there(first_schema: str, conn: psycopg.Connection[Any]) -> None:
    """So its cost, and the time for which it locks anybody out, is the same with ten million."""
    fill(conn, ROWS)
    for revision in ALL[1:]:
        assert cost(first_schema, revision) == (False, 0), revision


@pytest.mark.parametrize("what", COSTLY)
def test_revision_that_does_is_noticed(
    what: str, direct_url: str, conn: psycopg.Connection[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(conn, 1_000)
    release(tmp_path / "migrations", monkeypatch, COSTLY[what])
    rewritten, rows = cost(direct_url, "9999")
    assert rewritten or rows >= 1_000
