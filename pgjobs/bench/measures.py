"""The measures: each prepares its table, does one thing with real workers, and returns its figures.

Drains are timed by the database's clock, from the first claim to the last recorded completion. Latencies are from
before the call to the first line of the function, by the clock of the machine that runs both.
"""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, LiteralString
from uuid import UUID

import psycopg

from pgjobs import migrations
from pgjobs.app import PgJobs
from pgjobs.bench import tasks
from pgjobs.bench.tasks import SCHEMA
from pgjobs.errors import ConfigurationError
from pgjobs.statements import QUERIES
from pgjobs.worker import identity

NOOP: Final = "pgjobs.bench.tasks.noop"
RECORDED: Final = QUERIES["bench_recorded"].text(SCHEMA)
LEFT: Final = QUERIES["bench_left"].text(SCHEMA)


class Database:
    """The database under measurement, and the workers that run on it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.jobs = PgJobs(url, schema=SCHEMA)
        if self.jobs.database.pooled:
            raise ConfigurationError("a pooler stands before this server; give --url the server's own address")
        self.conn = psycopg.connect(url, autocommit=True)
        self.conn.execute("SET client_min_messages = warning")
        for task in tasks.jobs.tasks.values():
            self.jobs.task(name=task.name, executor=task.executor)(task.function)

    def fresh(self) -> None:
        """Begins with empty tables, and with connections that know nothing of the former ones."""
        self.jobs.close()
        self.conn.execute("DROP SCHEMA IF EXISTS pgjobs_bench CASCADE")
        migrations.migrate(self.url, schema=SCHEMA)
        self.conn.execute("CHECKPOINT")

    def number(self, query: str) -> float:
        """Reads one number."""
        row = self.conn.execute(query.encode()).fetchone()
        return float(row[0]) if row is not None and row[0] is not None else 0.0

    def counters(self) -> tuple[float, float, float]:
        """Bytes of WAL, commits and buffers so far, of the whole database."""
        self.conn.execute("SELECT pg_stat_clear_snapshot()")
        row = self.conn.execute(_text("bench_counters")).fetchone()
        assert row is not None  # noqa: S101 - we are in that database
        return row[0], row[1], row[2]

    @contextmanager
    def worker(self, *arguments: str) -> Generator[subprocess.Popen[bytes]]:
        """Runs a worker as a user starts it."""
        command = [sys.executable, "-m", "pgjobs", "worker", "-A", "pgjobs.bench.tasks:jobs", "--log-level", "error"]
        process = subprocess.Popen([*command, *arguments], env=os.environ | {"PGJOBS_URL": self.url})
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)

    def enqueue(self, task: str, count: int) -> None:
        """Adds many jobs."""
        self.jobs.using().enqueue_many(f"pgjobs.bench.tasks.{task}", ((i,) for i in range(count)))

    def ready(self) -> int:
        """Waits until a worker runs jobs; returns its process."""
        return int(self.jobs.enqueue("pgjobs.bench.tasks.pid").get(timeout=60))

    def close(self) -> None:
        """Leaves nothing behind."""
        self.jobs.close()
        self.conn.execute("DROP SCHEMA IF EXISTS pgjobs_bench CASCADE")
        self.conn.close()


def drain(database: Database, task: str, count: int, *, processes: int = 1, slots: int = 16) -> dict[str, float]:
    """Jobs a second until a backlog is recorded; and what a job has cost the server."""
    database.fresh()
    database.enqueue(task, count)
    before = database.counters()
    with database.worker("--processes", str(processes), "-c", str(slots)) as process:
        while database.number(RECORDED) < count:
            time.sleep(0.05)
            if process.poll() is not None:
                raise RuntimeError("the worker has ended")
    time.sleep(1.1)  # the server's statistics come a second late
    wal, commits, buffers = (now - then for now, then in zip(database.counters(), before, strict=True))
    return {
        "jobs/s": database.number(_text("bench_rate")),
        "WAL bytes/job": wal / count,
        "commits/job": commits / count,
        "buffers/job": buffers / count,
    }


def enqueue_each(database: Database, count: int) -> float:
    """Jobs a second, one by one, each in a transaction of its own."""
    database.fresh()
    noop = database.jobs.tasks[NOOP]
    noop.enqueue(0)
    started = time.perf_counter()
    for i in range(count):
        noop.enqueue(i)
    return count / (time.perf_counter() - started)


def enqueue_async(database: Database, count: int, at_once: int) -> float:
    """The same by coroutines, several at once."""
    database.fresh()
    noop = database.jobs.tasks[NOOP]

    async def produce(share: int) -> None:
        for i in range(share):
            await noop.aenqueue(i)

    async def all_of_them() -> float:
        await noop.aenqueue(0)
        started = time.perf_counter()
        await asyncio.gather(*(produce(count // at_once) for _ in range(at_once)))
        took_s = time.perf_counter() - started
        await database.jobs.aclose()
        return took_s

    return count / asyncio.run(all_of_them())


def insert_each(database: Database, count: int) -> float:
    """The floor of the same: a bare autocommit INSERT of such a row, by psycopg alone."""
    database.fresh()
    insert = _text("bench_insert")
    with psycopg.connect(database.url, autocommit=True) as conn:
        conn.execute(insert, {"task": NOOP, "args": '{"i": 0}'}, prepare=True)
        started = time.perf_counter()
        for i in range(count):
            conn.execute(insert, {"task": NOOP, "args": f'{{"i": {i}}}'}, prepare=True)
        return count / (time.perf_counter() - started)


def enqueue_bulk(database: Database, count: int) -> float:
    """Jobs a second in one transaction."""
    database.fresh()
    database.jobs.tasks[NOOP].enqueue(0)
    started = time.perf_counter()
    database.enqueue("noop", count)
    return count / (time.perf_counter() - started)


def copy_bulk(database: Database, count: int) -> float:
    """The floor of the same: a bare COPY of such rows."""
    database.fresh()
    with psycopg.connect(database.url) as conn:
        started = time.perf_counter()
        with conn.cursor() as cursor, cursor.copy(_text("bench_copy")) as stream:
            stream.write("".join(f'{NOOP}\t{{"i": {i}}}\n' for i in range(count)))
        conn.commit()
        return count / (time.perf_counter() - started)


def claim_and_complete(database: Database, count: int, batch: int = 100) -> float:
    """The floor of a drain: bare claims and completions of the same rows by one client, with no queue around them."""
    database.fresh()
    database.enqueue("noop", count)
    claim, complete = _text("bench_claim"), _text("bench_complete")
    with psycopg.connect(database.url, autocommit=True) as conn:
        conn.execute("ANALYZE pgjobs_bench.jobs")
        started = time.perf_counter()
        while rows := conn.execute(claim, {"limit": batch}, prepare=True, binary=True).fetchall():
            conn.execute(complete, {"ids": [row[0] for row in rows]}, prepare=True)
        return count / (time.perf_counter() - started)


def pick_up(database: Database, count: int, *, load: int = 0) -> list[float]:
    """Milliseconds from before ``enqueue()`` to the function's first line; load: jobs a second beside it."""
    database.fresh()
    with database.worker():
        database.ready()
        with _steadily(database.url, load):
            return [1000 * _one_pick_up(database) for _ in range(count)]


def _one_pick_up(database: Database) -> float:
    time.sleep(0.005)
    before = time.time()
    started: float = database.jobs.enqueue("pgjobs.bench.tasks.started_at").get(timeout=30)
    return started - before


def pick_up_from_commit(database: Database, count: int) -> list[float]:
    """Milliseconds from before the COMMIT of the caller's transaction to the function's first line."""
    database.fresh()
    waits: list[float] = []
    with database.worker(), psycopg.connect(database.url) as conn:
        database.ready()
        for _ in range(count):
            time.sleep(0.005)
            job = database.jobs.using(conn).enqueue("pgjobs.bench.tasks.started_at")
            before = time.time()
            conn.commit()
            waits.append(1000 * (database.jobs.job(job.id).get(timeout=30) - before))
    return waits


def round_trip(database: Database, count: int) -> list[float]:
    """Milliseconds from before ``enqueue()`` until ``get()`` has the result."""
    database.fresh()
    waits: list[float] = []
    with database.worker():
        database.ready()
        for _ in range(count):
            time.sleep(0.005)
            before = time.perf_counter()
            database.jobs.enqueue(NOOP, 1).get(timeout=30)
            waits.append(1000 * (time.perf_counter() - before))
    return waits


def scheduled(database: Database, count: int) -> list[float]:
    """Milliseconds that jobs start late which are due at instants of their own, within four seconds."""
    database.fresh()
    with database.worker():
        database.ready()
        first = time.time() + 1.0
        ids: list[UUID] = []
        for i in range(count):
            due = first + 4.0 * i / count
            at = datetime.fromtimestamp(due, UTC)
            ids.append(database.jobs.using(run_at=at).enqueue("pgjobs.bench.tasks.lateness", due).id)
        return [1000 * job.result for job in database.jobs.wait(ids, timeout=60)]


def together(database: Database, rate: int, seconds: float) -> list[float]:
    """Milliseconds from the row to its recorded end, while jobs come at a steady rate."""
    database.fresh()
    with database.worker():
        database.ready()
        with _steadily(database.url, rate):
            time.sleep(seconds)
        deadline = time.monotonic() + 60
        while database.number(LEFT) and time.monotonic() < deadline:
            time.sleep(0.05)
    return [row[0] for row in database.conn.execute(_text("bench_waits"), {"task": NOOP})]


@contextmanager
def _steadily(url: str, rate: int) -> Generator[None]:
    """Enqueues no-ops one by one from a process of its own, at so many a second."""
    if not rate:
        yield
        return
    code = (
        "import sys, time\n"
        "from pgjobs.bench.tasks import noop\n"
        "rate = int(sys.argv[1]); start = time.perf_counter(); i = 0\n"
        "while True:\n"
        "    noop.enqueue(i); i += 1\n"
        "    time.sleep(max(0.0, start + i / rate - time.perf_counter()))\n"
    )
    producer = subprocess.Popen([sys.executable, "-c", code, str(rate)], env=os.environ | {"PGJOBS_URL": url})
    try:
        time.sleep(1.0)
        yield
    finally:
        producer.kill()
        producer.wait()


def memory(database: Database, count: int) -> dict[str, float]:
    """Megabytes that the supervisor and its child take after a drain."""
    database.fresh()
    with database.worker() as process:
        child = database.ready()
        database.enqueue("noop", count)
        while database.number(LEFT):
            time.sleep(0.1)
        return {"supervisor MB": megabytes(process.pid), "child MB": megabytes(child)}


def megabytes(pid: int) -> float:
    """The memory that a process takes."""
    return (identity.rss_bytes(pid) or 0) / (1 << 20) if Path("/proc").exists() else 0.0


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """The middle and the tails."""
    cuts = statistics.quantiles(values, n=100)
    return {"p50": cuts[49], "p95": cuts[94], "p99": cuts[98], "max": max(values)}


def shape(database: Database) -> dict[str, Any]:
    """The machine and the server, as a report must say them."""
    return machine(database.conn)


def machine(conn: psycopg.Connection[Any]) -> dict[str, Any]:
    """The machine, and the server of a connection."""
    import platform

    server = conn.execute("SELECT version()").fetchone()
    settings = conn.execute(_text("bench_settings")).fetchall()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "server": "" if server is None else server[0].split(",")[0],
        "settings": dict(settings),
    }


def _text(name: str) -> LiteralString:
    return QUERIES[name].text(SCHEMA)
