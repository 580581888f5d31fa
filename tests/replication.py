"""Two PostgreSQL servers on loopback TCP, the second a standby of the first, for tests of failovers."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import psycopg

from pgjobs import embedded
from pgjobs.embedded import installation
from pgjobs.embedded.cluster import await_exit, environment
from tests.support import eventually, scratch_directory

_SETTINGS: Final = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",  # servers crash here, machines do not
    "max_connections": "60",
    "shared_buffers": "64MB",
    "log_min_messages": "fatal",
}


class Node:
    """A server that is this process's child; a standby where its directory says so."""

    def __init__(self, directory: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self._bin = installation.readable(embedded.binaries())
        self._data = directory
        self._postmaster: subprocess.Popen[bytes] | None = None
        installation.make(directory, 0o700)
        installation.give(directory)

    @property
    def url(self) -> str:
        """Its URL, whether it runs or not."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def initialise(self) -> None:
        """Makes an empty cluster."""
        self._run("initdb", "-D", self._data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync")

    def copy(self, primary: Node) -> None:
        """Makes a standby of another server."""
        source = f"host=127.0.0.1 port={primary.port} user=postgres application_name=standby"
        self._run("pg_basebackup", "-D", self._data, "-d", source, "-R", "-X", "stream", "-c", "fast", "--no-sync")

    def follow(self, primary: Node) -> None:
        """Has it start as a standby of another server from now on."""
        settings = self._data / "postgresql.auto.conf"
        source = f"host=127.0.0.1 port={primary.port} user=postgres application_name=standby"
        with settings.open("a") as file:
            file.write(f"primary_conninfo = '{source}'\nsynchronous_standby_names = ''\n")
        (self._data / "standby.signal").touch(mode=0o600)
        installation.give(self._data / "standby.signal")

    def _run(self, program: str, *arguments: object) -> None:
        command = [*installation.account().prefix, str(self._bin / program), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", env=environment())
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        """Starts it and waits until it takes connections."""
        prefix = [*installation.account().prefix, *installation.bound_to_parent()]
        settings = [f"--{name}={value}" for name, value in ({"port": str(self.port)} | _SETTINGS).items()]
        self._postmaster = subprocess.Popen(
            [*prefix, str(self._bin / "postgres"), "-D", str(self._data), *settings],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=environment(),
            start_new_session=True,
        )
        eventually(self._answers, timeout_s=30)

    def _answers(self) -> bool:
        assert self._postmaster is not None
        assert self._postmaster.poll() is None, "PostgreSQL did not start"
        with suppress(psycopg.OperationalError):
            return self.ask("SELECT true") is True
        return False

    def stop(self, *, crash: bool) -> None:
        """Ends it if it runs: as a crash, or in order."""
        postmaster, self._postmaster = self._postmaster, None
        if postmaster is not None:
            postmaster.send_signal(signal.SIGQUIT if crash else signal.SIGINT)
            await_exit(postmaster)

    def connect(self) -> psycopg.Connection[Any]:
        """Our own connection, in autocommit."""
        return psycopg.connect(self.url, autocommit=True, connect_timeout=5)

    def ask(self, query: str, *values: object) -> Any:
        """The first column of a query's first row; None where there is none."""
        with self.connect() as conn:
            cursor = conn.execute(query.encode(), values or None)
            row = cursor.fetchone() if cursor.description else None
        return None if row is None else row[0]

    def set(self, name: str, value: str) -> None:
        """Changes a setting, at once."""
        self.ask(f"ALTER SYSTEM SET {name} = '{value}'")
        self.ask("SELECT pg_reload_conf()")


class Pair:
    """A primary, its standby, and the URL that names both.

    Args:
        synchronous: a commit returns when the standby has it too.
    """

    def __init__(self, directory: Path, *, synchronous: bool) -> None:
        self.primary = Node(directory / "primary")
        self.standby = Node(directory / "standby")
        self._synchronous = synchronous

    @property
    def url(self) -> str:
        """The URL of both."""
        hosts = f"127.0.0.1:{self.primary.port},127.0.0.1:{self.standby.port}"
        return f"postgresql://postgres@{hosts}/postgres?target_session_attrs=read-write"

    def start(self) -> None:
        """Starts both, and waits until the standby follows."""
        self.primary.initialise()
        self.primary.start()
        self.standby.copy(self.primary)
        self.standby.start()
        if self._synchronous:  # not before: the standby's copy is not to wait for anybody when it is promoted
            self.primary.set("synchronous_standby_names", "standby")
        state = "sync" if self._synchronous else "async"
        eventually(lambda: self.primary.ask("SELECT sync_state FROM pg_stat_replication") == state)

    def await_caught_up(self) -> None:
        """Waits until the standby has replayed all that the primary has written."""
        written = self.primary.ask("SELECT pg_current_wal_lsn()")
        eventually(lambda: self.standby.ask("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", written))

    def part(self) -> None:
        """Cuts the standby off: it receives nothing any more, and the primary goes on alone."""
        self.standby.set("primary_conninfo", "")
        eventually(lambda: self.primary.ask("SELECT count(*) FROM pg_stat_replication") == 0)

    def promote(self) -> None:
        """Asks the standby to become the primary; it is one a moment later."""
        self.standby.ask("SELECT pg_promote(wait => false)")

    def stop(self) -> None:
        """Ends both."""
        self.standby.stop(crash=True)
        self.primary.stop(crash=True)


@contextmanager
def pair(*, synchronous: bool) -> Generator[Pair]:
    """Runs a pair as long as the block."""
    with scratch_directory() as directory:
        servers = Pair(directory, synchronous=synchronous)
        try:
            servers.start()
            yield servers
        finally:
            servers.stop()
