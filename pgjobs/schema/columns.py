"""What columns of many tables have in common.

Defaults and conditions are written as PostgreSQL gives them back, so that Alembic can compare them as text: comparing
two calls of a volatile default would find a difference each time.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from sqlalchemy import Column, DateTime, Double, text

NOW: Final = text("now()")
EMPTY: Final = text("'{}'::jsonb")
DOUBLE: Final[Double[float]] = Double()


def moment(name: str, **options: Any) -> Column[datetime]:
    """A column of a point in time."""
    return Column(name, DateTime(timezone=True), **options)
