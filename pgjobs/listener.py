"""Hears notifications on one connection of its own. They are hints: everything works, slower, without them."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Callable
from typing import Final

import psycopg
from psycopg import sql

from pgjobs.database import Database
from pgjobs.link import Link

QUIET_S: Final = 10.0
"""After so much silence the connection is asked whether it still lives."""


class Listener:
    """LISTENs on a channel. ``tick`` waits for notifications and passes their payloads on.

    Args:
        heard: called with each payload.
        deaf: called after the connection has been made anew: what was notified meanwhile has been missed.
    """

    def __init__(
        self,
        database: Database,
        channel: str,
        heard: Callable[[str], None],
        deaf: Callable[[], None],
        name: str = "pgjobs listener",
    ) -> None:
        self._link = Link(database, name)
        self._listen = sql.SQL("LISTEN {}").format(sql.Identifier(channel))
        self._heard = heard
        self._deaf = deaf
        self._conn: psycopg.Connection[tuple[object, ...]] | None = None
        self._bell, self._ear = socket.socketpair()
        self._quiet_since = 0.0

    def tick(self) -> float:
        """Waits for notifications, at most a few seconds."""
        conn = self._listening()
        readable, _, _ = select.select([conn.fileno(), self._ear.fileno()], [], [], QUIET_S)
        if self._ear.fileno() in readable:
            self._ear.recv(4096)
        if conn.fileno() in readable:
            for notification in conn.notifies(timeout=0):
                self._heard(notification.payload)
            self._quiet_since = time.monotonic()
        elif time.monotonic() - self._quiet_since >= QUIET_S:
            conn.execute("SELECT 1")
            self._quiet_since = time.monotonic()
        return 0.0

    def _listening(self) -> psycopg.Connection[tuple[object, ...]]:
        conn = self._link.conn
        if conn is not self._conn:
            conn.execute(self._listen)
            self._conn = conn
            self._quiet_since = time.monotonic()
            self._deaf()
        return conn

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
