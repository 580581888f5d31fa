"""Enqueue by SQL, checked against what workers publish of their tasks; notifications for raw inserts, on demand.

Locks: new objects, and functions; the cost does not depend on any table.
"""

from pathlib import Path

from alembic.operations import Operations

from pgjobs.migrations import execute

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade(op: Operations, schema: str) -> None:
    execute(op, Path(__file__).with_name("0005_sql.sql"), schema)


def downgrade(op: Operations, schema: str) -> None:
    execute(op, Path(__file__).with_name("0005_sql.down.sql"), schema)
