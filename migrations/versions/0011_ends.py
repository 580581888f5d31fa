"""Messages of jobs whose end a statement records, moments that Python can hold, failures by what they have in common.

Locks: functions, the version table for its comment, and ``failures`` against writes while its index is built, about
half a second for a million rows: attempts that fail are recorded after it. No other table is read or written.
"""

from pathlib import Path

from alembic.operations import Operations

from pgjobs.migrations import execute

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade(op: Operations, schema: str) -> None:
    execute(op, Path(__file__).with_name("0011_ends.sql"), schema)


def downgrade(op: Operations, schema: str) -> None:
    execute(op, Path(__file__).with_name("0011_ends.down.sql"), schema)
