"""What one attempt has used: the CPU of its process, and the most memory that it took."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from typing import Final

from pgjobs.running.outcome import Usage

RSS_UNIT: Final = 1 if sys.platform == "darwin" else 1024
"""Bytes in one of ru_maxrss."""

_RESET_PEAK: Final = b"5"
"""See proc_pid_clear_refs(5)."""


class Meter:
    """Measures one attempt after the other, in this process and the programs that it waits for.

    Linux lets the peak of memory begin anew; elsewhere it is that of the whole process so far. Reading it there takes
    longer than a short job does, and memory only grows by page faults: an attempt without one has taken what was taken
    when it began.
    """

    def __init__(self) -> None:
        self._begun_s = 0.0
        self._faults = -1
        self._taken_bytes = 0
        self._is_passed = False
        self._clear_refs = _opened("/proc/self/clear_refs", os.O_WRONLY)
        self._status = _opened("/proc/self/status", os.O_RDONLY)
        self.max_rss_bytes = 0
        """The most memory that this process has ever taken, as of the last reading."""

    def begin(self) -> None:
        """An attempt begins."""
        if self._is_passed and self._clear_refs is not None:
            with contextlib.suppress(OSError):
                os.pwrite(self._clear_refs, _RESET_PEAK, 0)
        self._is_passed = False
        self._begun_s = _cpu_s(resource.getrusage(resource.RUSAGE_SELF))

    def read(self) -> Usage:
        """What it has used so far."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        self.max_rss_bytes = used.ru_maxrss * RSS_UNIT
        return {"cpu_s": round(_cpu_s(used) - self._begun_s, 6), "max_rss_bytes": self._peak_bytes(used)}

    def _peak_bytes(self, used: resource.struct_rusage) -> int:
        faults = used.ru_minflt + used.ru_majflt
        if faults == self._faults:
            return self._taken_bytes
        peak_bytes = self._taken_bytes = self.max_rss_bytes
        if self._status is not None and self._clear_refs is not None:
            with contextlib.suppress(OSError, ValueError, IndexError):
                status = os.pread(self._status, 4096, 0)
                peak_bytes, self._taken_bytes = (_kilobytes(status, name) * 1024 for name in (b"VmHWM:", b"VmRSS:"))
                self._is_passed = True
        self._faults = faults
        return peak_bytes


def _kilobytes(status: bytes, name: bytes) -> int:
    return int(status.partition(name)[2].split(maxsplit=1)[0])


def _opened(path: str, flags: int) -> int | None:
    try:
        return os.open(path, flags | os.O_CLOEXEC)
    except OSError:
        return None


def _cpu_s(own: resource.struct_rusage) -> float:
    others = resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime
