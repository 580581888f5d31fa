"""``pgjobs.enqueue`` says what is wrong with what it is given, and the remedy, before anything is written.

Locks: functions. No table is touched, however many rows there are.
"""

from pathlib import Path

from alembic.operations import Operations

from pgjobs.migrations import execute

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade(op: Operations, schema: str) -> None:
    execute(op, Path(__file__).with_name("0016_checks.sql"), schema)


def downgrade(op: Operations, schema: str) -> None:
    execute(op, Path(__file__).with_name("0016_checks.down.sql"), schema)
