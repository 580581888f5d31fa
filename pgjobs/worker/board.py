"""Memory that a child shares with its supervisor: which jobs hold a slot, readable after the child is gone."""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
from typing import Final
from uuid import UUID

_RECORD: Final = struct.Struct("=16sd")
_EMPTY: Final = bytes(16)


class Board:
    """One record a slot: the id of the job that holds it, and its deadline on the monotonic clock (0 for none).

    Written by the child alone. A record that is being written when the child dies may be torn: then it names no job of
    the child's claims, and charges nobody.
    """

    def __init__(self, slots: int, fd: int | None = None) -> None:
        self.slots = slots
        size = slots * _RECORD.size
        if fd is None:
            fd = _anonymous_file()
            os.ftruncate(fd, size)
        self.fd = fd
        self._memory = mmap.mmap(fd, size)

    def begin(self, slot: int, job_id: UUID, deadline: float) -> None:
        """Says that a job holds a slot."""
        _RECORD.pack_into(self._memory, slot * _RECORD.size, job_id.bytes, deadline)

    def end(self, slot: int) -> None:
        """Says that a slot is free."""
        _RECORD.pack_into(self._memory, slot * _RECORD.size, _EMPTY, 0.0)

    def begun(self) -> list[UUID]:
        """The jobs that hold a slot, or held one when the child died."""
        records = (_RECORD.unpack_from(self._memory, slot * _RECORD.size) for slot in range(self.slots))
        return [UUID(bytes=job_id) for job_id, _ in records if job_id != _EMPTY]

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
