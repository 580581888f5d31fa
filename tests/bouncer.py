"""PgBouncer in transaction mode before a server, for the tests."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

from pgjobs.embedded import installation
from tests.support import scratch_directory

ABSENT = "PgBouncer is not installed; `apt-get install pgbouncer` brings it"


def program() -> str | None:
    """Where PgBouncer is."""
    return shutil.which("pgbouncer", path=os.environ.get("PATH", "") + ":/usr/sbin")


@contextmanager
def bouncer(server_url: str, mode: str = "transaction") -> Generator[str]:
    """Runs PgBouncer before a server and yields the URL under which it offers the same databases."""
    path = program()
    assert path is not None, ABSENT
    server = urlsplit(server_url)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with scratch_directory() as directory:
        config = directory / "pgbouncer.ini"
        config.write_text(
            f"[databases]\n* = host={server.hostname} port={server.port} user={server.username}\n[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = {mode}\n"
            "default_pool_size = 40\nmax_client_conn = 2000\nserver_idle_timeout = 5\nserver_login_retry = 0\n"
            f"logfile = {directory}/log\n"
        )
        installation.give(directory)
        with suppress(OSError):
            installation.give(config)
        process = subprocess.Popen(
            [*installation.account().prefix, *installation.bound_to_parent(), path, str(config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            _await_port(port, process)
            yield server._replace(netloc=f"{server.username}@127.0.0.1:{port}").geturl()
        finally:
            process.terminate()
            process.wait(10)


def _await_port(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 10
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        assert process.poll() is None, f"PgBouncer ended with exit code {process.returncode}"
        assert time.monotonic() < deadline, "PgBouncer does not answer"
        time.sleep(0.05)
