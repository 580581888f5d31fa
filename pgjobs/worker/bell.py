"""Wakes a thread that waits; also from a signal handler, even one that has interrupted that thread in its wait."""

from __future__ import annotations

import contextlib
import threading


class Bell:
    """Rung often, it wakes one wait, the next one if nobody waits.

    A threading.Event will not do: it takes a lock in Python code, and a signal handler that sets it waits for ever
    where its own thread was just holding that lock. Here is nothing but a lock, held until somebody rings.
    """

    def __init__(self) -> None:
        self._silence = threading.Lock()
        self._silence.acquire()

    def ring(self) -> None:
        """Wakes whoever waits; from any thread and any signal handler."""
        if self._silence.locked():
            with contextlib.suppress(RuntimeError):  # another one has rung meanwhile
                self._silence.release()

    def wait(self, timeout_s: float) -> None:
        """Waits until somebody rings, or for timeout_s."""
        self._silence.acquire(timeout=timeout_s)
