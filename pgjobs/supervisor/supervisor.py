"""The lean parent of the worker processes: beats for them, passes signals on, restarts them, reports their deaths.

It never imports the application. A job that holds the interpreter for minutes does so in a child; the heartbeat goes on
here.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Generator
from typing import Any, Final
from uuid import UUID

from pgjobs.connections.database import Database
from pgjobs.job import new_id
from pgjobs.supervisor.children import Children
from pgjobs.supervisor.growth import Growth
from pgjobs.supervisor.heartbeat import Heartbeat
from pgjobs.supervisor.process import KILL_S, Process, Settings
from pgjobs.supervisor.restarts import MAX_REST_S, Restarts
from pgjobs.supervisor.rolling import Roll
from pgjobs.supervisor.watchers import Watchers
from pgjobs.worker import identity

WATCH_S: Final = 0.25
"""How often the children's boards are read."""

PAUSED_S: Final = 3.0
"""A round that took so long says that this process was paused, and its children perhaps too."""

logger = logging.getLogger("pgjobs.worker")


class Supervisor:
    """Keeps ``processes`` children alive until told to stop, or until they leave by themselves.

    ``run`` must be called from the main thread: it handles SIGTERM and SIGINT, which stop it, and SIGHUP, on which
    fresh children follow the present ones.

    Args:
        found: called once with the application's URL and schema, which only a child knows.
    """

    def __init__(self, settings: Settings, found: Callable[[str, str], None] = lambda url, schema: None) -> None:
        self._settings = settings
        self._found = found
        self._id = new_id()
        self._watchers = Watchers(settings)
        self._selector = selectors.DefaultSelector()
        self._bell, self._ear = socket.socketpair()
        self._terminals = [fd for fd in (0, 1, 2) if os.isatty(fd)]
        self._children = Children(settings, self._id, self._selector)
        self._restarts = Restarts()
        self._roll: Roll | None = None
        self._growth = None
        if (most := settings.max_processes) is not None:
            self._growth = Growth(settings, most, self._spawn)
        self._heartbeat = Heartbeat(
            self._children,
            self._watchers.emit,
            is_stopping=lambda: self._stop_told > 0,
            ask=(lambda link: None) if self._growth is None else self._growth.ask,
        )
        self._done: dict[int, int] = {}
        self._reload_asked = False
        self._stop_asked = 0
        self._stop_told = 0
        self._stop_at = 0.0
        self._watched_at = time.monotonic()
        self._code = 0

    def run(self) -> int:
        """Supervises; returns the exit code."""
        identity.set_title(f"pgjobs worker: supervisor of {self._settings.app}")
        with self._hearing_signals():
            try:
                self._watchers.start()
                for number in range(self._settings.processes):
                    self._spawn(number)
                while self._children or ((self._restarts or self._settings.reload) and not self._stop_asked):
                    self._turn()
                self._heartbeat.settle()
            finally:
                self._watchers.close()
                self._heartbeat.stop()
                for child in self._children:
                    child.popen.kill()
        return self._code

    def reload(self) -> None:
        """Has fresh children follow the present ones, because the code has changed; from any thread."""
        self._reload_asked = True
        with contextlib.suppress(OSError):
            self._bell.send(b"\0")

    def _turn(self) -> None:
        """Waits for a signal, a message, a death, or the time of a restart; and sees to it."""
        for key, _ in self._selector.select(max(0.0, min(WATCH_S, self._restarts.rest_s))):
            if key.data is None:
                self._ear.recv(4096)
            else:
                self._hear(key.data)
        if self._stop_asked > self._stop_told:
            self._pass_on_stop()
        for child in self._children:
            if child.popen.poll() is not None:
                self._bury(child)
        if self._reload_asked and not self._stop_asked:
            self._begin_anew()
        if self._roll is not None:
            self._go_on(self._roll)
        self._restart_due()
        self._grow()
        self._watch()
        self._watchers.turned(self._children, is_stopping=self._stop_told > 0, reached_at=self._heartbeat.reached_at)

    # -- signals

    @contextlib.contextmanager
    def _hearing_signals(self) -> Generator[None]:
        """Has signals end the loop's wait, and noted, while the block lasts."""
        for end in (self._ear, self._bell):
            end.setblocking(False)
        self._selector.register(self._ear, selectors.EVENT_READ, None)
        wanted = {signal.SIGTERM: self._asked, signal.SIGINT: self._asked, signal.SIGCHLD: _ignore}
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
            wanted[signal.SIGHUP] = self._hung_up
        old_fd = signal.set_wakeup_fd(self._bell.fileno())
        old = {number: signal.signal(number, handler) for number, handler in wanted.items()}
        try:
            yield
        finally:
            signal.set_wakeup_fd(old_fd)
            for number, handler in old.items():
                signal.signal(number, handler)

    def _asked(self, number: int, frame: object) -> None:
        self._stop_asked += 1

    def _hung_up(self, number: int, frame: object) -> None:
        """Somebody asks for fresh processes; or the terminal is gone, and with it whoever has started us."""
        if self._terminals and not any(map(os.isatty, self._terminals)):
            self._stop_asked += 1
        else:
            self._reload_asked = True

    def _pass_on_stop(self) -> None:
        first = not self._stop_told
        self._stop_told = self._stop_asked
        if first:
            self._stop_at = time.monotonic()
            self._watchers.stopping()
            self._roll = None
            self._heartbeat.beat_soon()
        for child in self._children:
            if first:
                child.tell("stop")
            if self._stop_told > 1:
                child.tell("hurry")

    # -- while a process lives

    def _spawn(self, number: int) -> None:
        """Starts a process, where its share of the jobs is not done yet; later, where none can be started now."""
        total = self._settings.max_jobs
        share = None
        if total is not None:
            share = total // self._settings.processes + (number < total % self._settings.processes)
            share -= self._done.get(number, 0)
            if share <= 0:
                return
        try:
            self._children.start(number, share)
        except OSError as error:
            logger.error("no process can be started, trying again in %.0f s: %s", MAX_REST_S, error)
            self._restarts.plan(number)

    def _hear(self, child: Process) -> None:
        for message in self._children.listen_to(child):
            self._take(child, message)

    def _take(self, child: Process, message: dict[str, Any]) -> None:
        match message:
            case {"life": life}:
                self._children.begin_life(child, UUID(life))
                self._beat_for(message["url"], message["schema"])
            case {"error": error}:
                child.error = error
            case {"sums": sums}:
                self._watchers.hear(child.popen.pid, sums)
            case {"asked": _}:
                self._heartbeat.beat_soon()
            case {"answer": question} if child.lives:
                child.answered()
                self._heartbeat.answer(child.lives[-1], str(question), message.get("facts"))
            case {"left": _}:
                child.left = True
                self._done[child.number] = self._done.get(child.number, 0) + message["done"]
            case _:
                pass

    def _beat_for(self, url: str, schema: str) -> None:
        if self._heartbeat.has_begun:
            self._heartbeat.wake()
            return
        self._found(url, schema)
        database = Database(url, schema)
        self._heartbeat.begin(database)
        self._watchers.measure(database, self._id)

    def _watch(self) -> None:
        """Kills who cannot see to its jobs any more, or is still there long after it should have left."""
        now = time.monotonic()
        was_paused = now - self._watched_at > PAUSED_S
        if now - self._watched_at < WATCH_S:
            return
        self._watched_at = now
        late = self._stop_told and now > self._stop_at + self._settings.shutdown_timeout + KILL_S
        for child in self._children:
            if late:
                child.popen.kill()
            elif was_paused:
                child.excuse()
            else:
                child.watch()

    def _grow(self) -> None:
        """Has there be more processes or fewer, as long as nothing else changes how many there are."""
        if self._growth is None or self._stop_asked or self._roll is not None:
            return
        staying = self._children.staying
        if not any(child.quiet for child in staying):
            self._growth.turn(staying, self._restarts.numbers)

    # -- when one has exited

    def _bury(self, child: Process) -> None:
        """Takes leave of a child that has exited, and sees to what it left."""
        self._hear(child)
        self._children.take_out(child)
        self._watchers.gone(child.popen.pid)
        code = child.popen.returncode
        if self._roll is not None and self._roll.is_fresh(child):
            self._give_up_roll(self._roll, child)
            return
        if child.error is not None and not child.lives:
            self._refuse(child, code)
            return
        if not child.left:
            self._mourn(child)
        child.close()
        followed = child.is_leaving or (self._roll is not None and self._roll.is_followed(child))
        if (code or not child.left) and not self._stop_asked and not followed:
            self._restarts.follow(child)

    def _mourn(self, child: Process) -> None:
        logger.error("worker process %d died (%s)", child.popen.pid, child.how())
        self._watchers.count("process_deaths")
        if child.lives:
            self._heartbeat.report(child.death())

    def _refuse(self, child: Process, code: int) -> None:
        """A child could not start at all: nor could another one, but those that work go on."""
        if not self._code and not child.is_leaving:
            logger.error("%s", child.error)
        child.close()
        if self._settings.reload:
            logger.info("waiting for a change of the code")
            return
        if child.is_leaving:
            return
        if self._children.is_any_ready:
            self._restarts.follow(child)
            return
        self._code = self._code or code
        self._stop_asked += 1
        self._pass_on_stop()

    def _restart_due(self) -> None:
        for number in self._restarts.take_due():
            if not self._stop_asked:
                self._watchers.count("process_restarts")
                self._spawn(number)

    # -- fresh processes for the present ones

    def _begin_anew(self) -> None:
        self._reload_asked = False
        if self._settings.reload or self._settings.burst or self._settings.max_jobs is not None:
            self._replace_all()
            return
        if self._roll is not None:
            self._abandon(self._roll)
        olds = self._children.staying
        logger.info("fresh processes follow the present ones: %d", len(olds))
        self._roll = Roll(olds, self._follow)

    def _go_on(self, roll: Roll) -> None:
        try:
            if roll.step(list(self._children)):
                return
        except OSError as error:
            logger.error("no fresh process can be started, and the old ones go on; send SIGHUP again: %s", error)
            self._abandon(roll)
            return
        self._roll = None
        logger.info("every process has been followed by a fresh one")

    def _follow(self, number: int) -> Process:
        self._watchers.count("process_restarts")
        return self._children.start(number)

    def _give_up_roll(self, roll: Roll, fresh: Process) -> None:
        logger.error(
            "the fresh process %d did not start, and the old ones go on; mend that, and send SIGHUP again: %s",
            fresh.popen.pid,
            fresh.error or fresh.how(),
        )
        if fresh.lives and not fresh.left:
            self._mourn(fresh)
        fresh.close()
        self._abandon(roll)

    def _abandon(self, roll: Roll) -> None:
        self._roll = None
        number = roll.abandon()
        if number is not None and all(child.number != number for child in self._children.staying):
            self._restarts.plan(number)

    def _replace_all(self) -> None:
        """Has each leave before a fresh one follows: one code at a time, and the jobs are counted."""
        for child in self._children:
            child.popen.terminate()
        taken = {child.number for child in self._children}
        self._restarts.have_at_once(number for number in range(self._settings.processes) if number not in taken)


def _ignore(number: int, frame: object) -> None:
    """A death only ends the wait."""
