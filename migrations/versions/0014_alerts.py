"""The table of alerts: how each stands, and what is still to be told.

Locks: a new object, and the version table for its comment; the cost does not depend on any table.
"""

from pathlib import Path

from alembic.operations import Operations

from pgjobs.migrations import execute

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade(op: Operations, schema: str) -> None:
    execute(op, Path(__file__).with_name("0014_alerts.sql"), schema)


def downgrade(op: Operations, schema: str) -> None:
    execute(op, Path(__file__).with_name("0014_alerts.down.sql"), schema)
