"""A process of the pool, as its worker sees it: what it runs, says and writes, and how it ends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from typing import Any, Final

from pgjobs.arguments.codec import loads
from pgjobs.running.outcome import Account, Usage, storable
from pgjobs.running.run import Run
from pgjobs.wording import describe_exit
from pgjobs.worker import identity

START_S: Final = 60.0
"""How long a fresh process may take to import the application."""

IDLE_S: Final = 300.0
"""A process that has had no job for so long ends."""

MAX_OUTPUT: Final = 1 << 16
"""Bytes that are kept of what a job has written: the last ones."""

_USUAL: Final = 1 << 14
_LARGE: Final = 1 << 20
"""Bytes that are read at once. Memory for a large buffer is mapped anew each time, which takes longer than the rest."""


class PoolProcess:
    """A process of the pool: starting, then idle or busy with a run.

    Attributes:
        nice: how much it gives way to others; a process cannot take that back, so it serves jobs that are as nice.
        said: the outcome that the process forked for its run has told, until that one has ended.

    Raises:
        OSError: the system has no process or files for it.
    """

    def __init__(self, settings: dict[str, Any], nice: int) -> None:
        self.run: Run | None = None
        self.ready = False
        self.nice = nice
        self.jobs = 0
        self.since = time.perf_counter()
        self.said: dict[str, Any] | None = None
        self._forked: int | None = None
        self._unread = b""
        self._written = b""
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            self.pipe, pipe = socket.socketpair()
            ours.callback(self.pipe.close)
            theirs.callback(pipe.close)
            life, self._life = os.pipe()
            ours.callback(os.close, self._life)
            theirs.callback(os.close, life)
            self.output, output = os.pipe()
            ours.callback(os.close, self.output)
            theirs.callback(os.close, output)
            os.set_blocking(self.output, False)
            self.popen = _started((pipe.fileno(), life, output), {**settings, "nice": nice})
            self._ours = ours.pop_all()

    @property
    def deadline(self) -> float:
        """When somebody must look: the start or the run takes too long, or nothing has been asked of it for long."""
        if not self.ready:
            return self.since + START_S
        if self.run is None:
            return self.since + IDLE_S
        return float("inf") if self.run.timeout_s is None else self.run.begun + self.run.timeout_s

    @property
    def rss_bytes(self) -> int | None:
        """The memory that it takes now, or the one that it has forked for its run."""
        return identity.rss_bytes(self._forked or self.popen.pid)

    def begin(self, run: Run, line: bytes) -> None:
        """Hands a run to the process."""
        if run.task.capture:
            self.read_output()  # what came after the end of the last one
        self.run, self.said, self._forked, self._written = run, None, None, b""
        run.begun = self.since = time.perf_counter()
        with contextlib.suppress(OSError):  # it has died, which the next look shows
            self.pipe.sendall(line)

    def messages(self) -> list[dict[str, Any]] | None:
        """Reads what the process has said; None if it will say no more."""
        data = self._read(_USUAL)
        if len(data) == _USUAL:
            data += self._read(_LARGE)
        if not data:
            return None
        *lines, self._unread = (self._unread + data).split(b"\n")
        try:
            return [dict(loads(line)) for line in lines]
        except (ValueError, TypeError):  # a job's code has written to the socket
            return None

    def _read(self, size: int) -> bytes:
        """Some of what waits in the socket; nothing at its end, or where only what the job left behind holds it."""
        try:
            return self.pipe.recv(size, socket.MSG_DONTWAIT)
        except OSError:
            return b""

    def forked(self, pid: object) -> None:
        """Takes the id of the process that was forked for the run; only one of its own session is believed."""
        with contextlib.suppress(OSError):
            if isinstance(pid, int) and pid > 1 and os.getsid(pid) == self.popen.pid:
                self._forked = pid

    def read_output(self) -> bool:
        """Reads some of what the run has written; returns whether there may be more."""
        try:
            data = os.read(self.output, MAX_OUTPUT)
        except OSError:
            return False
        self._written = (self._written + data)[-MAX_OUTPUT:]
        return len(data) == MAX_OUTPUT

    def account(self, run: Run, usage: Usage | None) -> Account | None:
        """What is to be kept of a run beside its outcome: what it has used, and written if that is captured."""
        output = None
        if run.task.capture:
            for _ in range(64):  # a process that it has left behind may write for ever
                if not self.read_output():
                    break
            output = run.task.signature.seal(storable(self._written.decode(errors="replace")))
        return Account(usage, output) if usage or output is not None else None

    def stop(self) -> str:
        """Ends the process and all that it has started; says how it ended."""
        for group in (self._forked, self.popen.pid):
            with contextlib.suppress(OSError):
                if group is not None:
                    os.killpg(group, signal.SIGKILL)  # also where it has ended by itself, and left others behind
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.popen.wait(5.0)
        code = self.popen.returncode
        return describe_exit(-signal.SIGKILL if code is None else code)

    def close(self) -> None:
        """Gives up what connects it with us."""
        self._ours.close()

    def dismiss(self) -> None:
        """Lets an idle process end by itself."""
        self.pipe.shutdown(socket.SHUT_WR)


def _started(fds: tuple[int, int, int], settings: dict[str, Any]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "pgjobs.worker.executors.pooled", *map(str, fds), json.dumps(settings)],
        pass_fds=fds,
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # a job's own processes end with it, and a Ctrl-C is ours to pass on
    )
