"""Rows as they may be shown."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pgjobs.app import PgJobs
    from pgjobs.job import JobRow


def without_private(jobs: PgJobs, row: JobRow) -> JobRow:
    """A row as it may be shown: private are the arguments that it says itself, or its task where that is loaded."""
    from pgjobs.arguments.privacy import masked

    said: Any = row.options.get("private") if isinstance(row.options, dict) else None  # whatever SQL has written
    names = {str(name) for name in said} if isinstance(said, list) else set[str]()  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    if (task := jobs.tasks.get(row.task)) is not None:
        names |= task.signature.private
    return dataclasses.replace(row, args=masked(row.args, names)) if names else row
