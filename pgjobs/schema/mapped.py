"""The mapped class of ``jobs``."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import event
from sqlalchemy.orm import DeclarativeBase, Mapped

from pgjobs.errors import PgJobsError
from pgjobs.schema.catalog import tables


class _Base(DeclarativeBase):
    """Apart from the application's own base, so that its metadata, and its Alembic, see nothing of these tables."""

    metadata = tables().metadata


class JobRow(_Base):
    """A row of ``jobs``, to be read only; ``pgjobs.Job`` is the handle that acts."""

    __table__ = tables().jobs

    id: Mapped[UUID]
    task: Mapped[str]
    queue: Mapped[str]
    status: Mapped[str]
    priority: Mapped[int]
    attempt: Mapped[int]
    max_attempts: Mapped[int]
    crashes: Mapped[int]
    blockers: Mapped[int]
    has_children: Mapped[bool]
    position: Mapped[int | None]
    run_at: Mapped[datetime | None]
    due_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]
    cancel_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    timeout: Mapped[timedelta | None]
    claim_id: Mapped[UUID | None]
    unique_key: Mapped[str | None]
    reason: Mapped[str | None]
    args: Mapped[dict[str, Any]]
    progress: Mapped[Any]
    result: Mapped[Any]
    meta: Mapped[Any]
    options: Mapped[Any]
    usage: Mapped[Any]
    output: Mapped[str | None]


def _refuse(mapper: object, connection: object, row: JobRow) -> None:
    raise PgJobsError(f"JobRow {row.id} is for reading; enqueue tasks, and steer jobs by the handle: jobs.job(id)")


for _moment in ("before_insert", "before_update", "before_delete"):
    event.listen(JobRow, _moment, _refuse)
