"""Which process on which boot of which machine this is, so that a neighbour can tell that it is gone. Linux only."""

from __future__ import annotations

import functools
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any


@functools.cache
def place() -> tuple[str, str] | None:
    """The boot of the machine and the space of process ids; None where the system does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return boot, os.readlink("/proc/self/ns/pid")
    except OSError:
        return None


def describe() -> dict[str, Any]:
    """What the workers table keeps of this process."""
    document: dict[str, Any] = {"python": platform.python_version()}
    if (here := place()) is not None:
        document |= {"boot": here[0], "pids": here[1], "start": _start(os.getpid())}
    return document


def is_gone(pid: int, document: Mapping[str, Any]) -> bool:
    """Whether a process of this place has ended: no process has its id, or a younger one has."""
    return "start" in document and _start(pid) != document["start"]


def rss_bytes(pid: int) -> int | None:
    """The memory that a process takes; None where it cannot be read."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def _start(pid: int) -> int | None:
    """When a process started, in clock ticks since the boot; None if it has ended."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
    return None if state in ("Z", "X") else int(rest[18])
