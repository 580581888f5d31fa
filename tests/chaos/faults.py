"""The faults. Each is injected under load, lasts, and is over when its function returns."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Final

import psycopg

from tests import clock
from tests.chaos.scene import Scene, Worker

DEATH_S: Final = 16.0
"""Longer than a worker that stands still is believed to live."""

BACK_S: Final = 5.0


@dataclass(frozen=True)
class Fault:
    """A kind of fault, how often it comes among a million jobs, and whether it keeps workers from the database."""

    name: str
    what: str
    in_a_million: int
    inject: Callable[[Scene], None]
    isolates: bool = False


def _any(scene: Scene) -> Worker:
    return scene.rng.choice(scene.workers)


def _kill(scene: Scene, pid: int) -> None:
    scene.killed[pid] = time.monotonic()
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def kill_child(scene: Scene) -> None:
    """SIGKILL of a process in which jobs run."""
    children = _any(scene).process.children()
    if children:
        _kill(scene, scene.rng.choice(children))
    time.sleep(scene.rng.uniform(0.2, 1.0))


def kill_supervisor(scene: Scene) -> None:
    """SIGKILL of a supervisor: its children leave by themselves, and somebody starts it again."""
    worker = _any(scene)
    children = worker.process.children()
    _kill(scene, worker.process.popen.pid)
    worker.process.leave()
    time.sleep(scene.rng.uniform(0.0, 0.5))
    _start_again(scene, worker)
    for pid in children:
        scene.killed.setdefault(pid, time.monotonic())


def kill_worker(scene: Scene) -> None:
    """SIGKILL of a supervisor with all its children, as when a container is taken away."""
    worker = _any(scene)
    for pid in worker.process.children():
        _kill(scene, pid)
    with suppress(ProcessLookupError):
        os.killpg(worker.process.popen.pid, signal.SIGKILL)
    worker.process.leave()
    time.sleep(scene.rng.uniform(0.0, 3.0))
    _start_again(scene, worker)


def pause_past_death(scene: Scene) -> None:
    """SIGSTOP of a worker, parent and all, until it is believed dead; then SIGCONT."""
    worker = _any(scene)
    pids = [*worker.process.children(), worker.process.popen.pid]
    scene.excused.update(_names(worker))
    worker.stopped = pids
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(DEATH_S)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    worker.stopped = []
    time.sleep(1)


def pause(scene: Scene) -> None:
    """SIGSTOP for less than that: nobody may be believed dead."""
    worker = _any(scene)
    worker.stopped = [*worker.process.children(), worker.process.popen.pid]
    for pid in worker.stopped:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(scene.rng.uniform(0.5, 4.0))
    for pid in worker.stopped:
        os.kill(pid, signal.SIGCONT)
    worker.stopped = []


def restart_politely(scene: Scene) -> None:
    """SIGTERM, as a deployment sends it."""
    _start_anew(scene, _any(scene), {})


def crash_server(scene: Scene) -> None:
    """An immediate stop of PostgreSQL, and its start, through crash recovery."""
    scene.server.stop("immediate")
    time.sleep(scene.rng.uniform(0.1, 1.5))
    scene.server.start()
    _await_work(scene)


def terminate_backends(scene: Scene) -> None:
    """pg_terminate_backend of one kind of connection, every one of it."""
    kinds = ["pgjobs worker", "pgjobs upkeep", "pgjobs listener", "pgjobs supervisor", "pgjobs"]
    with scene.connect() as conn:
        conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s",
            [scene.rng.choice(kinds)],
        )
    time.sleep(0.3)


def exhaust_connections(scene: Scene) -> None:
    """Every connection that the server allows is taken, and workers lose theirs."""
    with ExitStack() as stack, suppress(psycopg.OperationalError):
        own = stack.enter_context(scene.connect())
        own.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'pgjobs%'")
        for _ in range(100):
            stack.enter_context(psycopg.connect(scene.url, connect_timeout=5))
    with ExitStack() as stack:
        with suppress(psycopg.OperationalError):
            for _ in range(100):
                stack.enter_context(psycopg.connect(scene.url, connect_timeout=5))
        time.sleep(2)


def partition(scene: Scene) -> None:
    """The network swallows all that a worker sends and is sent, for a while; then its connections are dead."""
    worker = _any(scene)
    worker.proxy.swallow()
    time.sleep(scene.rng.uniform(0.5, 4.0))
    worker.proxy.heal()
    time.sleep(0.5)


def reset(scene: Scene) -> None:
    """Every connection of a worker is reset."""
    _any(scene).proxy.reset()
    time.sleep(scene.rng.uniform(0.1, 0.5))


def cut_commits(scene: Scene) -> None:
    """Connections are cut before a commit, in the middle of it, or after it, when only the reply is lost."""
    proxy = _any(scene).proxy
    proxy.cut(scene.rng.choice(["before", "inside", "after"]), scene.rng.randint(1, 6))
    time.sleep(1)
    proxy.cut("before", 0)


def slow_network(scene: Scene) -> None:
    """Every piece of data is held back, or comes byte by byte."""
    proxy = _any(scene).proxy
    if scene.rng.random() < 0.5:
        proxy.delay_s = scene.rng.uniform(0.01, 0.2)
    else:
        proxy.byte_by_byte = True
    time.sleep(2)
    proxy.delay_s, proxy.byte_by_byte = 0.0, False


def deafen(scene: Scene) -> None:
    """The LISTEN connections of a worker are swallowed, and nothing else; half of them never break by themselves."""
    proxy = _any(scene).ear
    proxy.swallow()
    time.sleep(scene.rng.uniform(0.5, 4.0))
    if scene.rng.random() < 0.5:
        proxy.heal()
    else:
        proxy.relent()


def set_clock_wrong(scene: Scene) -> None:
    """A worker works with a clock that is an hour ahead, or behind."""
    worker = _any(scene)
    _start_anew(scene, worker, clock.wrong_by(scene.rng.choice([-3600, 3600])))
    time.sleep(scene.rng.uniform(2.0, 4.0))
    _start_anew(scene, worker, {})


def conflicts(scene: Scene) -> None:
    """Every third write to jobs fails with a serialization failure or a deadlock."""
    with scene.connect() as conn:
        conn.execute("""
            CREATE OR REPLACE FUNCTION chaos.conflict() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                IF random() < 0.3 THEN
                    RAISE EXCEPTION 'injected'
                        USING ERRCODE = (ARRAY['40001', '40P01', '55P03'])[1 + floor(random() * 3)];
                END IF;
                RETURN NULL;
            END $$;
            SET lock_timeout = '2s';
            CREATE OR REPLACE TRIGGER conflict BEFORE UPDATE ON pgjobs.jobs EXECUTE FUNCTION chaos.conflict()
        """)
        time.sleep(1.5)
        while True:
            with suppress(psycopg.errors.LockNotAvailable):
                conn.execute("DROP TRIGGER conflict ON pgjobs.jobs")
                return


def hold_rows(scene: Scene) -> None:
    """An application locks jobs, running ones and queued ones, for a while."""
    with psycopg.connect(scene.url) as conn:
        conn.execute("""
            SELECT FROM pgjobs.jobs
             WHERE id IN (SELECT unnest(job_ids) FROM pgjobs.claims LIMIT 500)
                OR position IN (SELECT position FROM pgjobs.jobs WHERE position IS NOT NULL LIMIT 500)
               FOR UPDATE SKIP LOCKED
        """)
        time.sleep(scene.rng.uniform(0.5, 2.0))
        conn.rollback()


FAULTS: Final = (
    Fault("kill a child", "SIGKILL of a worker process", 130, kill_child),
    Fault("kill a supervisor", "SIGKILL of the parent alone", 35, kill_supervisor),
    Fault("kill a worker", "SIGKILL of parent and children", 45, kill_worker),
    Fault("pause past death", "SIGSTOP until believed dead, SIGCONT", 5, pause_past_death),
    Fault("pause", "SIGSTOP for up to 4 s", 20, pause, isolates=True),
    Fault("deploy", "SIGTERM and a new start", 15, restart_politely),
    Fault("crash the server", "immediate stop and start of PostgreSQL", 50, crash_server, isolates=True),
    Fault("terminate backends", "pg_terminate_backend of one kind", 30, terminate_backends),
    Fault("exhaust connections", "max_connections reached, 2 s", 10, exhaust_connections, isolates=True),
    Fault("partition", "a black hole for up to 4 s", 50, partition, isolates=True),
    Fault("reset", "every connection of a worker reset", 30, reset, isolates=True),
    Fault("cut commits", "connections cut before, inside, after COMMIT", 60, cut_commits, isolates=True),
    Fault("slow network", "delays of up to 0.2 s, or byte by byte", 15, slow_network, isolates=True),
    Fault("deaf listener", "the LISTEN connections of a worker swallowed", 20, deafen),
    Fault("wrong clock", "a worker's clock an hour ahead or behind", 20, set_clock_wrong),
    Fault("conflicts", "40001, 40P01 and 55P03 from a third of the writes", 20, conflicts),
    Fault("hold rows", "an application's locks on jobs, up to 2 s", 25, hold_rows),
)


def _start_again(scene: Scene, worker: Worker, **more: str) -> None:
    worker.process = worker.start(more)
    worker.process.ready()


def _start_anew(scene: Scene, worker: Worker, more: dict[str, str]) -> None:
    """Has a worker leave, and starts it again with this in its environment."""
    worker.process.signal(signal.SIGTERM)
    code = worker.process.leave(60)
    if code != 0:
        scene.trouble.append(f"SIGTERM: exit code {code}")
    _start_again(scene, worker, **more)


def _names(worker: Worker) -> list[str]:
    return [f"{os.uname().nodename}:{worker.process.popen.pid}."]


def _await_work(scene: Scene) -> None:
    """Notes how long after the server's start the workers claimed again."""
    started = time.monotonic()
    with scene.connect() as conn:
        row = conn.execute("SELECT now()").fetchone()
        assert row is not None
        while time.monotonic() - started < 30:
            again, work = conn.execute(
                "SELECT EXISTS (SELECT FROM pgjobs.claims WHERE claimed_at > %s),"
                "       EXISTS (SELECT FROM pgjobs.jobs WHERE position IS NOT NULL)",
                row,
            ).fetchone() or (False, False)
            if not work and not again:
                return
            if again:
                break
            time.sleep(0.02)
    scene.back_s.append(time.monotonic() - started)
