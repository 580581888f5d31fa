"""Where live positions begin, for workers that start beside many dead index entries.

Locks: a new table, so it waits for nobody and its cost does not depend on any other.
"""

from pathlib import Path

from alembic.operations import Operations

from pgjobs.migrations import execute

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade(op: Operations, schema: str) -> None:
    execute(op, Path(__file__).with_name("0003_lanes.sql"), schema)


def downgrade(op: Operations, schema: str) -> None:
    execute(op, Path(__file__).with_name("0003_lanes.down.sql"), schema)
