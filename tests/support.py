"""The suite's PostgreSQL server, and what several tests need."""

from __future__ import annotations

import shlex
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
from psycopg import sql

from pgjobs import embedded
from pgjobs.embedded import installation
from pgjobs.worker.claiming.claimer import Claimer

with warnings.catch_warnings():
    # Its requirements are old: some of their releases use what newer Pythons deprecate.
    warnings.simplefilter("ignore", DeprecationWarning)
    from testing.postgresql import Postgresql

_MEMORY: Final = Path("/dev/shm")  # where each test's database is made in 30 ms instead of 200
_ROOM: Final = 4 << 30

_SETTINGS: Final = "-c fsync=off -c synchronous_commit=off -c full_page_writes=off -c max_connections=400"


class SuiteServer(Postgresql):
    """A server for a run of the suite: fast instead of durable."""

    def __init__(self, directory: Path) -> None:
        super().__init__(
            base_dir=str(directory),
            initdb=str(_program(directory, "initdb")),
            initdb_args="-U postgres -A trust -E UTF8 --no-locale --no-sync",
            postgres=str(_program(directory, "postgres")),
            postgres_args=f"-h 127.0.0.1 {_SETTINGS}",
        )

    def initialize_database(self) -> None:
        for name in self.subdirectories:
            installation.give(Path(self.base_dir, name))
        super().initialize_database()


def _program(directory: Path, name: str) -> Path:
    """Writes a script that runs PostgreSQL's program as somebody it accepts, and stops it when pytest is killed."""
    bin_ = installation.readable(embedded.binaries())
    command = [*installation.account().prefix, *installation.bound_to_parent(), str(bin_ / name)]
    script = directory / name
    script.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
    script.chmod(0o700)
    return script


@contextmanager
def suite_server() -> Generator[str]:
    """Runs a server as long as the block and yields its URL."""
    with scratch_directory() as directory, SuiteServer(directory) as server:
        yield server.url(database="postgres")


@contextmanager
def scratch_directory() -> Generator[Path]:
    """Makes a directory that the server's account can pass through, which pytest's own tmp_path forbids."""
    in_memory = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free >= _ROOM
    directory = Path(tempfile.mkdtemp(prefix="pgjobs-test-", dir=_MEMORY if in_memory else None))
    directory.chmod(0o711)
    try:
        yield directory
    finally:
        # A postmaster that is just ending may remove a file of its own meanwhile.
        shutil.rmtree(directory, ignore_errors=True)


def execute(url: str, statement: str, *names: str) -> None:
    """Executes a statement with names in it, outside any transaction."""
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))  # type: ignore[arg-type]


@contextmanager
def copy_of(server_url: str, template: str) -> Generator[str]:
    """Makes a database like the template as long as the block, and yields its URL."""
    name = f"pgjobs_test_{uuid4().hex[:12]}"
    execute(server_url, "CREATE DATABASE {} TEMPLATE {}", name, template)
    try:
        yield with_database(server_url, name)
    finally:
        execute(server_url, "DROP DATABASE {} WITH (FORCE)", name)


def with_database(url: str, name: str) -> str:
    """Returns the URL of another database on the same server."""
    return urlsplit(url)._replace(path=f"/{name}").geturl()


def eventually(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
    """Waits until the condition holds, for what can only be asked and not be waited for."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"did not happen within {timeout_s:g} s"
        time.sleep(0.02)


def stop_sweeping(claimer: Claimer) -> None:
    """Leaves a worker with what claims see and what it is told."""
    claimer._sweep._at = claimer._sweep._hurried_at = float("inf")
