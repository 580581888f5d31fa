"""A proxy between a worker and its server that cuts connections around a commit."""

from __future__ import annotations

import contextlib
import re
import selectors
import socket
import threading
from typing import Any, Literal

Moment = Literal["before", "after"]


class Proxy:
    """Passes bytes on to a PostgreSQL server; on demand it cuts a connection that commits.

    ``before``: the commit never reaches the server, which rolls back. ``after``: the server has committed, and the
    reply never reaches the client.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._moment: Moment = "before"
        self._left = 0
        self.cuts = 0
        self._closed = False
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, moment: Moment, times: int) -> None:
        """Cuts the connections of the next commits."""
        with self._lock:
            self._moment, self._left = moment, times

    def _due(self, data: bytes, prepared: set[bytes]) -> Moment | None:
        prepared.update(name for name in re.findall(rb"P....([^\0]*)\0COMMIT\0", data, re.DOTALL) if name)
        commits = b"COMMIT\0" in data or any(b"\0" + name + b"\0" in data for name in prepared)
        with self._lock:
            if not self._left or not commits:
                return None
            self._left -= 1
            self.cuts += 1
            return self._moment

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client, socket.create_connection(self._target) as server:
            prepared: set[bytes] = set()
            doomed = False
            selector = selectors.DefaultSelector()
            selector.register(client, selectors.EVENT_READ, server)
            selector.register(server, selectors.EVENT_READ, client)
            while True:
                for key, _ in selector.select():
                    source: Any = key.fileobj
                    data = source.recv(1 << 16)
                    if not data:
                        return
                    if doomed and source is server and b"COMMIT\0" in data:
                        return
                    moment = self._due(data, prepared) if source is client else None
                    if moment == "before":
                        return
                    doomed = doomed or moment == "after"
                    key.data.sendall(data)

    def close(self) -> None:
        """Takes no more connections."""
        self._closed = True
        self._listener.close()
