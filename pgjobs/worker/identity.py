"""Which process on which boot of which machine this is, so that a neighbour can tell that it is gone. Linux only."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import platform
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

_PR_SET_PDEATHSIG: Final = 1


@functools.cache
def place() -> tuple[str, str] | None:
    """The boot of the machine and the space of process ids; None where the system does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return boot, os.readlink("/proc/self/ns/pid")
    except OSError:
        return None


def describe(parent: int | None = None) -> dict[str, Any]:
    """What the workers table keeps of this process, and of the parent that sees to its death."""
    document: dict[str, Any] = {"python": platform.python_version()}
    if (here := place()) is not None:
        document |= {"boot": here[0], "pids": here[1], "start": _start(os.getpid())}
        if parent is not None:
            document |= {"parent": parent, "parent_start": _start(parent)}
    return document


def set_title(title: str) -> None:
    """Has ``ps`` show what this process is, where setproctitle is installed."""
    with contextlib.suppress(ImportError):
        from setproctitle import setproctitle

        setproctitle(title)


def is_gone(pid: int, document: Mapping[str, Any]) -> bool:
    """Whether a process of this place has ended, and its parent too: no process has its id, or a younger one has."""
    if "start" not in document or _start(pid) == document["start"]:
        return False
    return "parent" not in document or _start(document["parent"]) != document["parent_start"]


def rss_bytes(pid: int) -> int | None:
    """The memory that a process takes; None where it cannot be read."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def die_with_parent() -> None:
    """Has the system kill this process when the thread that started it ends."""
    _on_parents_end(signal.SIGKILL)


def leave_with_parent() -> None:
    """Gives this process twelve seconds to leave when the thread that started it ends.

    The system sends SIGUSR2 then, and its handler is the C library's ``alarm``: called with the signal's number, it has
    SIGALRM end the process so many seconds later, also where C code holds the interpreter and no Python code runs.
    """
    if _on_parents_end(signal.SIGUSR2):
        library = ctypes.CDLL(None)
        library.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
        library.signal(signal.SIGUSR2, ctypes.cast(library.alarm, ctypes.c_void_p))


def _on_parents_end(number: int) -> bool:
    if sys.platform != "linux":
        return False
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number))
    return True


def _start(pid: int) -> int | None:
    """When a process started, in clock ticks since the boot; None if it has ended."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
    return None if state in ("Z", "X") else int(rest[18])
