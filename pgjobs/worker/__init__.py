"""The worker: what claims jobs, runs them, records how they ended, and keeps the table in order."""

from pgjobs.worker.runtime import Worker

__all__ = ["Worker"]
