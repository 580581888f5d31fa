"""A child process of the supervisor, as the supervisor sees it: what it says, whether it lives, why it must go."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any, Final
from uuid import UUID

from pgjobs.statements import Orders
from pgjobs.wording import describe_exit
from pgjobs.worker import dump, identity
from pgjobs.worker.board import Board
from pgjobs.worker.deaths import Death

UNHANDLED_S: Final = 1.0
"""A child that has not seen to an overdue job for so long cannot run: C code holds the interpreter, or it is paused."""

KILL_S: Final = 10.0
"""How long after its shutdown timeout a child may still be there."""

SILENT_S: Final = 2.0
"""A child that has not told its stacks for so long is made to write them down."""

RECYCLED: Final = 75
"""The exit code of a child that wants a fresh one to follow it (EX_TEMPFAIL)."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What ``pgjobs worker`` was told. Durations are seconds, max_rss is bytes.

    With max_processes there are between processes and so many, as the load demands.
    """

    app: str
    queues: str = "*"
    concurrency: int = 16
    processes: int = 1
    burst: bool = False
    max_jobs: int | None = None
    max_rss: int | None = None
    pool_max_jobs: int | None = None
    allow_shell: bool = False
    shutdown_timeout: float = 30.0
    synchronous_commit: str | None = None
    aging: str | None = None
    stall_timeout: float = 300.0
    log_level: str = "info"
    http: str | None = None
    statsd: str | None = None
    statsd_format: str = "statsd"
    wait_for_db: bool = False
    migrate: bool = False
    reload: bool = False
    max_processes: int | None = None
    scale_wait: float = 5.0
    scale_idle: float = 30.0


class Process:
    """A child process. ``lives`` are the ids under which it has worked, the current one last.

    Raises:
        OSError: none can be started now, for want of memory, processes or files.
    """

    def __init__(self, number: int, settings: Settings, supervisor_id: UUID, max_jobs: int | None) -> None:
        self.number = number
        self.board = Board(settings.concurrency)
        self.lives: list[UUID] = []
        self.error: str | None = None
        self.left = False
        self.hung_up = False
        self.quiet = False
        self.started_at = time.monotonic()
        self._settings = settings
        self._unread = b""
        self._count = 0
        self._moved_at = time.monotonic()
        self._recycling_since: float | None = None
        self._leaving_by: float | None = None
        self._asked: str | None = None
        self._awaited: str | None = None
        self._silent_since = 0.0
        self._signalled = False
        self._stacks_fd = dump.make_file()
        self._overdue: list[UUID] = []
        self._killed_for: str | None = None
        self.pipe, theirs = socket.socketpair()
        with theirs:
            self.popen = self._begin(theirs, supervisor_id, max_jobs)

    def _begin(self, theirs: socket.socket, supervisor_id: UUID, max_jobs: int | None) -> subprocess.Popen[bytes]:
        name = f"{socket.gethostname()}:{os.getpid()}.{self.number}"
        document = asdict(self._settings) | {"supervisor": str(supervisor_id), "name": name, "max_jobs": max_jobs}
        document["stacks_fd"] = self._stacks_fd
        arguments = [str(theirs.fileno()), str(self.board.fd), json.dumps(document)]
        try:
            return subprocess.Popen(
                [sys.executable, "-m", "pgjobs.supervisor.child", *arguments],
                pass_fds=[fd for fd in (theirs.fileno(), self.board.fd, self._stacks_fd) if fd is not None],
                stdin=subprocess.DEVNULL,
            )
        except OSError:
            self.close()
            raise

    def messages(self) -> list[dict[str, Any]]:
        """Reads what the child has said; notes when it will say no more."""
        data = self._unread
        for _ in range(64):  # one that never pauses must not keep us from the others
            try:
                chunk = self.pipe.recv(65536, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            except OSError:
                chunk = b""
            data += chunk
            if not chunk:
                self.hung_up = True
                break
        *lines, self._unread = data.split(b"\n")
        return [message for line in lines if (message := _message(line))]

    def tell(self, word: str) -> None:
        """Says a word to the child."""
        with contextlib.suppress(OSError):
            self.pipe.sendall(f"{word}\n".encode())

    def replace(self) -> None:
        """Has it leave when it has drained, for a fresh one to follow."""
        if self._recycling_since is None:
            self._recycling_since = time.monotonic()
            self.tell("recycle")

    # -- what it is asked to do

    def dismiss(self) -> None:
        """Has it leave within the shutdown timeout, and nobody follow."""
        if not self.is_leaving:
            self._leaving_by = time.monotonic() + self._settings.shutdown_timeout + KILL_S
            self.tell("stop")

    def drain(self) -> None:
        """Has it leave when all that it runs has ended, however long that takes, and nobody follow."""
        if not self.is_leaving:
            self._leaving_by = float("inf")
            self.tell("drain")

    @property
    def is_leaving(self) -> bool:
        """Whether it was asked to leave without anybody to follow."""
        return self._leaving_by is not None

    def obey(self, orders: Orders) -> None:
        """Passes on what somebody asks of it by ``pgjobs workers``."""
        if orders.quiet != self.quiet:
            self.quiet = orders.quiet
            self.tell("quiet" if self.quiet else "claim")
        if orders.leave:
            self.dismiss()
        if (question := orders.question) is not None and question.id != self._asked:
            self._asked = question.id
            self.tell(f"ask {question.id} {question.what} {question.seconds}")
            if question.what == "stacks":
                self._awaited, self._silent_since, self._signalled = question.id, time.monotonic(), False

    def answered(self) -> None:
        """Says that an answer has come."""
        self._awaited = None

    def forced_answer(self) -> tuple[str, dict[str, Any]] | None:
        """Question and answer of one that was asked for its stacks, and in which no Python code can tell them."""
        question, fd = self._awaited, self._stacks_fd
        if question is None or fd is None or time.monotonic() - self._silent_since < SILENT_S:
            return None
        if not self._signalled:
            self._signalled = True
            self.popen.send_signal(dump.SIGNAL or 0)
            return None
        facts = dump.take(fd, self.popen.pid)
        if not facts["threads"]:
            return None
        self._awaited = None
        return question, facts

    # -- how it stands

    @property
    def is_ready(self) -> bool:
        """Whether it has registered, and claims jobs."""
        return bool(self.lives)

    @property
    def still_s(self) -> float:
        """Seconds for which no Python code has run in it, as far as was watched."""
        return time.monotonic() - self._moved_at

    # -- why it must go

    def excuse(self) -> None:
        """Forgets how long its counter has stood: we were paused ourselves, and it perhaps with us."""
        self._moved_at = time.monotonic()

    def watch(self) -> None:
        """Kills a child that cannot see to a job over its deadline, stands still, or takes too much memory."""
        if self._killed_for is not None:
            return
        self._overdue = self.board.overdue(time.perf_counter() - UNHANDLED_S)
        if reason := self._late() or self._still() or self._fat() or self._lingers():
            self.kill(reason)

    def kill(self, why: str) -> None:
        """Ends it at once."""
        self._killed_for = why
        self.popen.kill()

    def _lingers(self) -> str | None:
        over = self._leaving_by is not None and time.monotonic() > self._leaving_by
        return "it did not leave in time" if over else None

    def _late(self) -> str | None:
        return "it could not stop a job over its timeout" if self._overdue else None

    def _still(self) -> str | None:
        now = time.monotonic()
        if not self.lives or self.board.count != self._count:
            self._count = self.board.count
            self._moved_at = now
        stands_s = now - self._moved_at
        return f"it has stood still for {stands_s:.0f} s" if stands_s > self._settings.stall_timeout else None

    def _fat(self) -> str | None:
        """One over the cap leaves when it has drained; killed is who does not in time, or takes twice as much."""
        cap = self._settings.max_rss
        if cap is None or (rss := identity.rss_bytes(self.popen.pid)) is None or rss <= cap:
            return None
        self.replace()
        since = self._recycling_since or 0.0
        if rss <= 2 * cap and time.monotonic() - since < self._settings.shutdown_timeout:
            return None
        return f"it takes {rss >> 20} MB, max_rss is {cap >> 20} MB"

    # -- its end

    @property
    def recycled(self) -> bool:
        """Whether it has left for a fresh one to follow."""
        return self.left and self.popen.returncode == RECYCLED

    def how(self) -> str:
        """How it ended."""
        code = self.popen.returncode
        if self._killed_for is not None:
            return f"killed: {self._killed_for}"
        return describe_exit(code)

    def death(self) -> Death:
        """What it left behind.

        Of a child that was killed for what is over its timeout, only that pays; else all that had begun.
        """
        late = self._overdue if self._killed_for is not None else []
        return Death(list(self.lives), [] if late else self.board.begun(), late, f"the process died ({self.how()})")

    def close(self) -> None:
        """Gives up the pipe and the board."""
        self.pipe.close()
        self.board.close()
        if self._stacks_fd is not None:
            os.close(self._stacks_fd)
            self._stacks_fd = None


def _message(line: bytes) -> dict[str, Any] | None:
    """What a child says in a line; None where it is none: the jobs' code has the pipe too, and may write to it."""
    try:
        return dict(json.loads(line))
    except (ValueError, TypeError, RecursionError):
        return None
