"""What operators ask of workers: to claim no more, to leave, to say what they do.

Locks: workers, ACCESS EXCLUSIVE, for a moment: columns without a default are added to the catalog alone. No other table
is touched, however many rows there are.
"""

from pathlib import Path

from alembic.operations import Operations

from pgjobs.migrations import execute

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade(op: Operations, schema: str) -> None:
    execute(op, Path(__file__).with_name("0012_workers.sql"), schema)


def downgrade(op: Operations, schema: str) -> None:
    execute(op, Path(__file__).with_name("0012_workers.down.sql"), schema)
