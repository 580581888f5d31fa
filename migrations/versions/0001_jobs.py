"""Everything of the first release.

Locks: new objects only, so it waits for nobody and its cost does not depend on any table.
"""

from pathlib import Path

from alembic.operations import Operations

from pgjobs.migrations import execute

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade(op: Operations, schema: str) -> None:
    execute(op, Path(__file__).with_name("0001_jobs.sql"), schema)


def downgrade(op: Operations, schema: str) -> None:
    execute(op, Path(__file__).with_name("0001_jobs.down.sql"), schema)
