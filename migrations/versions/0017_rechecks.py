"""Steering looks at jobs under its locks, and at their status where it is told one; new rows are found by their queue.

Locks: functions; then ``jobs``, SHARE ROW EXCLUSIVE, for the moment in which a trigger is made. No row is read or
written, however many there are.
"""

from pathlib import Path

from alembic.operations import Operations

from pgjobs.migrations import execute

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade(op: Operations, schema: str) -> None:
    execute(op, Path(__file__).with_name("0017_rechecks.sql"), schema)


def downgrade(op: Operations, schema: str) -> None:
    execute(op, Path(__file__).with_name("0017_rechecks.down.sql"), schema)
