"""The server's disk is full: workers wait, and go on when there is room. No job is lost, run twice, or charged."""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from pgjobs import PgJobs
from pgjobs.embedded import ControlledServer, EmbeddedServerError
from pgjobs.migrations import migrate
from tests.apps import basic
from tests.processes import WorkerProcess
from tests.support import eventually, scratch_directory

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

TASKS = "tests.apps.basic"
FULL_S = 12.0
"""Longer than a silent worker is believed to live."""

BACK_S = 5.0
SETTINGS = {"max_wal_size": "64MB", "min_wal_size": "32MB", "log_min_messages": "fatal"}


class Disk:
    """A file system of our own, too small for what is written to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill(self) -> None:
        """Leaves no room."""
        with suppress(OSError), self._ballast.open("ab", buffering=0) as file:
            while True:
                file.write(bytes(65536))

    def free(self) -> None:
        """Makes room, as an operator would."""
        self._ballast.unlink(missing_ok=True)


@pytest.fixture
def disk() -> Iterator[Disk]:
    """A small file system in memory, where root may mount one."""
    path = Path(tempfile.mkdtemp(prefix="pgjobs-disk-"))
    command = ["mount", "-t", "tmpfs", "-o", "size=200m,mode=0711", "tmpfs", str(path)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        path.rmdir()
        pytest.skip("mounting a small file system needs root, and a container that lets it")
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)
        path.rmdir()


def moved(server: ControlledServer, home: Path, part: str, disk: Disk) -> None:
    """Has a stopped server keep a part of its data on the disk."""
    source, target = home / "data" / part, disk.path / part
    subprocess.run(["mv", source, target], check=True)
    source.symlink_to(target)


class Load:
    """Enqueues without rest, and knows what was acknowledged."""

    def __init__(self, jobs: PgJobs) -> None:
        self.accepted: set[UUID] = set()
        self.refused: list[psycopg.Error] = []
        self._jobs = jobs
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._produce)
        self._thread.start()

    def _produce(self) -> None:
        while not self._over.is_set():
            texts = [os.urandom(3000).hex() for _ in range(20)]  # it cannot be compressed: what stores it needs room
            try:
                self.accepted.update(self._jobs.using().enqueue_many(f"{TASKS}.echo", [(text,) for text in texts]))
            except psycopg.Error as error:
                self.refused.append(error)
                time.sleep(0.05)

    def end(self) -> None:
        self._over.set()
        self._thread.join()


@pytest.fixture(params=["base", "pg_wal"], ids=["tables", "wal"])
def part(request: pytest.FixtureRequest) -> str:
    """What of the server's data lies on the disk that becomes full."""
    return str(request.param)


@pytest.fixture
def server(part: str, disk: Disk) -> Iterator[ControlledServer]:
    with scratch_directory() as directory:
        server = ControlledServer(directory / "home", SETTINGS)
        server.start()
        server.stop("fast")
        moved(server, directory / "home", part, disk)
        server.start()
        try:
            yield server
        finally:
            disk.free()
            server.stop("immediate")


def one(url: str, query: str, *params: Any) -> Any:
    with psycopg.connect(url, autocommit=True, connect_timeout=5) as conn:
        row = conn.execute(query.encode(), params).fetchone()
        return row and row[0]


def refusals_of(load: Load) -> set[str]:
    return {type(error).__name__ for error in load.refused}


def restart(server: ControlledServer) -> None:
    """Starts a server that has ended by itself, as an operator would; one that has not stays as it is."""
    with suppress(psycopg.OperationalError):
        one(server.url, "SELECT 1")
        return
    server.stop("immediate")
    server.start()


def test_full_disk_is_waited_for_and_nothing_is_lost(server: ControlledServer, disk: Disk, part: str) -> None:
    migrate(server.url)
    jobs = PgJobs(server.url)
    for task in basic.jobs.tasks.values():
        jobs.task(name=task.name, **task.options)(task.function)
    with ExitStack() as stack:
        stack.callback(jobs.close)
        workers = [stack.enter_context(WorkerProcess(server.url, "-c", "2")).ready() for _ in "ab"]
        load = Load(jobs)
        stack.callback(load.end)
        eventually(lambda: len(load.accepted) > 500, timeout_s=30)
        disk.fill()
        eventually(lambda: load.refused, timeout_s=60)
        time.sleep(FULL_S)
        disk.free()
        with suppress(EmbeddedServerError):
            restart(server)
        freed = time.monotonic()
        before = one(server.url, "SELECT now()")
        eventually(
            lambda: one(server.url, "SELECT EXISTS (SELECT FROM pgjobs.claims WHERE claimed_at > %s)", before), 20
        )
        back_s = time.monotonic() - freed
        time.sleep(1)
        load.end()
        open_ = "SELECT count(*) FROM pgjobs.jobs WHERE finished_at IS NULL"
        eventually(lambda: one(server.url, open_) == 0, timeout_s=60)
        assert all(worker.popen.poll() is None for worker in workers)
        assert one(server.url, "SELECT count(*) FROM pgjobs.workers WHERE dead_at IS NOT NULL") == 0
    if part == "base":
        assert refusals_of(load) == {"DiskFull"}
    with psycopg.connect(server.url) as conn:
        stored = {row[0] for row in conn.execute("SELECT id FROM pgjobs.jobs")}
        assert load.accepted <= stored, "every enqueue that returned is there"
        assert conn.execute(
            "SELECT status, attempt, crashes, count(*) > 500 FROM pgjobs.jobs GROUP BY 1, 2, 3"
        ).fetchall() == [("succeeded", 1, 0, True)]
        assert conn.execute("SELECT count(*) FROM pgjobs.failures").fetchone() == (0,)
    assert back_s < BACK_S
    assert any(worker.said("database away") for worker in workers), "else none has met the full disk"
