"""What one attempt has used: the CPU of its process, and the most memory that it took."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from typing import Final

from pgjobs.outcome import Usage

RSS_UNIT: Final = 1 if sys.platform == "darwin" else 1024
"""Bytes in one of ru_maxrss."""

_RESET_PEAK: Final = b"5"
"""See proc_pid_clear_refs(5)."""


class Meter:
    """Measures one attempt after the other, in this process and the programs that it waits for.

    Linux lets the peak of memory begin anew; elsewhere it is that of the whole process so far. The files stay open,
    since opening them takes three times as long as what is done with them.
    """

    def __init__(self) -> None:
        self._begun_s = 0.0
        self._clear_refs = _opened("/proc/self/clear_refs", os.O_WRONLY)
        self._status = _opened("/proc/self/status", os.O_RDONLY)

    def begin(self) -> None:
        """An attempt begins."""
        if self._clear_refs is not None:
            with contextlib.suppress(OSError):
                os.pwrite(self._clear_refs, _RESET_PEAK, 0)
        self._begun_s = _cpu_s()

    def read(self) -> Usage:
        """What it has used so far."""
        return {"cpu_s": round(_cpu_s() - self._begun_s, 6), "max_rss_bytes": self._peak_bytes()}

    def _peak_bytes(self) -> int:
        if self._status is not None:
            with contextlib.suppress(OSError, ValueError, IndexError):
                return int(os.pread(self._status, 4096, 0).partition(b"VmHWM:")[2].split(maxsplit=1)[0]) * 1024
        return max_rss_bytes()


def max_rss_bytes() -> int:
    """The most memory that this process has ever taken."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT


def _opened(path: str, flags: int) -> int | None:
    try:
        return os.open(path, flags | os.O_CLOEXEC)
    except OSError:
        return None


def _cpu_s() -> float:
    own, others = (resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime
