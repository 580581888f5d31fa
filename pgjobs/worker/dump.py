"""The stacks of a process in which no Python code can run: written by a signal's handler, which is C code, into a file.

CPython's own faulthandler does it, without the interpreter's lock. Linux only: the signal is one that nobody uses.
"""

from __future__ import annotations

import faulthandler
import os
import re
import signal
import sys
from typing import Any, Final


def _signal() -> int | None:
    return signal.SIGRTMIN + 3 if sys.platform == "linux" else None


SIGNAL: Final = _signal()

_FRAME: Final = re.compile(r'  File "(.*)", line (\d+|\?\?\?) in (.*)')


def make_file() -> int | None:
    """A file for the stacks of a child, in memory; None where the system has no such signal."""
    return os.memfd_create("pgjobs-stacks", 0) if SIGNAL is not None else None


def listen(fd: int | None) -> None:
    """Has this process write its stacks to the file when it is signalled."""
    if fd is not None and SIGNAL is not None:
        faulthandler.register(SIGNAL, file=fd, all_threads=True, chain=False)


def take(fd: int, pid: int) -> dict[str, Any]:
    """What the process has written, in the form of ``stacks``; takes it out of the file."""
    text = os.pread(fd, 1 << 20, 0).decode("utf-8", "replace").replace("\0", "")
    os.ftruncate(fd, 0)
    os.lseek(fd, 0, os.SEEK_SET)  # the child writes where this stands: they share it
    threads: list[dict[str, Any]] = []
    for line in text.splitlines():
        if (frame := _FRAME.fullmatch(line)) is not None and threads:
            threads[-1]["frames"].insert(0, f"{frame[3]} ({frame[1]}:{frame[2]})")
        elif "hread 0x" in line:
            threads.append({"name": line.partition(" (")[0], "job": None, "frames": []})
    return {"pid": pid, "threads": threads, "coroutines": []}
