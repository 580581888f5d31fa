"""A new row is one that could have come about: pgjobs alone makes messages, an end has a moment, a run has a claim.

Locks: ``jobs``, SHARE ROW EXCLUSIVE, for the moment in which triggers are made. No row is read or written, however many
there are; what stands there already, messages on their way among it, stays as it is.
"""

from pathlib import Path

from alembic.operations import Operations

from pgjobs.migrations import execute

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade(op: Operations, schema: str) -> None:
    execute(op, Path(__file__).with_name("0018_origins.sql"), schema)


def downgrade(op: Operations, schema: str) -> None:
    execute(op, Path(__file__).with_name("0018_origins.down.sql"), schema)
