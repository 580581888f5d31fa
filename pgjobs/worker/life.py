"""What a worker is from its registration until it retires or is declared dead: an id, and all held under it."""

from __future__ import annotations

import inspect
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import psycopg

from pgjobs import statements
from pgjobs.arguments import codec
from pgjobs.connections.link import Link
from pgjobs.job import new_id
from pgjobs.options import retentions
from pgjobs.report import Desk
from pgjobs.running.outcome import released
from pgjobs.running.run import Run
from pgjobs.terms import resources
from pgjobs.worker import identity, stacks
from pgjobs.worker.claiming.admission import Admission
from pgjobs.worker.claiming.claimer import Claimer
from pgjobs.worker.claiming.lanes import PRIVATE, Lanes
from pgjobs.worker.claiming.reconcile import DeclaredDeadError
from pgjobs.worker.claiming.slots import Executor, Slots
from pgjobs.worker.executors.loop import AsyncExecutor
from pgjobs.worker.executors.pool import APART, ProcessExecutor
from pgjobs.worker.executors.threads import ThreadExecutor
from pgjobs.worker.lifespan import Lifespan
from pgjobs.worker.maintenance import Maintenance
from pgjobs.worker.service import Service
from pgjobs.worker.telling import slots_for

if TYPE_CHECKING:
    from pgjobs.worker.runtime import Worker

INTERRUPT_S: Final = 3.0
"""How long stopped code may take to unwind before its jobs are given back all the same."""

logger = logging.getLogger("pgjobs.worker")


class Life:
    """One life of a worker. ``start`` begins it; ``wind_down`` and ``end`` take leave; ``abandon`` is its death."""

    def __init__(self, worker: Worker) -> None:
        alerting = [*_alerting(worker)]  # first, since it may refuse the application's alerts
        self.id = new_id()
        self._worker = worker
        self._link = Link(worker.jobs.database, "pgjobs worker", worker.settings.synchronous_commit)
        self.slots = slots_for(worker.jobs.audience)(worker.settings.concurrency, self._ready, worker.board)
        self.desk = Desk(self._ready, self._extended)
        self.desk.jobs = worker.jobs
        self.desk.max_file_bytes = worker.jobs.max_file_bytes
        self._loop = AsyncExecutor(self.slots)
        self._lifespan = Lifespan(worker.jobs.lifespan, self._loop.run, self._run_last)
        self._threads = ThreadExecutor(self.slots, lost=self._lost_thread)
        self._pools = {kind: _pool(kind, worker, self.slots) for kind in APART}
        self._executors: dict[str, Executor] = {"async": self._loop, "thread": self._threads, **self._pools}
        self.slots.serve(self._executors)
        self.claimer = self._make_claimer(worker)
        self.claiming = Service(
            "claimer",
            self._claim,
            worker.outage,
            worker.emit,
            close=self._link.close,
            recovered=self._recovered,
            fatal=(DeclaredDeadError,),
            on_fatal=lambda _: worker.declared_dead(self.id),
        )
        self._services = [self.claiming, self._upkeep(worker), *alerting]

    def _make_claimer(self, worker: Worker) -> Claimer:
        served = worker.subscription
        claimer = Claimer(
            self.id,
            self._link,
            Lanes(served, private=f"{PRIVATE}{self.id}", aging_s=worker.settings.aging_s),
            self.slots,
            flags=served.flags,
            schema=worker.jobs.schema,
            admit=Admission(worker.registry, worker.emit, apart=worker.settings.app is not None),
            emit=worker.emit,
            desk=self.desk,
            limit=worker.settings.max_jobs,
        )
        claimer.quiet = worker.quiet
        return claimer

    def _upkeep(self, worker: Worker) -> Service:
        link = Link(worker.jobs.database, "pgjobs upkeep")
        maintenance = Maintenance(
            self.id,
            link,
            worker.emit,
            result_ttl_s=worker.jobs.result_ttl_s,
            failed_ttl_s=worker.jobs.failed_ttl_s,
            retentions=[kept_s for task in worker.jobs.tasks.values() for kept_s in retentions(task.options)],
            promoted=self._promoted,
            workers=lambda: self.claimer.workers,
        )
        return Service("upkeep", maintenance.tick, worker.outage, worker.emit, close=link.close)

    def start(self) -> None:
        """Registers, and starts the services."""
        worker = self._worker
        self._loop.open()
        try:
            self._open_resources(worker)
            self._register(worker)
        except BaseException:
            self._link.close()
            self._lifespan.close()
            self._loop.close()
            raise
        worker.on_life(self)
        for service in self._services:
            service.start()

    def _open_resources(self, worker: Worker) -> None:
        self.desk.resources = self._lifespan.open()
        for task in worker.jobs.tasks.values():
            if task.wants and task.executor != "process":
                resources.check(task.function, self.desk.resources)

    def _register(self, worker: Worker) -> None:
        self._link.check_schema()
        self._publish(worker)
        document = json.dumps(identity.describe(os.getppid() if worker.settings.supervised else None))
        self._link.one(
            statements.register(
                self.id,
                supervisor=worker.supervisor_id,
                name=worker.name,
                host=socket.gethostname(),
                pid=os.getpid(),
                process=document,
                queues=worker.subscription.patterns,
                slots=worker.settings.concurrency,
                quiet=worker.quiet,
            )
        )

    def _publish(self, worker: Worker) -> None:
        """Says which tasks run here, for those who enqueue by SQL."""
        tasks = sorted(set(worker.jobs.tasks.values()), key=lambda task: task.name)
        schemas = [codec.dumps(task.signature.schema(), what="schema") for task in tasks]
        docs = [inspect.getdoc(task.function) for task in tasks]
        try:
            if tasks:
                self._link.one(statements.publish_tasks([task.row for task in tasks], schemas, docs))
        except psycopg.errors.InsufficientPrivilege:
            logger.warning("this role may not publish its tasks; have the schema's owner run `pgjobs roles create`")

    def adopt(self, claim_id: UUID, row: tuple[Any, ...]) -> None:
        """Takes a job that this process has put under a claim of this worker; from any thread."""
        self.claimer.adopt(claim_id, row)
        self.claiming.wake()

    def wind_down(self, grace_s: float, hurry: Callable[[], bool]) -> int:
        """Lets what runs finish, for grace_s at most; then stops it. Returns how many jobs went back."""
        self.claimer.stop_claiming()
        self.claiming.wake()
        if self._await_empty(grace_s, hurry):
            return 0
        stopped = len(self.slots.running)
        self._interrupt()
        self._await_empty(INTERRUPT_S, lambda: False)
        deaf = self.slots.abandon()
        self.slots.put_back([released(run) for run in deaf])
        self.claiming.wake()
        self._await_empty(INTERRUPT_S, lambda: False)
        return stopped

    def _await_empty(self, timeout_s: float, hurry: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + timeout_s
        while not self.is_done():
            if time.monotonic() > deadline or hurry():
                return False
            self._worker.await_change(0.02)
            self.claiming.wake()
        return True

    def is_done(self) -> bool:
        """Whether nothing is being claimed, waits, runs or is to be recorded; asked in the order of a job's life."""
        return self.claimer.resting and self.slots.empty and self.claimer.settled

    def end(self) -> None:
        """Stops the services and takes leave of the database."""
        for service in self._services:
            service.stop()
        for service in self._services:
            service.join(5.0)
        self._close_resources()
        for executor in self._executors.values():
            executor.close()
        farewell = Link(self._worker.jobs.database, "pgjobs worker")
        try:
            self.claimer.give_back(farewell)
            if notable := self.claimer.notable():
                farewell.one(statements.note_lanes(notable))
            farewell.one(statements.retire(self.id))
        except Exception as error:
            logger.warning("could not take leave of the database (%s); the reaper will", type(error).__name__)
        finally:
            farewell.close()

    def abandon(self) -> None:
        """Drops all that is held: it belongs to others now."""
        self.claimer.stop_claiming()
        self.slots.drop()
        self._interrupt()
        for service in self._services:
            service.stop()
        self._threads.close()
        for pool in self._pools.values():
            pool.close()
        self._close_resources()
        self._loop.close()

    def be_quiet(self, quiet: bool) -> None:
        """Claims no more, or claims again; from any thread."""
        self.claimer.quiet = quiet
        if not quiet:
            self.claimer.look()
        self.claiming.wake()

    def answer(self, what: str, seconds: float) -> dict[str, Any]:
        """Says what the code of this process is doing: ``stacks``, or a ``profile`` of some seconds."""
        running = self._threads.running() | self._loop.running()
        jobs = {key: f"{run.task_name} {run.id}" for key, run in running.items()}
        return stacks.ask(what, seconds, self._loop.loop, jobs)

    def _run_last(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Runs a coroutine on the loop, unless a job holds that: it may do so for as long as it likes."""
        heard = threading.Event()
        self._loop.loop.call_soon_threadsafe(heard.set)
        if not heard.wait(INTERRUPT_S):
            coroutine.close()
            raise TimeoutError("a coroutine blocks the event loop")
        return self._loop.run(coroutine)

    def _close_resources(self) -> None:
        try:
            self._lifespan.close()
        except Exception:
            logger.exception("the lifespan could not be closed")

    def _interrupt(self) -> None:
        for executor in self._executors.values():
            executor.interrupt()

    def _claim(self) -> float:
        rest_s = self.claimer.tick()
        if self.slots.empty:
            self._worker.changed()
        return rest_s

    def _lost_thread(self) -> None:
        self._worker.recycle("a thread goes on after its timeout")

    def _extended(self, run: Run) -> None:
        Slots.began(self.slots, run)  # on the board alone: whoever is told of starts has heard of this one before

    def _ready(self) -> None:
        self.claiming.wake()

    def _promoted(self) -> None:
        self.claimer.look()
        self.claiming.wake()

    def _recovered(self) -> None:
        self._link.close()
        self.claimer.reconnected()


def _pool(kind: str, worker: Worker, slots: Slots) -> ProcessExecutor:
    settings = worker.settings
    return ProcessExecutor(
        slots,
        settings.app,
        settings.pool_max_jobs,
        settings.max_rss,
        kind=kind,
        allow_shell=settings.allow_shell,
        worker=worker.name,
    )


def _alerting(worker: Worker) -> Iterator[Service]:
    """The service that sees to the alerts; none, and no connection, where the application has no alerts."""
    if not worker.jobs.alerts:
        return
    from pgjobs.worker.alerting import Alerting  # the modules of mail are 2 MB, which few workers need

    link = Link(worker.jobs.database, "pgjobs alerts")
    alerting = Alerting(worker.jobs.alerts, worker.jobs.webhook_secrets, link, worker.emit)
    yield Service("alerts", alerting.tick, worker.outage, worker.emit, close=link.close)
