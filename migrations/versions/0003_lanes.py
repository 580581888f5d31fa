"""Flat: where live positions begin, for workers that start; claims uncompressed; statistics that count no big table.

Locks: a new table, and claims for the instant in which its columns are marked; the cost does not depend on any table.
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
