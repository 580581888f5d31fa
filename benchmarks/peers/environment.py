"""What a peer needs around it: a virtual environment, an empty database or an empty Redis, and its processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import psycopg
from psycopg.conninfo import make_conninfo

from benchmarks.peers.catalogue import Peer

APPS: Final = Path(__file__).parent / "apps"
NOTE: Final = struct.Struct("<qd")


class Unavailable(Exception):
    """A peer cannot be run on this machine, and why."""


def python_of(peer: Peer, home: Path) -> Path:
    """Returns the interpreter of the peer's environment, made if absent."""
    if not peer.needs:
        return Path(sys.executable)
    python = home / peer.name / "bin" / "python"
    stamp = home / peer.name / ".ready"
    wanted = "\n".join(peer.needs)
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    creator = _interpreter(peer.python)
    subprocess.run([creator, "-m", "venv", "--clear", home / peer.name], check=True)
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *peer.needs]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"cannot be installed: {done.stderr.strip().splitlines()[-1]}")
    stamp.write_text(wanted)
    return python


def _interpreter(version: str) -> str:
    for name in (f"python{version}", *sorted(Path.home().glob(f".pyenv/versions/{version}*/bin/python"), reverse=True)):
        if (found := shutil.which(name)) and _answers(found):
            return found
    if f"{sys.version_info.major}.{sys.version_info.minor}" >= version:
        return sys.executable
    raise Unavailable(f"needs Python {version}")


def _answers(interpreter: str) -> bool:
    """Whether it is one, and no stand-in of a version manager for one that is not chosen."""
    return subprocess.run([interpreter, "-c", ""], capture_output=True, check=False).returncode == 0


@contextmanager
def redis(directory: Path) -> Generator[str]:
    """Runs a Redis with an append-only file, synced every second, as its documentation advises; yields its URL."""
    server = shutil.which("redis-server")
    if server is None:
        raise Unavailable("redis-server is not installed (apt-get install redis-server)")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ["--bind", "127.0.0.1", "--port", str(port), "--dir", directory, "--save", "", "--appendonly", "yes"]
    process = subprocess.Popen([server, *options, "--appendfsync", "everysec"], stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait(30)


class Bench:
    """One peer with empty tables, ready to be measured."""

    def __init__(self, peer: Peer, python: Path, server: str, redis_url: str, notes: Path) -> None:
        self.peer = peer
        self.python = python
        self.notes = notes
        self.database = make_conninfo(server, dbname="peers")
        self.url = _as_url(self.database)
        self._server = server
        self._redis = redis_url
        self._environment = os.environ | {
            "PEERS_POSTGRES": self.url,
            "PEERS_REDIS": redis_url,
            "PEERS_NOTES": str(notes),
            "PYTHONPATH": str(APPS),
        }

    def fresh(self) -> None:
        """Begins with nothing: no jobs, no notes, no history."""
        self.notes.write_bytes(b"")
        if self.peer.on_redis:
            port = int(self._redis.rsplit(":", 1)[1].split("/")[0])
            with socket.create_connection(("127.0.0.1", port)) as conn:
                conn.sendall(b"FLUSHALL\r\n")
                conn.recv(16)
        else:
            with psycopg.connect(self._server, autocommit=True) as conn:
                conn.execute("DROP DATABASE IF EXISTS peers WITH (FORCE)")
                conn.execute("CREATE DATABASE peers")
                conn.execute("CHECKPOINT")
        self.call("prepare")

    def call(self, *arguments: object) -> str:
        """Runs one verb of the driver, and returns what it prints."""
        done = subprocess.run(
            self._command(*arguments),
            env=self._environment,
            cwd=APPS,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        if done.returncode:
            raise Unavailable(f"{arguments[0]}: {done.stderr.strip()[-500:]}")
        return done.stdout.strip().rsplit("\n", 1)[-1]

    def clocks(self, count: int, pause_s: float) -> list[float]:
        """Enqueues one by one; returns the clock before each call and after the last one."""
        return json.loads(self.call("each", count, pause_s))

    def bulk(self, count: int) -> float:
        """Enqueues as fast as the peer can; returns the jobs a second."""
        return count / float(self.call("bulk", count))

    @contextmanager
    def workers(self, processes: int) -> Generator[None]:
        """Runs worker processes, each command in a group of its own, and ends them all."""
        environment = self._environment | self.peer.tuned.get(processes, {})
        each = processes if self.peer.starts_all else 1
        started = [
            subprocess.Popen(
                self._command("work", each),
                env=environment,
                cwd=APPS,
                start_new_session=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for _ in range(processes // each)
        ]
        try:
            yield
        finally:
            for process in started:
                process.send_signal(signal.SIGTERM)
            for process in started:
                try:
                    process.wait(5)
                except subprocess.TimeoutExpired:
                    pass
                try:
                    os.killpg(process.pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
                process.wait()

    def noted(self) -> int:
        """How many jobs have started."""
        return self.notes.stat().st_size // NOTE.size

    def starts(self) -> list[tuple[int, float]]:
        """The number and the clock of every start."""
        return list(NOTE.iter_unpack(self.notes.read_bytes()))

    def until_noted(self, count: int, timeout_s: float) -> None:
        """Waits until so many jobs have started.

        Raises:
            Unavailable: they have not in time.
        """
        until = time.monotonic() + timeout_s
        while (noted := self.noted()) < count:
            if time.monotonic() > until:
                raise Unavailable(f"{noted:,} of {count:,} jobs were run in {timeout_s:g} s")
            time.sleep(0.002)

    def until_recorded(self, timeout_s: float = 60) -> float:
        """Waits until no job is left in the tables; returns the clock."""
        until = time.monotonic() + timeout_s
        with psycopg.connect(self.database, autocommit=True) as conn:
            while conn.execute(self.peer.unfinished.encode()).fetchone() is not None:
                if time.monotonic() > until:
                    raise Unavailable(f"jobs that have run are not recorded after {timeout_s:g} s")
                time.sleep(0.005)
        return time.time()

    def _command(self, *arguments: object) -> list[str]:
        return [str(self.python), str(APPS / "driver.py"), f"{self.peer.name}_noop", *map(str, arguments)]


def _as_url(conninfo: str) -> str:
    """The URL of the same database: asyncpg and awa read nothing else."""
    parts = psycopg.conninfo.conninfo_to_dict(conninfo)
    place = urlencode({"host": parts["host"], "port": parts["port"]})
    return f"postgresql://{parts['user']}@/{parts['dbname']}?{place}"
