"""The lean parent of the worker processes: beats for them, passes signals on, restarts them, reports their deaths.

It never imports the application. A job that holds the interpreter for minutes does so in a child; the heartbeat goes on
here.
"""

from __future__ import annotations

import json
import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from typing import Any, Final
from uuid import UUID

from pgjobs import statements, telemetry
from pgjobs.database import Database
from pgjobs.job import new_id
from pgjobs.link import Link
from pgjobs.worker.board import Board
from pgjobs.worker.service import Outage, Service

BEAT_S: Final = 3.0
STEADY_S: Final = 10.0
"""A child that has lived so long is restarted at once when it dies; one that dies sooner, after a growing rest."""

MAX_REST_S: Final = 10.0
KILL_S: Final = 10.0
"""How long after its shutdown timeout a child may still be there."""

MAX_CRASHES: Final = 3

logger = logging.getLogger("pgjobs.worker")


@dataclass(frozen=True, slots=True)
class Settings:
    """What ``pgjobs worker`` was told."""

    app: str
    queues: str = "*"
    concurrency: int = 16
    processes: int = 1
    burst: bool = False
    max_jobs: int | None = None
    shutdown_timeout: float = 30.0
    log_level: str = "info"
    wait_for_db: bool = False


class Process:
    """A child process, as its supervisor sees it."""

    def __init__(self, number: int, settings: Settings, supervisor_id: UUID, max_jobs: int | None) -> None:
        self.number = number
        self.board = Board(settings.concurrency)
        self.lives: list[UUID] = []
        self.error: str | None = None
        self.started_at = time.monotonic()
        self._unread = b""
        self.pipe, theirs = socket.socketpair()
        name = f"{socket.gethostname()}:{os.getpid()}.{number}"
        document = asdict(settings) | {"supervisor": str(supervisor_id), "name": name, "max_jobs": max_jobs}
        self.popen = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "pgjobs.worker.child",
                str(theirs.fileno()),
                str(self.board.fd),
                json.dumps(document),
            ],
            pass_fds=(theirs.fileno(), self.board.fd),
            stdin=subprocess.DEVNULL,
        )
        theirs.close()

    def messages(self) -> list[dict[str, Any]]:
        """Reads what the child has said."""
        try:
            data = self.pipe.recv(65536)
        except OSError:
            data = b""
        *lines, self._unread = (self._unread + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def tell(self, word: str) -> None:
        """Says a word to the child."""
        try:
            self.pipe.sendall(f"{word}\n".encode())
        except OSError:
            pass

    def close(self) -> None:
        """Gives up the pipe and the board."""
        self.pipe.close()
        self.board.close()


class Supervisor:
    """Keeps ``processes`` children alive until told to stop, or until they leave by themselves.

    ``run`` must be called from the main thread: it handles SIGTERM and SIGINT.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._id = new_id()
        self._emit = telemetry.Log()
        self._outage = Outage(self._emit)
        self._selector = selectors.DefaultSelector()
        self._bell, self._ear = socket.socketpair()
        self._children: dict[int, Process] = {}
        self._rests: dict[int, float] = {}
        self._restarts: list[tuple[float, int]] = []
        self._stop_asked = 0
        self._stop_at = 0.0
        self._code = 0
        self._database: Database | None = None
        self._link: Link | None = None
        self._beating: Service | None = None
        self._lock = threading.Lock()
        self._dead: list[tuple[list[UUID], list[UUID]]] = []

    def run(self) -> int:
        """Supervises; returns the exit code."""
        self._ear.setblocking(False)
        self._bell.setblocking(False)
        old_fd = signal.set_wakeup_fd(self._bell.fileno())
        handlers = {number: signal.signal(number, self._asked) for number in (signal.SIGTERM, signal.SIGINT)}
        handlers[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, _ignore)
        self._selector.register(self._ear, selectors.EVENT_READ, None)
        try:
            for number in range(self._settings.processes):
                self._spawn(number)
            while self._children or (self._restarts and not self._stop_asked):
                self._turn()
            self._settle_deaths()
        finally:
            if self._beating is not None:
                self._beating.stop()
                self._beating.join(3.0)
            for child in self._children.values():
                child.popen.kill()
            signal.set_wakeup_fd(old_fd)
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return self._code

    def _asked(self, number: int, frame: object) -> None:
        self._stop_asked += 1

    def _turn(self) -> None:
        """Waits for a signal, a message, a death, or the time of a restart."""
        told = self._stop_asked
        for key, _ in self._selector.select(self._rest_s()):
            if key.data is None:
                self._ear.recv(4096)
            else:
                self._hear(key.data)
        if self._stop_asked > told:
            self._pass_on_stop()
        for child in list(self._children.values()):
            if child.popen.poll() is not None:
                self._bury(child)
        self._restart_due()
        self._kill_late()

    def _rest_s(self) -> float:
        return max(0.0, min((at for at, _ in self._restarts), default=time.monotonic() + 1.0) - time.monotonic())

    def _spawn(self, number: int) -> None:
        total = self._settings.max_jobs
        share = None
        if total is not None:
            share = total // self._settings.processes + (number < total % self._settings.processes)
            if share == 0:
                return
        child = Process(number, self._settings, self._id, share)
        self._children[number] = child
        self._selector.register(child.pipe, selectors.EVENT_READ, child)

    def _hear(self, child: Process) -> None:
        messages = child.messages()
        if not messages and child.popen.poll() is None:
            self._selector.unregister(child.pipe)  # it has closed its end and is about to exit
        for message in messages:
            if "life" in message:
                with self._lock:
                    child.lives.append(UUID(message["life"]))
                self._beat_for(message["url"], message["schema"])
            elif "error" in message:
                child.error = message["error"]

    def _beat_for(self, url: str, schema: str) -> None:
        if self._beating is None:
            self._database = Database(url, schema)
            self._link = Link(self._database, "pgjobs supervisor")
            self._beating = Service("beat", self._beat, self._outage, self._emit, close=self._link.close)
            self._beating.start()
        else:
            self._beating.wake()

    def _beat(self) -> float:
        """One UPDATE for all children; then what is still to be said of dead ones."""
        assert self._link is not None  # noqa: S101 - it was made with this service
        with self._lock:
            lives = {child.lives[-1]: child for child in self._children.values() if child.lives}
        if lives:
            alive = self._link.one(statements.beat(list(lives)))
            for life, child in lives.items():
                if life not in alive and child.popen.poll() is None:
                    child.tell(f"dead {life}")
        self._report_deaths()
        return BEAT_S

    def _report_deaths(self) -> None:
        """Says at once who has died, and releases what they held: only what had begun is charged with a crash."""
        link = self._link
        while self._dead and link is not None:
            lives, begun = self._dead[0]
            link.one(statements.declare_dead(lives))
            reaped = 0
            while count := len(link.one(statements.reap(lives, begun, MAX_CRASHES))):
                reaped += count
            link.one(statements.forget_dead_claims())
            self._dead.pop(0)
            if reaped:
                had_begun = f"{len(begun)} of them had begun"
                logger.warning("%s of the dead process requeued, %s", telemetry.plural(reaped, "job"), had_begun)

    def _settle_deaths(self) -> None:
        if self._dead and self._beating is not None:
            self._beating.stop()
            self._beating.join(3.0)
            try:
                self._report_deaths()
            except Exception as error:
                logger.warning("could not report a death (%s); the reaper will find it", type(error).__name__)

    def _pass_on_stop(self) -> None:
        if self._stop_asked == 1:
            self._stop_at = time.monotonic()
        for child in self._children.values():
            child.tell("stop")

    def _kill_late(self) -> None:
        if self._stop_asked and time.monotonic() > self._stop_at + self._settings.shutdown_timeout + KILL_S:
            for child in self._children.values():
                child.popen.kill()

    def _bury(self, child: Process) -> None:
        """Takes leave of a child that has exited, and sees to what it left."""
        self._hear(child)
        code = child.popen.returncode
        if child.pipe in self._selector.get_map():
            self._selector.unregister(child.pipe)
        with self._lock:
            del self._children[child.number]
        if code == 0:
            child.close()
            return
        if child.error is not None and not child.lives:
            self._refuse(child, code)
            return
        logger.error("worker process %d died (%s)", child.popen.pid, _how(code))
        if child.lives:
            self._dead.append((list(child.lives), child.board.begun()))
            if self._beating is not None:
                self._beating.wake()
        child.close()
        if not self._stop_asked:
            self._plan_restart(child)

    def _refuse(self, child: Process, code: int) -> None:
        """A child could not start at all: nor could another one."""
        if not self._code:
            logger.error("%s", child.error)
        self._code = self._code or code
        child.close()
        self._stop_asked += 1
        self._pass_on_stop()

    def _plan_restart(self, child: Process) -> None:
        lived_s = time.monotonic() - child.started_at
        rest = 0.0 if lived_s > STEADY_S else min(MAX_REST_S, max(0.2, 2 * self._rests.get(child.number, 0.0)))
        self._rests[child.number] = rest
        self._restarts.append((time.monotonic() + rest, child.number))

    def _restart_due(self) -> None:
        now = time.monotonic()
        due = [number for at, number in self._restarts if at <= now]
        self._restarts = [(at, number) for at, number in self._restarts if at > now]
        for number in due:
            if not self._stop_asked:
                self._spawn(number)


def _ignore(number: int, frame: object) -> None:
    """A death only ends the wait."""


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
