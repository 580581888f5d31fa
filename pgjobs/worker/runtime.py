"""A worker: its slots, executors and services, put together, started and stopped."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Final
from uuid import UUID

import psycopg

from pgjobs import statements, telemetry
from pgjobs.app import PgJobs
from pgjobs.config import SYNCHRONOUS_COMMIT, Duration, seconds
from pgjobs.database import is_away
from pgjobs.errors import OptionError
from pgjobs.events import DeclaredDead, Event, Quieted, Recycling, Unheard, WorkerStarted, WorkerStopped, WorkerStopping
from pgjobs.job import new_id
from pgjobs.link import Link
from pgjobs.listener import Listener
from pgjobs.options import log_level
from pgjobs.registry import Registry
from pgjobs.statements import Orders
from pgjobs.worker.answers import Answers
from pgjobs.worker.board import Board
from pgjobs.worker.calling import Calls, wanted
from pgjobs.worker.deaths import LOOK_S, Deaths
from pgjobs.worker.executors.pool import APART, check
from pgjobs.worker.life import Life
from pgjobs.worker.service import Outage, Service
from pgjobs.worker.subscription import Subscription
from pgjobs.worker.telling import Telling

BEAT_S: Final = 3.0

logger = logging.getLogger("pgjobs.worker")


class Worker:
    """Runs jobs in this process until it is stopped.

    Use it as a context manager, sync or async; or call ``run()``, which returns when the worker has drained the queues
    (with ``burst``), has done ``max_jobs``, or ``stop()`` is called from another thread or a signal handler.

    Args:
        queues: names and patterns, as for ``pgjobs worker -Q``.
        concurrency: slots, shared by coroutines and threads.
        burst: leave when nothing is left to claim.
        max_jobs: leave after so many.
        shutdown_timeout: how long running jobs may finish when the worker stops.
        aging: where priorities decide, a job counts a point more for each such time that it has waited.
        synchronous_commit: PostgreSQL's, for claims and completions; None leaves it to the server. With ``off`` a job
            whose end was recorded just before the server crashed is run again.
        modules: modules whose public functions may run under ``module:function``.
        app: what ``-A`` named, for the processes of the pool to load; without it they import each task's module.
        max_rss: bytes; a process of the pool that takes more is killed if it runs a job, else replaced.
        pool_max_jobs: a process of the pool is replaced after so many.
        allow_shell: run the commands that ``pgjobs enqueue-shell`` enqueues.
        supervised: somebody else beats for this worker, reads the board of running jobs, and is told of each life it
            begins.

    Raises:
        OptionError: a setting that cannot be meant.
    """

    def __init__(
        self,
        jobs: PgJobs,
        *,
        queues: str | Sequence[str] = "*",
        concurrency: int = 16,
        burst: bool = False,
        max_jobs: int | None = None,
        shutdown_timeout: Duration = 30.0,
        aging: Duration | None = None,
        synchronous_commit: str | None = None,
        modules: Iterable[str] = (),
        name: str | None = None,
        app: str | None = None,
        max_rss: int | None = None,
        pool_max_jobs: int | None = None,
        allow_shell: bool = False,
        supervised: bool = False,
        supervisor_id: UUID | None = None,
        board: Board | None = None,
        on_life: Callable[[Life], None] = lambda life: None,
        on_asked: Callable[[], None] = lambda: None,
        emit: Callable[[Event], None] | None = None,
    ) -> None:
        if isinstance(concurrency, bool) or not 1 <= concurrency <= 10_000:
            raise OptionError(f"concurrency is {concurrency!r}; give 1 to 10,000 slots")
        if max_jobs is not None and max_jobs < 1:
            raise OptionError(f"max_jobs is {max_jobs!r}; give 1 or more, or None")
        if synchronous_commit is not None and synchronous_commit not in SYNCHRONOUS_COMMIT:
            raise OptionError(
                f"synchronous_commit is {synchronous_commit!r}; give one of {', '.join(SYNCHRONOUS_COMMIT)}, or None"
            )
        self.aging_s = None if aging is None else seconds(aging, what="aging")
        if self.aging_s == 0:
            raise OptionError("aging is 0; give how long a job waits for a point of priority, such as '60s', or None")
        self.jobs = jobs
        self.synchronous_commit = synchronous_commit
        self.subscription = Subscription.parse(queues)
        self.concurrency = concurrency
        self.burst = burst
        self.max_jobs = max_jobs
        self.shutdown_timeout_s = seconds(shutdown_timeout, what="shutdown_timeout")
        self.registry = Registry(jobs, modules, allow_shell=allow_shell)
        self.allow_shell = allow_shell
        self.name = name or f"{socket.gethostname()}:{os.getpid()}"
        self.app = app
        self.max_rss = max_rss
        self.pool_max_jobs = pool_max_jobs
        self.supervised = supervised
        self.supervisor_id = supervisor_id or new_id()
        self.board = board
        self.on_life = on_life
        self._on_asked = on_asked
        telling = Telling(emit or telemetry.Log(), jobs.audience)
        self._calls = Calls(jobs, telling) if wanted(jobs) else None
        self.emit: Callable[[Event], None] = self._calls or telling
        self.outage = Outage(self.emit)
        self._handler = telemetry.JobLogHandler(log_level(jobs.capture_logs))
        self._deaths = Deaths(self.emit)
        self._stop_asked = threading.Event()
        self._changed = threading.Event()
        self._hurry = False
        self._rebirth = threading.Lock()
        self._beat_at = 0.0
        self._beating: Service | None = None
        self._answers = Answers()
        self._asked: str | None = None
        self.quiet = False
        self.recycling = False
        self.done = 0
        self._life: Life | None = None
        self._services: list[Service] = []
        self.pid = os.getpid()
        self._listener: Listener | None = None

    # -- the life of a worker

    def start(self) -> None:
        """Makes the worker known and starts it.

        Raises:
            OptionError: a task of the process executor cannot be imported by one.
            SchemaError: the database does not have this release's schema.
            psycopg.OperationalError: the database cannot be reached.
        """
        if self.app is None:
            for task in self.jobs.tasks.values():
                if task.executor in APART:
                    check(task)
        if self._calls is not None:
            self._calls.start()
        self._life = Life(self)
        logging.getLogger().addHandler(self._handler)  # before the first job may run
        try:
            self._life.start()
        except BaseException:
            logging.getLogger().removeHandler(self._handler)
            raise
        database = self.jobs.database.for_listening()
        self._listener = Listener(
            database,
            f"{database.schema}.jobs",
            self._heard,
            self._deaf,
            unheard=lambda: self.emit(Unheard(database.where)),
        )
        listening = Service(
            "listener",
            self._listener.tick,
            self.outage,
            self.emit,
            close=self._listener.close,
            recovered=self._listener.recovered,
        )
        self._services = [listening]
        if not self.supervised:
            beat = Link(self.jobs.database, "pgjobs beat")
            self._beating = Service("beat", lambda: self._beat(beat), self.outage, self.emit, close=beat.close)
            self._services.append(self._beating)
        for service in self._services:
            service.start()
        self.pid = os.getpid()
        self.jobs.hosts.append(self)
        where = self.jobs.database.where
        self.emit(WorkerStarted(self.name, str(self.subscription), self.concurrency, where, len(self.registry)))

    def stop(self, timeout: Duration | None = None) -> None:
        """Claims no more, lets running jobs finish, gives the rest back; returns when all is recorded.

        Args:
            timeout: instead of shutdown_timeout.
        """
        if self._life is None:
            return
        self._stop_asked.set()
        if self in self.jobs.hosts:
            self.jobs.hosts.remove(self)
        with self._rebirth:
            life = self._life_now()
        grace_s = self.shutdown_timeout_s if timeout is None else seconds(timeout, what="timeout")
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
        self._life = None
        self._stop_asked.clear()
        self._hurry = False
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
        """Returns when the worker should stop: asked to, or drained where it is to leave then."""
        leaves = self.burst or self.max_jobs is not None
        while not self._stop_asked.is_set():
            life = self._life
            if life is not None and self._may_leave(life):
                return
            self.await_change(0.01 if leaves or self.recycling else 1.0)

    def _may_leave(self, life: Life) -> bool:
        done = self.recycling or life.claimer.spent.is_set() or (self.burst and life.claimer.drained.is_set())
        return done and life.is_done()

    def request_stop(self) -> None:
        """Asks ``run`` to return; asked a second time, running jobs are not waited for. Safe in a signal handler."""
        if self._stop_asked.is_set():
            self._hurry = True
        self._stop_asked.set()
        self._changed.set()

    def recycle(self, why: str) -> None:
        """Claims no more and leaves when it has drained, for a fresh process to follow.

        Without a supervisor nobody would follow, so the worker goes on.
        """
        if self.supervised and not self.recycling:
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
        return 0 if self._life is None else len(self._life.slots.running)

    @property
    def claims(self) -> int:
        """How many claims have found jobs since it began, or was declared dead and began anew."""
        return 0 if self._life is None else self._life.claimer.claims

    def begun(self) -> list[UUID]:
        """The jobs that run now."""
        return [run.id for run in self._life_now().slots.running]

    def _life_now(self) -> Life:
        if self._life is None:
            raise OptionError("the worker is not running; call start() first")
        return self._life

    def __enter__(self) -> Worker:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self.burst:
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
        life = self._life
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
        if (life := self._life) is not None:
            life.claimer.look()
            life.claiming.wake()

    def _beat(self, link: Link) -> float:
        life = self._life
        if life is not None and time.monotonic() >= self._beat_at:
            self._beat_at = time.monotonic() + BEAT_S
            leaving = [life.id] if self._stop_asked.is_set() else []
            orders = link.one(statements.beat([life.id], leaving)).get(life.id)
            if orders is None:
                self.declared_dead(life.id)
            else:
                self._obey(life, orders)
        self._answers.write(link)
        self._deaths.find_neighbours(link)
        return LOOK_S

    def _beat_soon(self) -> None:
        """Has the next beat come now, where this worker beats for itself."""
        self._beat_at = 0.0
        if self._beating is not None:
            self._beating.wake()

    # -- what is asked of it

    def _obey(self, life: Life, orders: Orders) -> None:
        self.be_quiet(orders.quiet)
        if orders.leave and not self._stop_asked.is_set():
            life.claimer.stop_claiming()
            self.request_stop()
        question = orders.question
        if question is not None and question.id != self._asked:
            self._asked = question.id
            self.ask(question.what, question.seconds, lambda facts: self._answer(life.id, question.id, facts))

    def _answer(self, life_id: UUID, question: str, facts: Any) -> None:
        self._answers.add(life_id, question, facts)
        self._beat_soon()

    def be_quiet(self, quiet: bool) -> None:
        """Claims no more and finishes what runs, or claims again; from any thread."""
        if quiet == self.quiet:
            return
        self.quiet = quiet
        self.emit(Quieted(self.name, quiet))
        if (life := self._life) is not None:
            life.be_quiet(quiet)

    def ask(self, what: str, seconds: float, tell: Callable[[Any], None]) -> None:
        """Finds out what an operator wants to know (``Life.answer``) on a thread of its own, and tells it."""
        if (life := self._life) is not None:
            find = threading.Thread(target=lambda: tell(life.answer(what, seconds)), name="pgjobs-answer", daemon=True)
            find.start()

    def drain(self) -> None:
        """Claims no more and leaves when it has drained, however long that takes."""
        self.recycling = True
        if self._life is not None:
            self._life.claimer.stop_claiming()
            self._life.claiming.wake()
        self._changed.set()

    def declared_dead(self, life_id: UUID) -> None:
        """Drops all that a life held, and begins another one under a new id, on a thread of its own.

        The beat, the claimer and the supervisor may find it out at once; the first counts.
        """
        threading.Thread(target=self._begin_anew, args=(life_id,), name="pgjobs-rebirth", daemon=True).start()

    def _begin_anew(self, life_id: UUID) -> None:
        with self._rebirth:
            if self._life is None or self._life.id != life_id or self._stop_asked.is_set():
                return
            self.emit(DeclaredDead(self.name))
            self._life.abandon()
            while not self._stop_asked.is_set():
                try:
                    life = Life(self)
                    life.start()
                except psycopg.Error as error:
                    if not is_away(error):
                        raise
                    self.outage.away(error)
                    self._stop_asked.wait(0.5)
                else:
                    self._life = life
                    return

    def changed(self) -> None:
        """Something finished: whoever waits for it looks."""
        self._changed.set()

    def await_change(self, timeout_s: float) -> None:
        """Waits until something finishes, or for timeout_s."""
        self._changed.wait(timeout_s)
        self._changed.clear()
