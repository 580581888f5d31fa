"""The worker: what claims jobs, runs them, records how they ended, and keeps the table in order."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pgjobs.worker.runtime import Worker
    from pgjobs.worker.settings import WorkerSettings

__all__ = ["Worker", "WorkerSettings"]


def __getattr__(name: str) -> Any:
    """Loads the runtime when it is asked for: the supervisor, which lives as long as any, does without."""
    if name not in __all__:
        raise AttributeError(f"module 'pgjobs.worker' has no attribute {name!r}")
    from pgjobs.worker import runtime

    return getattr(runtime, name)
