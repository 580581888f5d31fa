"""Quiet workers in ``worker_stats``, and ids by SQL that ascend as their rows do, so that walks by id read less.

Locks: the view ``worker_stats``, ACCESS EXCLUSIVE, for a moment; a function. No table is touched,
however many rows there are.
"""

from pathlib import Path

from alembic.operations import Operations

from pgjobs.migrations import execute

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade(op: Operations, schema: str) -> None:
    execute(op, Path(__file__).with_name("0015_looks.sql"), schema)


def downgrade(op: Operations, schema: str) -> None:
    execute(op, Path(__file__).with_name("0015_looks.down.sql"), schema)
