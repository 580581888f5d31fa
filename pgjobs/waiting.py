"""Waits for jobs to end: a process hears of all of them on one connection, however many threads and coroutines wait."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable
from typing import Final
from uuid import UUID

from pgjobs import statements
from pgjobs.connections.database import Database
from pgjobs.connections.link import Link
from pgjobs.connections.listener import Listener
from pgjobs.job import new_id

RENEW_S: Final = 10.0
"""How often the process says that somebody waits in it; after 30 s without that it is told nothing."""

STALE_S: Final = 25.0
"""From this age on the row may be overlooked: 30 s, by the database's clock, are the end."""

IDLE_S: Final = 30.0
"""When nobody has waited for so long, the connection is closed."""

RETRY_S: Final = 1.0

Wake = Callable[[str], None]
"""Called with the name of a job, its id in hex, or with none, where any may have ended."""


class Waiting:
    """Who waits for which jobs in this process. The connection is opened for the first and closed after the last.

    It is only the speed: whoever waits reads the table again now and then, heard of or not.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._ear: _Ear | None = None
        self._pid = 0

    @contextlib.contextmanager
    def expect(self, ids: Iterable[UUID], wake: Wake) -> Generator[_Ear]:
        """Has ``wake`` called, on another thread, when one of the jobs may have ended, as long as the block runs."""
        names = [job_id.hex for job_id in ids]
        with self._lock:
            if self._ear is None or self._pid != os.getpid() or not self._ear.add(names, wake):
                self._ear, self._pid = _Ear(self._database), os.getpid()
                self._ear.add(names, wake)
                self._ear.start()
            ear = self._ear
        try:
            yield ear
        finally:
            ear.remove(names, wake)

    @property
    def hears(self) -> bool:
        """Whether ends of jobs are heard at present: somebody waits in this process, or did a moment ago."""
        ear = self._ear
        return ear is not None and self._pid == os.getpid() and ear.heard_for_s is not None

    def close(self) -> None:
        """Closes the connection."""
        with self._lock:
            ear, self._ear = self._ear, None
        if ear is not None and self._pid == os.getpid():
            ear.close()


class _Ear:
    """A thread with the connection, on a channel of its own whose name stands in ``pgjobs.waiters``."""

    def __init__(self, database: Database) -> None:
        self._heard_since: float | None = None
        self._written_at = float("-inf")
        self._channel = f"pgjobs.done.{new_id().hex}"  # a channel has 63 characters, and a schema may have as many
        self._listener = Listener(
            database.for_listening(), self._channel, self._heard, self._connected, "pgjobs waiter"
        )
        self._link = Link(database, "pgjobs waiter")
        self._lock = threading.Lock()
        self._wakes: defaultdict[str, list[Wake]] = defaultdict(list)
        self._wanted_at = time.monotonic()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="pgjobs-waiting", daemon=True)

    @property
    def heard_for_s(self) -> float | None:
        """How long ends of jobs have been heard; None if they are not, or nobody knows that we listen."""
        since, now = self._heard_since, time.monotonic()
        return None if since is None or now - self._written_at > STALE_S else now - since

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def add(self, names: Iterable[str], wake: Wake) -> bool:
        """Takes somebody who waits; returns whether it does, or has just ended."""
        with self._lock:
            if self._closed:
                return False
            for name in names:
                self._wakes[name].append(wake)
        if time.monotonic() - self._written_at > RENEW_S:
            self._listener.wake()
        return True

    def remove(self, names: Iterable[str], wake: Wake) -> None:
        """Lets somebody go."""
        with self._lock:
            for name in names:
                self._wakes[name].remove(wake)
                if not self._wakes[name]:
                    del self._wakes[name]
            self._wanted_at = time.monotonic()

    def close(self) -> None:
        """Ends the thread."""
        with self._lock:
            self._closed = True
        self._listener.wake()
        if self._thread is not threading.current_thread():
            self._thread.join(2.0)

    # -- on the thread

    def _run(self) -> None:
        try:
            while not self._ended():
                try:
                    self._listener.tick()
                    self._renew()
                except Exception:  # whoever waits here waits, whatever it was
                    self._heard_since = None
                    self._listener.recovered()
                    self._link.close()
                    time.sleep(RETRY_S)
        finally:
            with self._lock:
                self._closed = True
            self._heard_since = None
            with contextlib.suppress(Exception):
                self._link.one(statements.wait_no_more(self._channel))
            self._listener.close()
            self._link.close()

    def _ended(self) -> bool:
        with self._lock:
            self._closed = self._closed or (not self._wakes and time.monotonic() - self._wanted_at > IDLE_S)
            return self._closed

    def _connected(self) -> None:
        """A new connection: whoever is told of it must be told anew."""
        self._written_at = float("-inf")
        self._renew()

    def _renew(self) -> None:
        """Says on which channel somebody waits. What ended before anybody knew it is found by those who wait."""
        age_s = time.monotonic() - self._written_at
        if age_s <= RENEW_S or not self._wakes or not self._listener.hears:
            return
        self._link.one(statements.wait_on(self._channel))
        self._written_at = time.monotonic()
        if age_s > STALE_S or self._heard_since is None:
            self._heard_since = self._written_at
            with self._lock:
                wakes = {wake for each in self._wakes.values() for wake in each}
            for wake in wakes:
                wake("")

    def _heard(self, payload: str) -> None:
        with self._lock:
            heard = [(name, wake) for name in payload.split() for wake in self._wakes.get(name, ())]
        for name, wake in heard:
            wake(name)
