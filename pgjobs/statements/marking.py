"""Marks on the time axis: deploys, moves, whatever people want to see beside the figures."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pgjobs.statements.query import QUERIES, Statement


@dataclass(frozen=True, slots=True)
class Mark:
    """A row of ``pgjobs.marks``: a moment, what it was, and who said so on which host."""

    id: int
    at: datetime
    text: str
    author: str
    host: str | None


def add_mark(at: datetime | None, text: str, author: str, host: str | None) -> Statement[Mark]:
    """Marks a moment; None for now, by the database's clock."""
    params = {"at": at, "text": text, "author": author, "host": host}
    return Statement(QUERIES["add_mark"], params, lambda rows: Mark(*rows[0]))


def marks(limit: int) -> Statement[list[Mark]]:
    """The last marks, the latest first."""
    return Statement(QUERIES["marks"], {"limit": limit}, lambda rows: [Mark(*row) for row in rows])


def last_mark() -> Statement[Mark | None]:
    """The latest mark that is not still to come."""
    return Statement(QUERIES["last_mark"], {}, lambda rows: Mark(*rows[0]) if rows else None)
