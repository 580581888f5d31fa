"""What systemd is told of a supervisor: that it is ready, that it stops, and that it still turns."""

from __future__ import annotations

import contextlib
import os
import socket
import time


class Notifier:
    """Tells the service manager that NOTIFY_SOCKET names; without one, nothing.

    The variables are taken out of the environment: children and jobs are not to speak for the service. With
    WATCHDOG_USEC, the loop that calls ``turned`` is restarted by systemd when it does so no more.
    """

    def __init__(self) -> None:
        address = os.environ.pop("NOTIFY_SOCKET", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        watched_us = os.environ.pop("WATCHDOG_USEC", "")
        meant = os.environ.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._every_s = int(watched_us) / 2e6 if meant and watched_us.isdecimal() else float("inf")
        self._turned_at = 0.0
        self._ready = False

    def turned(self, *, ready: bool) -> None:
        """Says that the loop turns, as often as it must be said; and once that the service is ready."""
        if not self._address:
            return
        if ready and not self._ready:
            self._ready = True
            self._say("READY=1")
        if time.monotonic() - self._turned_at >= self._every_s:
            self._turned_at = time.monotonic()
            self._say("WATCHDOG=1")

    def stopping(self) -> None:
        """Says that the service was asked to stop."""
        self._say("STOPPING=1")

    def _say(self, state: str) -> None:
        if self._address:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
                out.setblocking(False)
                out.sendto(state.encode(), self._address)
