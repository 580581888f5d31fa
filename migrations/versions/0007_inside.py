"""What a job says while it runs: its log lines and its files.

Locks: a function, and the version table for its comment; the tables are new, and the cost depends on none.
"""

from pathlib import Path

from alembic.operations import Operations

from pgjobs.migrations import execute

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade(op: Operations, schema: str) -> None:
    execute(op, Path(__file__).with_name("0007_inside.sql"), schema)


def downgrade(op: Operations, schema: str) -> None:
    execute(op, Path(__file__).with_name("0007_inside.down.sql"), schema)
