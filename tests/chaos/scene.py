"""What is attacked: a durable server, workers that reach it through proxies, and producers that never stop."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit
from uuid import UUID

import psycopg

from pgjobs import PgJobs, migrations
from pgjobs.embedded import ControlledServer
from tests.chaos import tasks
from tests.processes import WorkerProcess
from tests.proxy import Proxy
from tests.support import scratch_directory

APP: Final = "tests.chaos.tasks"
BATCH: Final = 500
AHEAD: Final = 10_000
"""Producers rest while so many jobs wait: the load is to last as long as the faults."""

SETTINGS: Final = {
    "max_connections": "60",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "log_min_messages": "fatal",
}
"""fsync and synchronous_commit are PostgreSQL's own: on."""


@dataclass
class Worker:
    """A ``pgjobs worker`` behind its own proxies, one of them for LISTEN, and the processes of it that we have hurt."""

    process: WorkerProcess
    proxy: Proxy
    ear: Proxy
    start: Callable[[dict[str, str]], WorkerProcess]
    stopped: list[int] = field(default_factory=list)

    def listens_in_vain(self) -> bool:
        """Whether fewer connections hear than there are processes; what is dead for good is not counted among them."""
        return self.ear.living < len(self.process.children())


@dataclass
class Told:
    """What the producers know: acknowledged, refused or unanswered."""

    acknowledged: set[UUID] = field(default_factory=set)
    rolled_back: set[UUID] = field(default_factory=set)
    unanswered: set[UUID] = field(default_factory=set)


class Scene:
    """A server, workers and producers. Faults are injected from outside."""

    def __init__(
        self, directory: Path, rng: random.Random, jobs: int, kinds: Sequence[tasks.Kind], stack: ExitStack
    ) -> None:
        self.rng = rng
        self.jobs = jobs
        self.kinds = kinds
        self.allowed = jobs
        self.runs = directory / "runs"
        self.server = ControlledServer(directory / "home", SETTINGS)
        self.server.start()
        stack.callback(self._stop_server)
        self.url = self.server.url
        migrations.migrate(self.url)
        self._prepare()
        self.told = Told()
        self.killed: dict[int, float] = {}
        self.excused: set[str] = set()
        self.back_s: list[float] = []
        self.trouble: list[str] = []
        self.deaf = 0
        self.processes: list[WorkerProcess] = []
        self.workers = [self._worker(stack, processes=2), self._worker(stack, processes=1)]
        self._produced = 0
        self._stop = threading.Event()
        self._producers = [threading.Thread(target=self._produce, args=(random.Random(rng.random()),)) for _ in "ab"]
        stack.callback(self._end)

    # -- setting up

    def _prepare(self) -> None:
        with self.connect() as conn:
            conn.execute("CREATE SCHEMA chaos")
            conn.execute("CREATE TABLE chaos.committed (id uuid PRIMARY KEY, kind text NOT NULL)")
            conn.execute("CREATE TABLE chaos.effects (n bigint NOT NULL)")

    def connect(self) -> psycopg.Connection[Any]:
        """Our own connection, past every proxy."""
        return psycopg.connect(self.url, autocommit=True, connect_timeout=5)

    def _worker(self, stack: ExitStack, processes: int) -> Worker:
        directory = unquote(parse_qs(urlsplit(self.url).query)["host"][0])
        proxy, ear = Proxy(directory, 5432), Proxy(directory, 5432)
        stack.callback(proxy.close)
        stack.callback(ear.close)
        url, listen = (f"postgresql://postgres@127.0.0.1:{each.port}/postgres" for each in (proxy, ear))

        def start(more: dict[str, str]) -> WorkerProcess:
            own = {"PGJOBS_CHAOS_RUNS": str(self.runs), "PGJOBS_CHAOS_URL": self.url, "PGJOBS_LISTEN_URL": listen}
            arguments = (
                "--processes",
                str(processes),
                "--max-rss",
                "300M",
                "--shutdown-timeout",
                "10",
                "--wait-for-db",
            )
            process = stack.enter_context(WorkerProcess(url, *arguments, app=APP, **own, **more))
            self.processes.append(process)
            return process

        return Worker(start({}), proxy, ear, start)

    def begin(self) -> None:
        """Has the producers begin, when the workers are ready."""
        for worker in self.workers:
            worker.process.ready()
        for producer in self._producers:
            producer.start()

    # -- the producers

    @property
    def produced(self) -> int:
        """Jobs that were offered so far."""
        return self._produced

    def _produce(self, rng: random.Random) -> None:
        """Enqueues in transactions with a ledger of our own, of which every tenth is rolled back."""
        own = PgJobs(self.url)
        registered = [own.task(name=f"{APP}.{kind.name}", **kind.options)(_stub) for kind in self.kinds]
        conn: psycopg.Connection[Any] | None = None
        while self._produced < self.jobs and not self._stop.is_set():
            if self._produced >= self.allowed or self._waiting(conn) > AHEAD:
                time.sleep(0.05)
                continue
            try:
                conn = conn or psycopg.connect(self.url, connect_timeout=5)
                if rng.random() < 0.02:
                    self._alone(registered[0])
                else:
                    self._together(conn, rng, registered)
            except psycopg.Error:
                if conn is not None:
                    conn.close()
                conn = None
                time.sleep(0.1)
        if conn is not None:
            conn.close()
        own.close()

    def _waiting(self, conn: psycopg.Connection[Any] | None) -> int:
        """About how many jobs wait; the positions tell it without counting."""
        if conn is None or conn.closed:
            return 0
        try:
            row = conn.execute(
                "SELECT last_value - coalesce(lowest, last_value) FROM pgjobs.positions,"
                " (SELECT min(position) AS lowest FROM pgjobs.jobs WHERE position IS NOT NULL) AS job"
            ).fetchone()
            conn.rollback()
        except psycopg.Error:
            return 0
        return int(row[0]) if row else 0

    def _together(self, conn: psycopg.Connection[Any], rng: random.Random, registered: list[Any]) -> None:
        weights = [kind.in_a_million for kind in self.kinds]
        chosen = rng.choices(range(len(self.kinds)), weights, k=BATCH)
        ids: list[UUID] = []
        kinds: list[str] = []
        for index in sorted(set(chosen)):
            count = chosen.count(index)
            first = rng.randrange(2**40)
            ids += registered[index].using(conn).enqueue_many([(first + i,) for i in range(count)])
            kinds += [self.kinds[index].name] * count
        conn.execute("INSERT INTO chaos.committed SELECT * FROM unnest(%s::uuid[], %s::text[])", [ids, kinds])
        if rng.random() < 0.1:
            self.told.rolled_back.update(ids)
            conn.rollback()
            return
        self.told.unanswered.update(ids)
        conn.commit()
        self.told.acknowledged.update(ids)
        self.told.unanswered.difference_update(ids)
        self._produced += len(ids)

    def _alone(self, quick: Any) -> None:
        """Jobs with a transaction of their own each, as most applications enqueue them."""
        for n in range(20):
            self.told.acknowledged.add(quick.enqueue(n).id)
            self._produced += 1

    # -- the end

    def wait_until_all_ended(self, timeout_s: float) -> bool:
        """Waits until no job is left to run; returns whether that came."""
        for producer in self._producers:
            producer.join()
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            with suppress(psycopg.Error), self.connect() as conn:
                row = conn.execute(
                    "SELECT NOT EXISTS (SELECT FROM pgjobs.jobs WHERE position IS NOT NULL OR due_at IS NOT NULL)"
                    " AND NOT EXISTS (SELECT FROM pgjobs.claims)"
                ).fetchone()
                if row == (True,):
                    return True
            time.sleep(0.5)
        return False

    def wait_until_all_beat(self, timeout_s: float) -> None:
        """Without that, faults which keep a worker from the database would add up until it is rightly believed dead."""
        deadline = time.monotonic() + timeout_s
        while self._unseen() and time.monotonic() < deadline:
            time.sleep(0.1)

    def _unseen(self) -> bool:
        """Whether a worker that lives has missed a beat, or nobody can tell."""
        try:
            with self.connect() as conn:
                rows = conn.execute(
                    "SELECT pid FROM pgjobs.workers WHERE dead_at IS NULL AND seen_at < now() - interval '4 seconds'"
                ).fetchall()
        except psycopg.Error:
            return True
        return any(pid not in self.killed for (pid,) in rows)

    def wait_until_all_hear(self, timeout_s: float) -> None:
        """Waits until every worker listens on a living connection; ``deaf`` says how many don't."""
        deadline = time.monotonic() + timeout_s
        while (deaf := sum(worker.listens_in_vain() for worker in self.workers)) and time.monotonic() < deadline:
            time.sleep(0.2)
        self.deaf = deaf

    def leave(self) -> list[int]:
        """Sends every worker SIGTERM; returns the exit codes."""
        for worker in self.workers:
            worker.process.signal(signal.SIGTERM)
        return [worker.process.leave(60) for worker in self.workers]

    def _end(self) -> None:
        self._stop.set()
        for worker in self.workers:
            for pid in worker.stopped:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
        for producer in self._producers:
            if producer.ident is not None:
                producer.join(30)

    def _stop_server(self) -> None:
        self.server.stop("immediate")


def _stub(n: int) -> None:
    """Stands for a task of the workers, so that producers need not import them."""


@contextmanager
def scene(seed: int, jobs: int, kinds: Sequence[tasks.Kind] = tasks.KINDS) -> Iterator[Scene]:
    """Sets everything up, and takes everything down."""
    with ExitStack() as stack:
        yield Scene(stack.enter_context(scratch_directory()), random.Random(seed), jobs, kinds, stack)
