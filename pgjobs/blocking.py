"""Where code must not block: in a coroutine job, on the event loop that it shares with all others of its worker."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from pgjobs.errors import BlockingError

if TYPE_CHECKING:
    from pgjobs.running.run import Run

CURRENT: Final[ContextVar[Run]] = ContextVar("pgjobs_current_run")
"""The run of this thread or coroutine."""


def refuse_on_the_loop() -> None:
    """Raises BlockingError where a worker's event loop would stand still; a thread that a job has started may wait."""
    run = CURRENT.get(None)
    if run is None or run.is_inline or run.executor != "async":
        return
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise BlockingError
