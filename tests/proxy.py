"""A proxy between pgjobs and its server that does what networks do: it delays, splits, swallows, resets, and cuts."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
import threading
from collections.abc import Callable
from typing import Literal

Moment = Literal["before", "after", "inside"]


class Proxy:
    """Passes bytes on to a PostgreSQL server, on a thread of its own.

    Args:
        host: a name, or the directory of a Unix socket.

    Attributes:
        delay_s: how long every piece of data is held back.
        byte_by_byte: data is passed on a byte at a time.
        cuts: how many connections ``cut`` has cut.
    """

    def __init__(self, host: str, port: int) -> None:
        self.delay_s = 0.0
        self.byte_by_byte = False
        self.cuts = 0
        self._target = (host, port)
        self._hole = False
        self._lock = threading.Lock()
        self._moment: Moment = "before"
        self._left = 0
        self._pairs: set[_Pair] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=500)
        self.port: int = self._listener.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()

    # -- what a test asks for, from any thread

    def cut(self, moment: Moment, times: int) -> None:
        """Cuts the connections of the next commits.

        ``before``: the commit never reaches the server, which rolls back. ``after``: the server has committed, and the
        reply never reaches the client. ``inside``: half of the client's message reaches the server.
        """
        with self._lock:
            self._moment, self._left = moment, times

    def swallow(self) -> None:
        """Becomes a black hole: connections stay open, and nothing comes out of them; new ones are taken."""
        self._hole = True

    def heal(self) -> None:
        """Passes data on again, at once and whole; what was swallowed has broken its connections."""
        self.relent()
        self.byte_by_byte = False
        self.delay_s = 0.0
        self._soon(lambda: self._abort(only_swallowed=True))

    def relent(self) -> None:
        """Serves new connections again; those of which it has swallowed something stay open and dead."""
        self._hole = False

    @property
    def living(self) -> int:
        """How many connections are open of which nothing has been swallowed."""
        return sum(pair.server is not None and not pair.swallowed for pair in list(self._pairs))

    @property
    def dead(self) -> int:
        """How many connections are open of which something has been swallowed."""
        return sum(pair.swallowed for pair in list(self._pairs))

    def reset(self) -> None:
        """Resets every connection there is."""
        self._soon(lambda: self._abort(only_swallowed=False))

    def close(self) -> None:
        """Ends, and all connections with it."""
        self._soon(lambda: self._abort(only_swallowed=False))
        self._soon(self._loop.stop)
        self._thread.join(5)
        self._listener.close()

    # -- on its thread

    def _soon(self, call: Callable[[], object]) -> None:
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, sock=self._listener))
        self._loop.run_forever()
        server.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    def _abort(self, *, only_swallowed: bool) -> None:
        for pair in list(self._pairs):
            if pair.swallowed or not only_swallowed:
                pair.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pair = _Pair(writer)
        self._pairs.add(pair)
        try:
            theirs, server = await self._connect()
            pair.server = server
            await asyncio.gather(
                self._pump(pair, reader, server, upward=True), self._pump(pair, theirs, writer, upward=False)
            )
        except (OSError, _CutError):
            pass
        finally:
            pair.abort()
            self._pairs.discard(pair)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, port = self._target
        if host.startswith("/"):
            return await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        return await asyncio.open_connection(host, port)

    async def _pump(
        self, pair: _Pair, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, upward: bool
    ) -> None:
        while data := await source.read(1 << 16):
            if self._hole:
                pair.swallowed = True
            if pair.swallowed:
                continue
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            if upward and (moment := self._due(pair, data)):
                if moment == "inside":
                    sink.write(data[: len(data) // 2])
                    await sink.drain()
                if moment != "after":
                    raise _CutError
                pair.doomed = True
            if pair.doomed and not upward and b"COMMIT\0" in data:
                raise _CutError
            for piece in (data[i : i + 1] for i in range(len(data))) if self.byte_by_byte else (data,):
                sink.write(piece)
                await sink.drain()
        raise _CutError

    def _due(self, pair: _Pair, data: bytes) -> Moment | None:
        pair.prepared.update(name for name in re.findall(rb"P....([^\0]*)\0COMMIT\0", data, re.DOTALL) if name)
        commits = b"COMMIT\0" in data or any(b"\0" + name + b"\0" in data for name in pair.prepared)
        with self._lock:
            if not self._left or not commits:
                return None
            self._left -= 1
            self.cuts += 1
            return self._moment


class _CutError(Exception):
    """Ends both directions of a connection."""


class _Pair:
    """One connection: the client's side and the server's."""

    def __init__(self, client: asyncio.StreamWriter) -> None:
        self.client = client
        self.server: asyncio.StreamWriter | None = None
        self.prepared: set[bytes] = set()
        self.doomed = False
        self.swallowed = False

    def abort(self) -> None:
        """Resets both sides."""
        for side in (self.client, self.server):
            if side is not None and not side.transport.is_closing():
                sock = side.get_extra_info("socket")
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                side.transport.abort()
