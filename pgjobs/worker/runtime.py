"""A worker: its slots, executors and services, put together, started and stopped."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any
from uuid import UUID

import psycopg

from pgjobs import telemetry
from pgjobs.app import PgJobs
from pgjobs.config import Duration, seconds
from pgjobs.connections.database import is_away
from pgjobs.connections.listener import Listener
from pgjobs.errors import OptionError
from pgjobs.events import DeclaredDead, Event, Quieted, Recycling, Unheard, WorkerStarted, WorkerStopped, WorkerStopping
from pgjobs.job import new_id
from pgjobs.options import log_level
from pgjobs.running.registry import Registry
from pgjobs.worker.beating import Beat
from pgjobs.worker.bell import Bell
from pgjobs.worker.board import Board
from pgjobs.worker.calling import Calls, wanted
from pgjobs.worker.executors.pool import APART, check
from pgjobs.worker.life import Life
from pgjobs.worker.service import Outage, Service
from pgjobs.worker.settings import WorkerSettings
from pgjobs.worker.subscription import Subscription
from pgjobs.worker.telling import Telling

__all__ = ["Worker", "WorkerSettings"]


class Worker:
    """Runs jobs in this process until it is stopped.

    Use it as a context manager, sync or async; or call ``run()``, which returns when the worker has drained the queues
    (with ``burst``), has done ``max_jobs``, or is stopped: by ``stop()`` from another thread, or by ``request_stop()``
    from a signal handler.

    Args:
        board: where the running jobs are noted, for a supervisor to read.
        on_life: told of each life that the worker begins.
        on_asked: told when somebody has asked something of workers, maybe of this one.
        emit: takes the worker's events, in place of the log.

    Raises:
        OptionError: the queues cannot be meant.
    """

    def __init__(
        self,
        jobs: PgJobs,
        settings: WorkerSettings,
        *,
        board: Board | None = None,
        on_life: Callable[[Life], None] = lambda life: None,
        on_asked: Callable[[], None] = lambda: None,
        emit: Callable[[Event], None] | None = None,
    ) -> None:
        self.jobs = jobs
        self.settings = settings
        self.subscription = Subscription.parse(settings.queues)
        self.registry = Registry(jobs, settings.modules, allow_shell=settings.allow_shell)
        self.name = settings.name or f"{socket.gethostname()}:{os.getpid()}"
        self.supervisor_id = settings.supervisor_id or new_id()
        self.board = board
        self.on_life = on_life
        self._on_asked = on_asked
        telling = Telling(emit or telemetry.Log(), jobs.audience)
        self._calls = Calls(jobs, telling) if wanted(jobs) else None
        self.emit: Callable[[Event], None] = self._calls or telling
        self.outage = Outage(self.emit)
        self._handler = telemetry.JobLogHandler(log_level(jobs.capture_logs))
        self.life: Life | None = None
        self._rebirth = threading.Lock()
        self._services: list[Service] = []
        self._listener: Listener | None = None
        self._beat: Beat | None = None
        self._bell = Bell()
        self._stop_asked = False
        self._hurry = False
        self.quiet = False
        self.recycling = False
        self.done = 0
        self.pid = os.getpid()

    # -- the life of a worker

    def start(self) -> None:
        """Makes the worker known and starts it.

        Raises:
            ConfigurationError: an alert tells a webhook, and there is nothing to sign with.
            OptionError: a task of the process executor cannot be imported by one.
            SchemaError: the database does not have this release's schema.
            psycopg.OperationalError: the database cannot be reached.
        """
        if self.settings.app is None:
            for task in self.jobs.tasks.values():
                if task.executor in APART:
                    check(task)
        self.life = Life(self)
        logging.getLogger().addHandler(self._handler)  # before the first job may run
        try:
            self.life.start()
        except BaseException:
            logging.getLogger().removeHandler(self._handler)
            raise
        if self._calls is not None:  # it has kept what happened so far
            self._calls.start()
        self._services = [self._listening()]
        if not self.settings.supervised:
            self._beat = Beat(self)
            self._services.append(self._beat.service)
        for service in self._services:
            service.start()
        self.pid = os.getpid()
        self.jobs.hosts.append(self)
        where, slots = self.jobs.database.where, self.settings.concurrency
        self.emit(WorkerStarted(self.name, str(self.subscription), slots, where, len(self.registry)))

    def _listening(self) -> Service:
        database = self.jobs.database.for_listening()
        self._listener = Listener(
            database,
            f"{database.schema}.jobs",
            self._heard,
            self._deaf,
            unheard=lambda: self.emit(Unheard(database.where)),
        )
        return Service(
            "listener",
            self._listener.tick,
            self.outage,
            self.emit,
            close=self._listener.close,
            recovered=self._listener.recovered,
        )

    def stop(self, timeout: Duration | None = None) -> None:
        """Claims no more, lets running jobs finish, gives the rest back; returns when all is recorded.

        Args:
            timeout: instead of shutdown_timeout.
        """
        if self.life is None:
            return
        self._stop_asked = True
        if self in self.jobs.hosts:
            self.jobs.hosts.remove(self)
        with self._rebirth:
            life = self._life_now()
        grace_s = self.settings.shutdown_timeout_s if timeout is None else seconds(timeout, what="timeout")
        self.emit(WorkerStopping(self.name, len(life.slots.running), grace_s))
        if life.slots.running:
            self._beat_soon()
        back = life.wind_down(grace_s, hurry=lambda: self._hurry)
        for service in self._services:
            service.stop()
        if self._listener is not None:
            self._listener.wake()
        for service in self._services:
            service.join(2.0)
        life.end()
        logging.getLogger().removeHandler(self._handler)
        self.life = None
        self._stop_asked = False
        self._hurry = False
        self._bell.ring()
        self.done += life.slots.done
        if self._calls is not None:
            self._calls.close()
        self.emit(WorkerStopped(self.name, life.slots.done, back))

    def run(self) -> None:
        """Starts, works until there is a reason to stop, and stops."""
        self.start()
        try:
            self.wait()
        finally:
            self.stop()

    def wait(self) -> None:
        """Returns when the worker has stopped or should: asked to, or drained where it is to leave then."""
        leaves = self.settings.burst or self.settings.max_jobs is not None
        while not self._stop_asked and (life := self.life) is not None and not self._may_leave(life):
            self.await_change(0.01 if leaves or self.recycling else 1.0)

    def _may_leave(self, life: Life) -> bool:
        done = self.recycling or life.claimer.spent.is_set() or (self.settings.burst and life.claimer.drained.is_set())
        return done and life.is_done()

    def request_stop(self) -> None:
        """Asks ``run`` to return; asked a second time, running jobs are not waited for. Safe in a signal handler."""
        self._hurry = self._hurry or self._stop_asked
        self._stop_asked = True
        self._bell.ring()

    @property
    def is_stopping(self) -> bool:
        """Whether it was asked to stop, and has not yet."""
        return self._stop_asked

    def recycle(self, why: str) -> None:
        """Claims no more and leaves when it has drained, for a fresh process to follow.

        Without a supervisor nobody would follow, so the worker goes on.
        """
        if self.settings.supervised and not self.recycling:
            self.emit(Recycling(self.name, why))
            self.drain()

    @property
    def id(self) -> UUID:
        """The id of its row in ``pgjobs.workers``."""
        return self._life_now().id

    def lend(self) -> Life:
        """What takes jobs that are enqueued in this process to run here."""
        return self._life_now()

    @property
    def busy(self) -> int:
        """How many jobs run now."""
        return 0 if self.life is None else len(self.life.slots.running)

    @property
    def claims(self) -> int:
        """How many claims have found jobs since it began, or was declared dead and began anew."""
        return 0 if self.life is None else self.life.claimer.claims

    def begun(self) -> list[UUID]:
        """The jobs that run now."""
        return [run.id for run in self._life_now().slots.running]

    def _life_now(self) -> Life:
        if self.life is None:
            raise OptionError("the worker is not running; call start() first")
        return self.life

    def __enter__(self) -> Worker:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self.settings.burst:
            self.wait()
        self.stop()

    async def __aenter__(self) -> Worker:
        await asyncio.to_thread(self.start)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.__exit__, kind, error, trace)

    # -- what it hears

    def _heard(self, payload: str) -> None:
        life = self.life
        if life is None:
            return
        claimer, woken = life.claimer, True
        try:
            match payload.split(" "):
                case ["queued", priority, queue]:
                    woken = claimer.hint(queue, int(priority))
                case ["restored", priority, position, queue]:
                    woken = claimer.hint_restored(queue, int(priority), int(position))
                case ["cancelled"]:
                    claimer.hint_stops()
                case ["asked"]:
                    self._beat_soon()
                    self._on_asked()
                    woken = False
                case ["paused"]:
                    claimer.hint_pauses()
                case _:
                    claimer.look()
        except ValueError:
            claimer.look()
        if woken:
            life.claiming.wake()

    def _deaf(self) -> None:
        if (life := self.life) is not None:
            life.claimer.look()
            life.claiming.wake()

    def _beat_soon(self) -> None:
        """Has the next beat come now, where this worker beats for itself."""
        if self._beat is not None:
            self._beat.soon()

    # -- what is asked of it

    def be_quiet(self, quiet: bool) -> None:
        """Claims no more and finishes what runs, or claims again; from any thread."""
        if quiet == self.quiet:
            return
        self.quiet = quiet
        self.emit(Quieted(self.name, quiet))
        if (life := self.life) is not None:
            life.be_quiet(quiet)

    def ask(self, what: str, seconds: float, tell: Callable[[Any], None]) -> None:
        """Finds out what an operator wants to know (``Life.answer``) on a thread of its own, and tells it."""
        if (life := self.life) is not None:
            find = threading.Thread(target=lambda: tell(life.answer(what, seconds)), name="pgjobs-answer", daemon=True)
            find.start()

    def drain(self) -> None:
        """Claims no more and leaves when it has drained, however long that takes."""
        self.recycling = True
        if self.life is not None:
            self.life.claimer.stop_claiming()
            self.life.claiming.wake()
        self._bell.ring()

    def declared_dead(self, life_id: UUID) -> None:
        """Drops all that a life held, and begins another one under a new id, on a thread of its own.

        The beat, the claimer and the supervisor may find it out at once; the first counts.
        """
        threading.Thread(target=self._begin_anew, args=(life_id,), name="pgjobs-rebirth", daemon=True).start()

    def _begin_anew(self, life_id: UUID) -> None:
        with self._rebirth:
            if self.life is None or self.life.id != life_id or self._stop_asked:
                return
            self.emit(DeclaredDead(self.name))
            self.life.abandon()
            while not self._stop_asked:
                try:
                    life = Life(self)
                    life.start()
                except psycopg.Error as error:
                    if not is_away(error):
                        raise
                    self.outage.away(error)
                    time.sleep(0.5)
                else:
                    self.life = life
                    return

    def changed(self) -> None:
        """Something finished: whoever waits for it looks."""
        self._bell.ring()

    def await_change(self, timeout_s: float) -> None:
        """Waits until something finishes, or for timeout_s."""
        self._bell.wait(timeout_s)
