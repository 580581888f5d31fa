"""Has a signal come between any two lines in which a worker's thread waits or wakes: ``python -m … worker|child``.

A process of its own: on CPython 3.11 a traced thread spins where an exception waits for another thread, as tests leave
them behind.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import psycopg

from pgjobs import PgJobs
from pgjobs.supervisor.child import Child
from pgjobs.worker import bell
from pgjobs.worker.board import Board
from pgjobs.worker.runtime import Worker


def ends(call: Callable[[], object], handler: Callable[[], object]) -> bool:
    """Whether a call comes to its end where the handler runs before each of those lines, on the same thread."""

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line" and frame.f_code.co_filename in (threading.__file__, bell.__file__):
            handler()
        return trace

    def main() -> None:
        sys.settrace(trace)
        call()

    thread = threading.Thread(target=main, daemon=True)
    thread.start()
    thread.join(10)
    return not thread.is_alive()


def worker_is_told(worker: Worker) -> bool:
    """While it waits for its jobs."""

    def work() -> None:
        for _ in range(100):
            worker.await_change(0.001)
            worker.changed()

    return ends(work, worker.request_stop) and worker.is_stopping


def child_is_told(worker: Worker) -> bool:
    """While it waits for its database."""
    child = Child(socket.socketpair()[0], Board(1), {"http": None, "statsd": None, "wait_for_db": True})
    child._worker = worker
    tried: list[bool] = []

    def start() -> None:
        tried.append(True)
        raise psycopg.OperationalError("connection refused")

    def signalled() -> None:
        if tried:
            child._asked_to_stop(signal.SIGTERM, None)

    worker.start = start  # type: ignore[method-assign]
    return ends(lambda: child._start(worker), signalled) and len(tried) == 1


if __name__ == "__main__":
    told = {"worker": worker_is_told, "child": child_is_told}[sys.argv[1]]
    os._exit(not told(PgJobs("postgresql://nobody@127.0.0.1:1/none").worker()))
