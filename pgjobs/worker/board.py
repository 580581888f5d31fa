"""Memory that a child shares with its supervisor: a counter that moves, and which jobs have begun, until when."""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
from typing import Final
from uuid import UUID

_COUNTER: Final = struct.Struct("=Q")
_RECORD: Final = struct.Struct("=16sd")
_EMPTY: Final = bytes(16)


class Board:
    """A counter, then a record a slot: the id of the job that runs in it, and its deadline by time.perf_counter, or 0.

    That clock is the same in every process of the machine.

    Written by the child alone, and readable after it is gone. A record that is being written when the child dies may be
    torn: then it names no job of the child's claims, and charges nobody.
    """

    def __init__(self, slots: int, fd: int | None = None) -> None:
        self.slots = slots
        size = _COUNTER.size + slots * _RECORD.size
        if fd is None:
            fd = _anonymous_file()
            os.ftruncate(fd, size)
        self.fd = fd
        self._memory = mmap.mmap(fd, size)
        self._count = 0

    # -- the child's side

    def touch(self) -> None:
        """Moves the counter: Python code runs."""
        self._count += 1
        _COUNTER.pack_into(self._memory, 0, self._count)

    def begin(self, slot: int, job_id: UUID, deadline: float) -> None:
        """Says that a job begins in a slot."""
        _RECORD.pack_into(self._memory, _COUNTER.size + slot * _RECORD.size, job_id.bytes, deadline)

    def end(self, slot: int) -> None:
        """Says that the job of a slot has ended."""
        _RECORD.pack_into(self._memory, _COUNTER.size + slot * _RECORD.size, _EMPTY, 0.0)

    # -- the supervisor's side

    @property
    def count(self) -> int:
        """Where the counter stands."""
        count: int = _COUNTER.unpack_from(self._memory)[0]
        return count

    def begun(self) -> list[UUID]:
        """The jobs that run, or ran when the child died."""
        return [job_id for job_id, _ in self._records()]

    def overdue(self, now: float) -> list[UUID]:
        """The jobs whose deadline has passed, and nobody saw to it."""
        return [job_id for job_id, deadline in self._records() if 0.0 < deadline < now]

    def _records(self) -> list[tuple[UUID, float]]:
        start = _COUNTER.size
        records = (_RECORD.unpack_from(self._memory, start + slot * _RECORD.size) for slot in range(self.slots))
        return [(UUID(bytes=job_id), deadline) for job_id, deadline in records if job_id != _EMPTY]

    def close(self) -> None:
        """Gives the memory back."""
        self._memory.close()
        os.close(self.fd)


def _anonymous_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("pgjobs-board", 0)
    fd, path = tempfile.mkstemp(prefix="pgjobs-board-")
    os.unlink(path)
    return fd
