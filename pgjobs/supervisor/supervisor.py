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
import threading
import time
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Final, cast
from uuid import UUID

from pgjobs import statements, telemetry
from pgjobs.database import Database
from pgjobs.events import Event
from pgjobs.job import new_id
from pgjobs.link import Link
from pgjobs.supervisor.health import Health, Standing
from pgjobs.supervisor.notify import Notifier
from pgjobs.supervisor.process import KILL_S, Process, Settings
from pgjobs.supervisor.rolling import Roll
from pgjobs.supervisor.scale import Load, Scale
from pgjobs.worker import identity
from pgjobs.worker.answers import Answers
from pgjobs.worker.deaths import LOOK_S, Deaths
from pgjobs.worker.service import Outage, Service, rest_after
from pgjobs.worker.subscription import Subscription
from pgjobs.worker.tally import Tally

if TYPE_CHECKING:
    from pgjobs.supervisor.metrics import Metrics
    from pgjobs.supervisor.monitor import Monitor
    from pgjobs.supervisor.statsd import Format, Statsd

BEAT_S: Final = 3.0
STEADY_S: Final = 10.0
"""A child that has lived so long is restarted at once when it dies; one that dies sooner, after a growing rest."""

MAX_REST_S: Final = 10.0
SCALE_S: Final = 1.0
"""How often is asked whether there should be more processes, or fewer."""

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
        self._tally = Tally(telemetry.Log())
        counted = settings.http or settings.statsd
        self._emit: Callable[[Event], None] = self._tally if counted else telemetry.Log()
        self._monitor = _monitor(settings, self._emit)
        self._statsd = _statsd(settings)
        self._reached_at = float("-inf")
        self._notifier = Notifier()
        self._outage = Outage(self._emit)
        self._selector = selectors.DefaultSelector()
        self._bell, self._ear = socket.socketpair()
        self._children: dict[int, Process] = {}  # by process id: a number is in use twice while one follows another
        self._rests: dict[int, float] = {}
        self._done: dict[int, int] = {}
        self._restarts: list[tuple[float, int]] = []
        self._stop_asked = 0
        self._stop_told = 0
        self._stop_at = 0.0
        self._code = 0
        self._database: Database | None = None
        self._link: Link | None = None
        self._beating: Service | None = None
        self._lock = threading.Lock()
        self._deaths = Deaths(self._emit)
        self._watched_at = time.monotonic()
        self._reload_asked = False
        self._roll: Roll | None = None
        self._terminals = [fd for fd in (0, 1, 2) if os.isatty(fd)]
        self._answers = Answers()
        self._scale: Scale | None = None
        if (most := settings.max_processes) is not None:
            self._scale = Scale(settings.processes, most, settings.scale_wait, settings.scale_idle)
        self._scale_at = 0.0
        self._ask_at = 0.0
        self._must_ask = False
        self._waited_s = 0.0
        self._beat_at = 0.0
        self._beaten: set[UUID] = set()

    def run(self) -> int:
        """Supervises; returns the exit code."""
        identity.set_title(f"pgjobs worker: supervisor of {self._settings.app}")
        self._ear.setblocking(False)
        self._bell.setblocking(False)
        old_fd = signal.set_wakeup_fd(self._bell.fileno())
        handlers = {number: signal.signal(number, self._asked) for number in (signal.SIGTERM, signal.SIGINT)}
        handlers[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, _ignore)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
            handlers[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._hung_up)
        self._selector.register(self._ear, selectors.EVENT_READ, None)
        try:
            if self._monitor is not None:
                self._monitor.start()
                logger.info("watch me at %s/live, /ready and /metrics", self._monitor.url)
            for number in range(self._settings.processes):
                self._spawn(number)
            while self._children or ((self._restarts or self._settings.reload) and not self._stop_asked):
                self._turn()
            self._settle_deaths()
        finally:
            if self._monitor is not None:
                self._monitor.close()
            if self._statsd is not None:
                self._statsd.close()
            if self._beating is not None:
                self._beating.stop()
                self._beating.join(3.0)
            for child in self._children.values():
                child.popen.kill()
            signal.set_wakeup_fd(old_fd)
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return self._code

    def reload(self) -> None:
        """Has fresh children follow the present ones, because the code has changed; from any thread."""
        self._reload_asked = True
        with contextlib.suppress(OSError):
            self._bell.send(b"\0")

    def _asked(self, number: int, frame: object) -> None:
        self._stop_asked += 1

    def _hung_up(self, number: int, frame: object) -> None:
        """Somebody asks for fresh processes; or the terminal is gone, and with it whoever has started us."""
        if self._terminals and not any(map(os.isatty, self._terminals)):
            self._stop_asked += 1
        else:
            self._reload_asked = True

    def _turn(self) -> None:
        """Waits for a signal, a message, a death, or the time of a restart."""
        for key, _ in self._selector.select(self._rest_s()):
            if key.data is None:
                self._ear.recv(4096)
            else:
                self._hear(key.data)
        if self._stop_asked > self._stop_told:
            self._pass_on_stop()
        for child in list(self._children.values()):
            if child.popen.poll() is not None:
                self._bury(child)
        if self._reload_asked and not self._stop_asked:
            self._begin_anew()
        if self._roll is not None and not self._roll.step(list(self._children.values())):
            self._roll = None
            logger.info("every process has been followed by a fresh one")
        self._restart_due()
        if self._scale is not None:
            self._rescale(self._scale)
        self._watch()
        self._notifier.turned(ready=any(child.is_ready for child in self._children.values()))
        if self._monitor is not None or self._statsd is not None:
            self._note_health()

    def _note_health(self) -> None:
        """Leaves for whoever asks how things stand, the loop itself being never asked; and tells StatsD."""
        standings = [Standing(each.popen.pid, each.is_ready, each.still_s) for each in self._children.values()]
        health = Health(time.monotonic(), standings, self._stop_told > 0, self._reached_at)
        sums = self._tally.take()
        for counter in self._counters:
            counter.absorb(sums)
        if self._monitor is not None:
            self._monitor.health = health
        if self._statsd is not None:
            ready = sum(each.ready for each in standings)
            self._statsd.turned(processes=len(standings), ready=ready, reachable=health.reaches_database)

    @property
    def _counters(self) -> list[Metrics | Statsd]:
        """Who adds up what happens."""
        found: list[Metrics | Statsd] = [] if self._monitor is None else [self._monitor.metrics]
        return found if self._statsd is None else [*found, self._statsd]

    def _rest_s(self) -> float:
        now = time.monotonic()
        return max(0.0, min([WATCH_S, *(at - now for at, _ in self._restarts)]))

    def _watch(self) -> None:
        """Kills who cannot see to its jobs any more, or is still there long after it should have left."""
        now = time.monotonic()
        was_paused = now - self._watched_at > PAUSED_S
        if now - self._watched_at < WATCH_S:
            return
        self._watched_at = now
        late = self._stop_told and now > self._stop_at + self._settings.shutdown_timeout + KILL_S
        for child in self._children.values():
            if late:
                child.popen.kill()
            elif was_paused:
                child.excuse()
            else:
                child.watch()

    # -- fresh processes for the present ones

    def _begin_anew(self) -> None:
        self._reload_asked = False
        if self._settings.reload or self._settings.burst or self._settings.max_jobs is not None:
            self._replace_all()
            return
        if self._roll is not None:
            self._abandon(self._roll)
        olds = [child for child in self._children.values() if not child.is_leaving]
        logger.info("fresh processes follow the present ones: %d", len(olds))
        self._roll = Roll(olds, self._follow)

    def _follow(self, number: int) -> Process:
        self._count("process_restarts")
        return self._start(number)

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
        if number is not None and all(child.number != number or child.is_leaving for child in self._children.values()):
            self._restarts.append((time.monotonic() + MAX_REST_S, number))

    def _replace_all(self) -> None:
        """Has each leave before a fresh one follows: one code at a time, and the jobs are counted."""
        for child in self._children.values():
            child.popen.terminate()
        taken = {child.number for child in self._children.values()}
        self._restarts = [(0.0, number) for number in range(self._settings.processes) if number not in taken]

    def _spawn(self, number: int) -> None:
        total = self._settings.max_jobs
        share = None
        if total is not None:
            share = total // self._settings.processes + (number < total % self._settings.processes)
            share -= self._done.get(number, 0)
            if share <= 0:
                return
        self._start(number, share)

    def _start(self, number: int, share: int | None = None) -> Process:
        child = Process(number, self._settings, self._id, share)
        with self._lock:
            self._children[child.popen.pid] = child
        self._selector.register(child.pipe, selectors.EVENT_READ, child)
        return child

    def _hear(self, child: Process) -> None:
        messages = child.messages()
        if child.hung_up and child.popen.poll() is None:
            self._selector.unregister(child.pipe)  # it has closed its end and is about to exit
        for message in messages:
            if "life" in message:
                with self._lock:
                    child.lives.append(UUID(message["life"]))
                self._beat_for(message["url"], message["schema"])
            elif "error" in message:
                child.error = message["error"]
            elif "sums" in message:
                for counter in self._counters:
                    counter.hear(child.popen.pid, message["sums"])
            elif "asked" in message:
                self._beat_soon()
            elif "answer" in message and child.lives:
                child.answered()
                self._answers.add(child.lives[-1], str(message["answer"]), message.get("facts"))
                self._beat_soon()
            elif "left" in message:
                child.left = True
                self._done[child.number] = self._done.get(child.number, 0) + message["done"]

    def _beat_for(self, url: str, schema: str) -> None:
        if self._beating is None:
            self._found(url, schema)
            self._database = Database(url, schema)
            self._link = Link(self._database, "pgjobs supervisor")
            self._beating = Service("beat", self._beat, self._outage, self._emit, close=self._link.close)
            self._beating.start()
            if self._monitor is not None:
                self._monitor.measure(self._database, self._id)
            if self._statsd is not None:
                self._statsd.measure(self._database, self._id)
        else:
            self._beating.wake()

    def _beat_soon(self) -> None:
        self._beat_at = 0.0
        if self._beating is not None:
            self._beating.wake()

    def _beat(self) -> float:
        """One UPDATE for all children, every few seconds; and what is to be said of the dead, every second."""
        assert self._link is not None  # noqa: S101 - it was made with this service
        with self._lock:
            lives = {child.lives[-1]: child for child in self._children.values() if child.lives}
        if lives and (lives.keys() - self._beaten or time.monotonic() >= self._beat_at):
            self._beat_at = time.monotonic() + BEAT_S
            self._beaten = set(lives)
            leaving = [life for life, child in lives.items() if child.is_leaving or self._stop_told]
            orders = self._link.one(statements.beat(list(lives), leaving))
            self._reached_at = time.monotonic()
            for life, child in lives.items():
                if life in orders:
                    child.obey(orders[life])
                elif child.popen.poll() is None:
                    child.tell(f"dead {life}")
        for life, child in lives.items():
            if (forced := child.forced_answer()) is not None:
                self._answers.add(life, *forced)
        self._answers.write(self._link)
        self._ask_for_waits(self._link)
        self._deaths.report(self._link)
        if self._deaths.find_neighbours(self._link):
            self._reached_at = time.monotonic()
        return LOOK_S

    def _settle_deaths(self) -> None:
        if self._deaths and self._beating is not None and self._link is not None:
            self._beating.stop()
            self._beating.join(3.0)
            try:
                self._deaths.report(self._link)
            except Exception as error:
                logger.warning("could not report a death (%s); the reaper will find it", type(error).__name__)

    def _pass_on_stop(self) -> None:
        first = not self._stop_told
        self._stop_told = self._stop_asked
        if first:
            self._stop_at = time.monotonic()
            self._notifier.stopping()
            self._roll = None
            self._beat_soon()
        for child in self._children.values():
            if first:
                child.tell("stop")
            if self._stop_told > 1:
                child.tell("hurry")

    def _bury(self, child: Process) -> None:
        """Takes leave of a child that has exited, and sees to what it left."""
        self._hear(child)
        code = child.popen.returncode
        if child.pipe in self._selector.get_map():
            self._selector.unregister(child.pipe)
        with self._lock:
            del self._children[child.popen.pid]
        for counter in self._counters:
            counter.gone(child.popen.pid)
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
            self._plan_restart(child)

    def _mourn(self, child: Process) -> None:
        logger.error("worker process %d died (%s)", child.popen.pid, child.how())
        self._count("process_deaths")
        if child.lives:
            self._deaths.add(child.death())
            if self._beating is not None:
                self._beating.wake()

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
        if any(other.is_ready for other in self._children.values()):
            self._plan_restart(child)
            return
        self._code = self._code or code
        self._stop_asked += 1
        self._pass_on_stop()

    def _plan_restart(self, child: Process) -> None:
        lived_s = time.monotonic() - child.started_at
        rest = (
            0.0
            if child.recycled or lived_s > STEADY_S
            else min(MAX_REST_S, max(0.2, 2 * self._rests.get(child.number, 0.0)))
        )
        self._rests[child.number] = rest
        self._restarts.append((time.monotonic() + rest, child.number))

    def _restart_due(self) -> None:
        now = time.monotonic()
        due = [number for at, number in self._restarts if at <= now]
        self._restarts = [(at, number) for at, number in self._restarts if at > now]
        for number in due:
            if not self._stop_asked:
                self._count("process_restarts")
                self._spawn(number)

    # -- more processes, or fewer

    def _rescale(self, scale: Scale) -> None:
        staying = [child for child in self._children.values() if not child.is_leaving]
        unsettled = self._stop_asked or self._roll is not None or any(child.quiet for child in staying)
        if unsettled or time.monotonic() < self._scale_at:
            return
        self._scale_at = time.monotonic() + SCALE_S
        busy = {child.popen.pid: len(child.board.begun()) for child in staying if child.is_ready}
        total = len(staying) + len(self._restarts)
        load = Load(total, total - len(busy), len(busy) * self._settings.concurrency, sum(busy.values()))
        waited_s, self._waited_s = self._waited_s, 0.0
        step = scale.decide(load, waited_s)
        if step > 0:
            logger.info("one process more, %d now: a job has waited for %.0f s, all slots busy", total + 1, waited_s)
            taken = {child.number for child in staying} | {number for _, number in self._restarts}
            self._start(next(number for number in count() if number not in taken))
        elif step < 0:
            logger.info("one process fewer, %d now: its slots have been idle", total - 1)
            min(staying, key=lambda child: (busy.get(child.popen.pid, 0), -child.number)).drain()
        self._must_ask = scale.wants_to_know(load)

    def _ask_for_waits(self, link: Link) -> None:
        """Asks how long jobs wait, where that matters; the longer the answer takes, the more seldom."""
        if not self._must_ask or (asked_at := time.monotonic()) < self._ask_at:
            return
        served = Subscription.parse(self._settings.queues)
        waits = link.one(statements.longest_wait())
        self._waited_s = max((wait for queue, wait in waits.items() if served.rank(queue) is not None), default=0.0)
        self._ask_at = time.monotonic() + rest_after(time.monotonic() - asked_at)

    def _count(self, name: str) -> None:
        for counter in self._counters:
            counter.count(name)


def _ignore(number: int, frame: object) -> None:
    """A death only ends the wait."""


def _monitor(settings: Settings, emit: Callable[[Event], None]) -> Monitor | None:
    if settings.http is None:
        return None
    from pgjobs.supervisor.monitor import Monitor  # an HTTP server is 2 MB, which few supervisors need

    return Monitor(settings.http, settings.stall_timeout, emit)


def _statsd(settings: Settings) -> Statsd | None:
    if settings.statsd is None:
        return None
    from pgjobs.supervisor.statsd import Statsd

    return Statsd(settings.statsd, cast("Format", settings.statsd_format))
