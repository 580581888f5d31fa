"""Hears notifications on one connection of its own. They are hints: everything works, slower, without them.

Through a pooler in transaction mode none arrive. That is found out at the start, by sending one.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterable
from typing import Any, Final

import psycopg
from psycopg import sql

from pgjobs.connections.database import Database
from pgjobs.connections.link import Link
from pgjobs.job import new_id

QUIET_S: Final = 10.0
"""After so much silence the connection is asked whether it still lives."""

ANSWER_S: Final = 5.0
"""How long the answer may take."""

TRIAL_S: Final = 2.0
"""How long a pooler may take to pass on a notification; it is tried again after a minute."""

AGAIN_S: Final = 60.0


class Listener:
    """LISTENs on a channel. ``tick`` waits for notifications and passes their payloads on.

    Args:
        heard: called with each payload.
        deaf: called after the connection has been made anew: what was notified meanwhile has been missed.
        unheard: called when it is found that notifications don't arrive.

    Attributes:
        hears: whether notifications arrive, as far as is known.
    """

    def __init__(
        self,
        database: Database,
        channel: str,
        heard: Callable[[str], None],
        deaf: Callable[[], None],
        name: str = "pgjobs listener",
        *,
        unheard: Callable[[], None] = lambda: None,
    ) -> None:
        self.hears = True
        self._database = database
        self._link = Link(database, name)
        self._listen = sql.SQL("LISTEN {}").format(sql.Identifier(channel))
        self._heard = heard
        self._deaf = deaf
        self._unheard = unheard
        self._conn: psycopg.Connection[tuple[object, ...]] | None = None
        self._bell, self._ear = socket.socketpair()
        self._quiet_since = 0.0
        self._again_at = 0.0

    def tick(self) -> float:
        """Waits for notifications, at most a few seconds."""
        conn = self._listening()
        readable = _readable([self._ear] if conn is None else [self._ear, conn], QUIET_S)
        if self._ear in readable:
            self._ear.recv(4096)
        if conn is None:
            return 0.0
        if conn in readable:
            for notification in conn.notifies(timeout=0):
                self._heard(notification.payload)
            self._quiet_since = time.monotonic()
        elif time.monotonic() - self._quiet_since >= QUIET_S:
            with _answering(conn):
                conn.execute("SELECT 1")
            self._quiet_since = time.monotonic()
        return 0.0

    def _listening(self) -> psycopg.Connection[tuple[object, ...]] | None:
        """The connection; None where a pooler keeps notifications back, until it is worth another try."""
        if time.monotonic() < self._again_at:
            return None
        conn = self._link.conn
        if conn is not self._conn:
            if self._database.pooled and not self._arrives(conn):
                self._link.close()
                self._again_at = time.monotonic() + AGAIN_S
                if self.hears:
                    self.hears = False
                    self._unheard()
                return None
            with _answering(conn):
                conn.execute(self._listen)
            self.hears = True
            self._conn = conn
            self._quiet_since = time.monotonic()
            self._deaf()
        return conn

    def _arrives(self, conn: psycopg.Connection[tuple[object, ...]]) -> bool:
        with contextlib.closing(self._database.connect("pgjobs listener")) as other:
            return arrives(conn, other)

    def recovered(self) -> None:
        """Drops a connection that failed."""
        self._link.close()

    def wake(self) -> None:
        """Ends the wait; from any thread."""
        with contextlib.suppress(OSError):
            self._bell.send(b"\0")

    def close(self) -> None:
        """Closes the connection."""
        self._link.close()
        self._bell.close()
        self._ear.close()


def _readable(sources: Iterable[Any], timeout_s: float) -> list[Any]:
    """Waits until one can be read. ``select`` would refuse descriptors from 1024 on, which a busy server reaches."""
    with selectors.DefaultSelector() as selector:
        for source in sources:
            selector.register(source, selectors.EVENT_READ)
        return [key.fileobj for key, _ in selector.select(timeout_s)]


def arrives(ear: psycopg.Connection[Any], mouth: psycopg.Connection[Any]) -> bool:
    """Whether what one connection notifies is heard on another, both in autocommit; on a channel of its own."""
    channel = f"pgjobs.trial.{new_id().hex}"
    ear.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
    mouth.execute("SELECT pg_notify(%s, '')", [channel])
    heard = any(True for _ in ear.notifies(timeout=TRIAL_S, stop_after=1))
    ear.execute(sql.SQL("UNLISTEN {}").format(sql.Identifier(channel)))
    return heard


@contextlib.contextmanager
def _answering(conn: psycopg.Connection[tuple[object, ...]]) -> Generator[None]:
    """Hangs up where no answer comes: what sits between may take all and give nothing back, and TCP sees no fault."""
    with socket.socket(fileno=os.dup(conn.fileno())) as own:
        timer = threading.Timer(ANSWER_S, _hang_up, [own])
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()


def _hang_up(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
