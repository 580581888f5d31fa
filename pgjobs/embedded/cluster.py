"""The files of one home, and the way to a server on them."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import quote

from pgjobs.embedded import installation, locks
from pgjobs.embedded.locks import EmbeddedServerError

_PORT: Final = 5432
_SOCKET: Final = f".s.PGSQL.{_PORT}"
_SOCKET_PATH_BYTES: Final = 103  # macOS; Linux takes four more

_START_S: Final = 60.0
_POLL_S: Final = 0.02
_LOG_BYTES: Final = 10_000_000
_STOP_S: Final = 60.0


class Cluster:
    """A home: the cluster (``data``), the ``log``, the socket and the locks.

    ``boot`` is held by whoever starts or stops the server, and taken before the others; ``users`` is shared by the
    users; ``running`` is inherited by every process of the server, so that none is left when it is free.
    """

    def __init__(self, home: Path, settings: Mapping[str, str] | None = None) -> None:
        self.home = home.resolve()
        self.data = self.home / "data"
        self.log = self.home / "log"
        self.boot = self.home / "boot.lock"
        self.users = self.home / "users.lock"
        self.running = self.home / "server.lock"
        self._settings = dict(settings or {})

    @property
    def url(self) -> str:
        """The libpq URL of the server that runs, else of the one that would be started."""
        # One that runs may have been started under another TMPDIR.
        directory = self.listening() or self._socket_directory
        return f"postgresql://postgres@/postgres?host={quote(str(directory), safe='')}&port={_PORT}"

    def listening(self) -> Path | None:
        """Returns the socket's directory if a server takes connections.

        The fifth line of ``postmaster.pid`` is the directory, the eighth the state, which pg_ctl waits for as well.
        """
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return None
        if len(lines) < 8 or lines[7].strip() != "ready":
            return None
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(Path(lines[4]) / _SOCKET))
            except OSError:
                return None
        return Path(lines[4])

    def make_home(self) -> None:
        """Makes the home if it is absent.

        Raises:
            EmbeddedServerError: the caller cannot write there, or the server's account cannot enter it.
        """
        try:
            installation.make(self.home, 0o711 if installation.account().owner else 0o700)
            writable = os.access(self.home, os.W_OK | os.X_OK)
        except OSError:
            writable = False
        if not writable:
            raise EmbeddedServerError(f"{self.home} cannot be written; set PGJOBS_EMBEDDED_HOME to a place of your own")
        if not installation.can_enter(self.home):
            raise EmbeddedServerError(
                f"PostgreSQL refuses to run as root, and others cannot enter {self.home}; set PGJOBS_EMBEDDED_HOME to "
                f"a new directory in a place that is open to them, such as {installation.SHARED}"
            )

    def prepare(self, *, bound: bool = False) -> list[str]:
        """Makes what is absent, by initdb and otherwise; returns the postmaster's command.

        Args:
            bound: the postmaster is to stop when its parent is killed, where the system can do that.

        Raises:
            EmbeddedServerError: as ``make_home`` does; or initdb fails, or another version made the cluster.
        """
        self.make_home()
        found = installation.binaries()
        bin_ = installation.readable(found)
        if not self.data.exists():
            self._initialise(bin_)
        made_by = (self.data / "PG_VERSION").read_text().strip()
        if made_by != str(installation.version(found)):
            raise EmbeddedServerError(
                f"{self.data} was made by PostgreSQL {made_by}, not by that of {found}; "
                f"set PGJOBS_PG_BIN to a PostgreSQL {made_by}, or choose another directory"
            )
        self._make_socket_directory()
        quoted = str(self._socket_directory).replace('"', '""')  # the setting is a list
        fixed = {"listen_addresses": "", "port": str(_PORT), "unix_socket_directories": f'"{quoted}"'}
        options = [f"--{name}={value}" for name, value in (self._settings | fixed).items()]
        prefix = [*installation.account().prefix, *(installation.bound_to_parent() if bound else ())]
        return [*prefix, str(bin_ / "postgres"), "-D", str(self.data), *options]

    def _initialise(self, bin_: Path) -> None:
        for remains in self.home.glob("data.*"):  # of an initdb that was killed
            shutil.rmtree(remains, ignore_errors=True)
        scratch = Path(tempfile.mkdtemp(prefix="data.", dir=self.home))
        try:
            installation.give(scratch)
            options = ("-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-instructions")
            command = [*installation.account().prefix, str(bin_ / "initdb"), "-D", str(scratch), *options]
            done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", env=environment())
            if done.returncode != 0:
                raise EmbeddedServerError(f"initdb failed in {self.home}: {done.stderr.strip()}")
            scratch.rename(self.data)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    @property
    def _socket_directory(self) -> Path:
        inside = self.home / "socket"
        # To libpq, a comma begins the next host.
        if len(os.fsencode(inside / _SOCKET)) <= _SOCKET_PATH_BYTES and "," not in str(inside):
            return inside
        return Path(tempfile.gettempdir()) / f"pgjobs-{os.geteuid()}-{installation.digest(str(self.home))}"

    def _make_socket_directory(self) -> None:
        path = self._socket_directory
        if installation.make(path, 0o700):
            installation.give(path)
        # A name in the temporary directory can be guessed: another user may have been there first.
        found = path.lstat()
        owner = installation.account().owner
        ours = found.st_uid == (owner[0] if owner else os.geteuid())
        if not ours or not stat.S_ISDIR(found.st_mode) or found.st_mode & 0o077:
            raise EmbeddedServerError(f"{path} is not a private directory of the server; remove it, or set TMPDIR")

    def claim(self) -> int:
        """Waits for the end of an earlier server's processes; returns the lock that those of the next one inherit."""
        lock = locks.take(self.running, _START_S)
        if self.listening() is not None:
            os.close(lock)
            raise EmbeddedServerError(f"a server that pgjobs did not start runs on {self.data}; stop it first")
        # After a crash, the pid in these files can be another process's, which PostgreSQL takes for its predecessor.
        # The lock says that no predecessor is left.
        for name in (self.data / "postmaster.pid", self._socket_directory / f"{_SOCKET}.lock"):
            name.unlink(missing_ok=True)
        return lock

    def spawn(self, command: list[str], lock: int) -> subprocess.Popen[bytes]:
        """Starts the postmaster in a session of its own and leaves this lock to it."""
        try:
            with self.open_log() as log:
                return subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd="/",
                    env=environment(),
                    start_new_session=True,
                    pass_fds=[lock],
                )
        finally:
            os.close(lock)

    def open_log(self) -> BinaryIO:
        """Opens the log to append to it; one that has become long begins anew."""
        long = self.log.exists() and self.log.stat().st_size > _LOG_BYTES
        return self.log.open("wb" if long else "ab")

    def await_ready(self, alive: Callable[[], bool]) -> None:
        """Waits until the server takes connections.

        Raises:
            EmbeddedServerError: it has ended, or a minute has passed.
        """
        deadline = time.monotonic() + _START_S
        while self.listening() is None:
            if not alive() or time.monotonic() > deadline:
                raise self.start_error()
            time.sleep(_POLL_S)

    def start_error(self) -> EmbeddedServerError:
        """Returns the error of a server that did not start, with the end of its log."""
        tail = self.log.read_text(errors="replace")[-1000:].strip()
        return EmbeddedServerError(f"PostgreSQL did not start; look into {self.log}:\n{tail}")


def environment() -> dict[str, str]:
    """Returns this process's environment without libpq's variables, some of which change a server's defaults."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}


def await_exit(postmaster: subprocess.Popen[bytes]) -> None:
    """Waits for a postmaster that was told to stop, and crashes it after a minute: the next start recovers."""
    try:
        postmaster.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        postmaster.kill()
        postmaster.wait()
