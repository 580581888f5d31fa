"""How a supervisor and its processes stand."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

REACHED_S: Final = 7.0
"""A database that no heartbeat has reached for so long counts as out of reach: there is one every three seconds."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a process stands: ready is whether it claims jobs, still_s for how long no Python code has run in it."""

    pid: int
    ready: bool
    still_s: float


@dataclass(frozen=True, slots=True)
class Health:
    """How a worker stands, as its supervisor saw it ``turned_at``, by the monotonic clock."""

    turned_at: float
    processes: Sequence[Standing]
    stopping: bool
    reached_at: float
    """When a heartbeat last reached the database."""

    @property
    def reaches_database(self) -> bool:
        """Whether the database is within reach."""
        return time.monotonic() - self.reached_at < REACHED_S
