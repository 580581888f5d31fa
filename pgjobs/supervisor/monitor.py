"""What a worker's supervisor says of itself by HTTP: ``/live``, ``/ready`` and ``/metrics``."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID

from pgjobs import statements
from pgjobs.connections.database import Database
from pgjobs.connections.link import Link
from pgjobs.errors import ConfigurationError
from pgjobs.events import Event
from pgjobs.supervisor.health import Health
from pgjobs.supervisor.metrics import CONTENT_TYPE, Metrics, QueueGauge
from pgjobs.worker.service import Outage, Service

LOOPBACK: Final = "127.0.0.1"
TURN_S: Final = 10.0
"""A supervisor whose loop has not turned for so long is stuck; it turns four times a second."""

MEASURE: Final = "measure"
MEASURE_S: Final = 5.0
STALE_S: Final = 30.0
"""Gauges of queues that are older than this are not shown."""


def address(text: str, option: str = "--http") -> tuple[str, int]:
    """Host and port of ``PORT``, ``HOST:PORT`` or ``[HOST]:PORT``; without a host, this machine's own.

    Raises:
        ConfigurationError: it is none of these.
    """
    host, _, port = text.rpartition(":")
    if not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise ConfigurationError(f"{option} is {text!r}; write PORT or HOST:PORT, as in 127.0.0.1:9464")
    return host.strip("[]") or LOOPBACK, int(port)


class Monitor:
    """Answers on threads of its own. What it says was noted by the supervisor's loop, which waits for nobody here.

    Args:
        where: PORT or HOST:PORT.
        still_s: how long a process may stand still before its supervisor should have replaced it.

    Raises:
        ConfigurationError: nobody can listen there.
    """

    def __init__(self, where: str, still_s: float, emit: Callable[[Event], None]) -> None:
        self.metrics = Metrics()
        self._still_s = still_s
        self._emit = emit
        self._gauges: QueueGauges | None = None
        self.health = Health(time.monotonic(), [], False, float("-inf"))
        host, port = address(where)
        try:
            self._server = _Server((host, port), partial(_Handler, self))
        except OSError as error:
            raise ConfigurationError(
                f"nobody can listen at --http {where} ({error.strerror or error}); give another address"
            ) from None
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="pgjobs-http", daemon=True)

    @property
    def url(self) -> str:
        """Where it answers."""
        host, port = self._server.server_address[:2]
        return f"http://[{host!s}]:{port}" if ":" in str(host) else f"http://{host!s}:{port}"

    def start(self) -> None:
        """Answers from now on."""
        self._thread.start()

    def measure(self, database: Database, holder: UUID) -> None:
        """Says which database the queues are in."""
        self._gauges = QueueGauges(database, holder, self._emit)
        self._gauges.start()

    def close(self) -> None:
        """Answers no more."""
        if self._thread.ident is not None:
            self._server.shutdown()
        self._server.server_close()
        if self._gauges is not None:
            self._gauges.stop()

    # -- the answers

    def live(self) -> tuple[bool, dict[str, Any]]:
        """Whether the loop turns, and no process stands still that should have been replaced."""
        health = self.health
        turned_s = time.monotonic() - health.turned_at
        still = [process for process in health.processes if process.still_s > self._still_s + TURN_S]
        return turned_s < TURN_S and not still, {
            "turned_s": round(turned_s, 3), "processes": [asdict(each) for each in health.processes],
        }  # fmt: skip

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether a process claims jobs, the database is within reach, and nobody has asked to stop."""
        health = self.health
        ready = sum(process.ready for process in health.processes)
        facts = {"database": health.reaches_database, "processes": ready, "stopping": health.stopping}
        return bool(ready and health.reaches_database and not health.stopping), facts

    def text(self) -> str:
        """The metrics."""
        health = self.health
        return self.metrics.text(
            processes=len(health.processes),
            ready=sum(process.ready for process in health.processes),
            reachable=health.reaches_database,
            queues=self._gauges.read() if self._gauges is not None else [],
        )


class QueueGauges:
    """How the queues stand, measured once in five seconds for the whole fleet, and never where nobody asks.

    Whoever is asked first takes the duty's row and leaves in it what it found; the others read that. So all workers say
    the same, of which a query takes the ``max``, and no lease is ever with one that nobody scrapes or that has just
    died. The row is made by the first one: an old release knows no such duty, and leaves it alone.
    """

    def __init__(self, database: Database, holder: UUID, emit: Callable[[Event], None]) -> None:
        self._link = Link(database, "pgjobs gauges")
        self._holder = holder
        self._rows: list[QueueGauge] = []
        self._read_at = float("-inf")
        self._asked = False
        self._fresh = threading.Event()
        quiet = Outage(lambda event: None)  # the heartbeat says when the database is away
        self._service = Service("gauges", self._tick, quiet, emit, close=self._link.close)

    def start(self) -> None:
        """Starts the thread that asks the database, so that a scrape never waits for it."""
        self._service.start()

    def stop(self) -> None:
        """Stops it."""
        self._service.stop()

    def read(self, patience_s: float = 1.0) -> list[QueueGauge]:
        """The gauges, fresh if that takes no longer than patience_s; none that are too old."""
        if time.monotonic() - self._read_at > MEASURE_S:
            self._fresh.clear()
            self._asked = True
            self._service.wake()
            self._fresh.wait(patience_s)
        return self._rows if time.monotonic() - self._read_at < STALE_S else []

    def _tick(self) -> float:
        if self._asked:
            self._asked = False
            rows = self._take_or_read()
            if rows is None:
                self._link.one(statements.add_duty(MEASURE, MEASURE_S))
                rows = self._take_or_read()
            self._rows = rows or []
            self._read_at = time.monotonic()
            self._fresh.set()
        return 3600.0

    def _take_or_read(self) -> list[QueueGauge] | None:
        """Measures if that is due, else reads what was measured; None where there is no such duty."""
        self._link.begin()
        duty = self._link.step(statements.take_duty([MEASURE], self._holder))
        if duty is None:
            self._link.commit()
            return _gauges(self._link.one(statements.duty_state(MEASURE)))
        rows = [(*row[:4], row[9]) for row in self._link.step(statements.queue_stats())]
        self._link.step(statements.leave_duty(MEASURE, json.dumps(rows), again=False))
        self._link.commit()
        return _gauges(rows)


def _gauges(rows: Sequence[Sequence[Any]] | None) -> list[QueueGauge] | None:
    return None if rows is None else [QueueGauge(*row) for row in rows]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, where: tuple[str, int], handler: Any) -> None:
        self.address_family = socket.AF_INET6 if ":" in where[0] else socket.AF_INET
        super().__init__(where, handler)

    def server_bind(self) -> None:
        """Binds, and looks no host name up."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever hangs up is no news."""


class _Handler(BaseHTTPRequestHandler):
    timeout = 5.0
    server_version = "pgjobs"
    sys_version = ""

    def __init__(self, monitor: Monitor, *arguments: Any) -> None:
        self._monitor = monitor
        super().__init__(*arguments)

    def do_GET(self) -> None:
        match urlsplit(self.path).path:
            case "/live":
                self._say(*self._monitor.live())
            case "/ready":
                self._say(*self._monitor.ready())
            case "/metrics":
                self._answer(200, CONTENT_TYPE, self._monitor.text())
            case _:
                self._answer(404, "text/plain", "there are /live, /ready and /metrics\n")

    do_HEAD = do_GET

    def _say(self, good: bool, facts: dict[str, Any]) -> None:
        self._answer(200 if good else 503, "application/json", json.dumps({"ok": good, **facts}) + "\n")

    def _answer(self, code: int, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Requests are not logged."""
