"""What attempts in processes of their own have used, and written.

Locks: jobs, ACCESS EXCLUSIVE, for a moment: columns without a default are added to the catalog alone, however many
rows there are.
"""

from pathlib import Path

from alembic.operations import Operations

from pgjobs.migrations import execute

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade(op: Operations, schema: str) -> None:
    execute(op, Path(__file__).with_name("0009_accounts.sql"), schema)


def downgrade(op: Operations, schema: str) -> None:
    execute(op, Path(__file__).with_name("0009_accounts.down.sql"), schema)
