"""Locks between processes, by ``flock``: the kernel drops them with the last process that has the descriptor."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pgjobs.errors import PgJobsError

if sys.platform != "win32":
    import fcntl

_POLL_S: Final = 0.01


class EmbeddedServerError(PgJobsError):
    """The embedded PostgreSQL is not installed, or it does not start or stop."""


def share(path: Path) -> int:
    """Waits for a share of this lock and returns the descriptor, whose closing gives it back."""
    lock = _open(path)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)
    except BaseException:
        os.close(lock)
        raise
    return lock


@contextmanager
def exclusive(path: Path) -> Generator[None]:
    """Holds this lock alone."""
    lock = _open(path)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        _release(lock)


def take(path: Path, timeout_s: float) -> int:
    """Waits until nobody holds this lock and returns the descriptor that holds it now.

    Raises:
        EmbeddedServerError: the time is over.
    """
    lock = _open(path)
    deadline = time.monotonic() + timeout_s
    while not _try(lock):
        if time.monotonic() > deadline:
            os.close(lock)
            raise EmbeddedServerError(f"processes of an earlier server hold {path} after {timeout_s:g} s; end them")
        time.sleep(_POLL_S)
    return lock


def is_free(path: Path) -> bool:
    """Whether nobody holds this lock at the moment."""
    lock = _open(path)
    try:
        return _try(lock)
    finally:
        _release(lock)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)


def _try(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _release(lock: int) -> None:
    # To close it would not do: a child that another thread has forked meanwhile has the descriptor as well.
    fcntl.flock(lock, fcntl.LOCK_UN)
    os.close(lock)
