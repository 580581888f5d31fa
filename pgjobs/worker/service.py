"""What every service of a worker is: a thread that ticks, rests, and survives errors."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Final

from pgjobs.connections.database import is_away
from pgjobs.events import DatabaseAway, DatabaseBack, Event, Trouble, unfailing

MAX_BACKOFF_S: Final = 2.0

WHOLE_S: Final = 1.0
SHARE: Final = 50


def rest_after(took_s: float) -> float:
    """Seconds until a look at everything may come again: once a second, and two percent of the time, at most.

    With many dead entries such a look takes long; the longer, the more seldom.
    """
    return max(WHOLE_S, SHARE * took_s)


class Cost:
    """What a look costs: the cheaper of the last two.

    One that was held up, by a lock on the table or a server that stood still, says nothing of the next ones: after ten
    such seconds there would be none for eight minutes.
    """

    def __init__(self) -> None:
        self._before_s = float("inf")

    def after(self, took_s: float) -> float:
        """Takes how long a look took; returns what the next one may cost."""
        cost_s, self._before_s = min(took_s, self._before_s), took_s
        return cost_s


class Outage:
    """Says once, for all services of a worker, that the database is away, and once that it is back.

    Attributes:
        over: how many outages are over.
    """

    def __init__(self, emit: Callable[[Event], None]) -> None:
        self.over = 0
        self._emit = emit
        self._lock = threading.Lock()
        self._is_away = False
        self._since = 0.0

    def away(self, error: BaseException) -> None:
        """Notes that the database could not be reached."""
        with self._lock:
            if not self._is_away:
                self._is_away = True
                self._since = time.monotonic()
                with unfailing():
                    self._emit(DatabaseAway(str(error).strip().splitlines()[0] if str(error).strip() else repr(error)))

    def back(self) -> None:
        """Notes that it could."""
        with self._lock:
            if self._is_away:
                self._is_away = False
                self.over += 1
                with unfailing():
                    self._emit(DatabaseBack(time.monotonic() - self._since))


class Service:
    """Calls ``tick``, which returns the seconds to rest, again and again on a thread; ``wake`` cuts a rest short.

    A tick that fails does not end the service: where the database is away it is tried again with a growing rest, at
    most two seconds; any other error is reported, and the next tick comes after a second. The first failure after an
    outage that others have seen is of a connection from before it, and is no news.

    Args:
        recovered: called on the service's thread when a tick is to follow one that failed for want of the database.
        fatal: exceptions that end the service, and go to ``on_fatal``.
    """

    def __init__(
        self,
        name: str,
        tick: Callable[[], float],
        outage: Outage,
        emit: Callable[[Event], None],
        *,
        close: Callable[[], None] = lambda: None,
        recovered: Callable[[], None] = lambda: None,
        fatal: tuple[type[BaseException], ...] = (),
        on_fatal: Callable[[BaseException], None] = lambda error: None,
    ) -> None:
        self.name = name
        self._tick = tick
        self._outage = outage
        self._emit = emit
        self._close = close
        self._recovered = recovered
        self._fatal = fatal
        self._on_fatal = on_fatal
        self._woken = threading.Event()
        self._stopping = False
        self._backoff_s = 0.0
        self._outages = outage.over
        self._thread = threading.Thread(target=self._loop, name=f"pgjobs-{name}", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Brings the next tick forward."""
        if not self._woken.is_set():
            self._woken.set()

    def stop(self) -> None:
        """Asks the thread to end after the tick that it is in."""
        self._stopping = True
        self._woken.set()

    def join(self, timeout_s: float | None = None) -> bool:
        """Waits for the thread's end; returns whether it came."""
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _loop(self) -> None:
        try:
            while not self._stopping:
                self._woken.clear()
                rest_s = self._one()
                if rest_s > 0 and not self._stopping:
                    self._woken.wait(rest_s)
        except self._fatal as error:
            self._on_fatal(error)
        finally:
            self._close()

    def _one(self) -> float:
        try:
            if self._backoff_s:
                self._recovered()
            rest_s = self._tick()
        except self._fatal:
            raise
        except Exception as error:
            return self._after(error)
        if self._backoff_s:
            self._backoff_s = 0.0
            self._outage.back()
        self._outages = self._outage.over
        return rest_s

    def _after(self, error: Exception) -> float:
        if self._stopping:
            return 0.0
        if not is_away(error):
            with unfailing():
                self._emit(Trouble(self.name, error))
            return 1.0
        if self._outages == self._outage.over:
            self._outage.away(error)
        self._outages = self._outage.over
        self._backoff_s = min(MAX_BACKOFF_S, max(0.05, self._backoff_s * 2))
        return self._backoff_s * random.uniform(0.5, 1.0)  # noqa: S311 - spreads reconnects
