"""Views for reports: tasks, workers, throughput, waits and history.

Locks: views' entries in the catalog, SHARE UPDATE EXCLUSIVE, for their comments. No table is read or written, however
many rows there are.
"""

from pathlib import Path

from alembic.operations import Operations

from pgjobs.migrations import execute

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade(op: Operations, schema: str) -> None:
    execute(op, Path(__file__).with_name("0010_reporting.sql"), schema)


def downgrade(op: Operations, schema: str) -> None:
    execute(op, Path(__file__).with_name("0010_reporting.down.sql"), schema)
