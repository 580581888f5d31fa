"""The worker: what claims jobs, runs them, records how they ended, and keeps the table in order."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pgjobs.worker.runtime import Worker

__all__ = ["Worker"]


def __getattr__(name: str) -> Any:
    """Loads the runtime when it is asked for: the supervisor, which lives as long as any, does without."""
    if name != "Worker":
        raise AttributeError(f"module 'pgjobs.worker' has no attribute {name!r}")
    from pgjobs.worker.runtime import Worker

    return Worker
