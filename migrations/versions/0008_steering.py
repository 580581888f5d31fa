"""Pauses of queues and tasks, jobs on hold, and functions that steer jobs.

Locks: new tables, functions, one row of duties, and the version table for its comment; the cost does not depend on any
table. Going back queues the jobs that are on hold again.
"""

from pathlib import Path

from alembic.operations import Operations

from pgjobs.migrations import execute

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade(op: Operations, schema: str) -> None:
    execute(op, Path(__file__).with_name("0008_steering.sql"), schema)


def downgrade(op: Operations, schema: str) -> None:
    execute(op, Path(__file__).with_name("0008_steering.down.sql"), schema)
