"""How alerts stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from pgjobs.arguments.codec import Json
from pgjobs.statements.query import QUERIES, Statement, nothing


@dataclass(frozen=True, slots=True)
class Taken:
    """An alert that this transaction judges, as it stood until now; at is the database's time."""

    name: str
    state: str
    since: datetime
    turned_at: datetime | None
    told_at: datetime | None
    untold: list[dict[str, Json]]
    at: datetime


class AlertRow(NamedTuple):
    """An alert as people see it; untold is how many messages have not been delivered yet."""

    name: str
    state: str
    since: datetime
    turned_at: datetime | None
    told_at: datetime | None
    checked_at: datetime | None
    says: str | None
    value: float | None
    untold: int


def add_alerts(names: Sequence[str]) -> Statement[None]:
    """Makes the rows of alerts that have none."""
    return Statement(QUERIES["add_alerts"], {"names": list(names)}, nothing)


def take_alerts(names: Sequence[str], every_s: float) -> Statement[list[Taken]]:
    """Takes those of some alerts that nobody has judged for every_s."""
    params = {"names": list(names), "every": every_s}
    return Statement(QUERIES["take_alerts"], params, lambda rows: [Taken(*row) for row in rows])


def note_alert(name: str, **standing: Any) -> Statement[None]:
    """Writes how an alert stands: state, since, turned_at, told_at, says, value, untold (JSON text)."""
    return Statement(QUERIES["note_alert"], {"name": name, **standing}, nothing)


def told_alert(name: str, message_id: str) -> Statement[None]:
    """Takes a message of an alert away."""
    return Statement(QUERIES["told_alert"], {"name": name, "id": message_id}, nothing)


def alerts() -> Statement[list[AlertRow]]:
    """How all alerts stand, those that fire first."""
    return Statement(QUERIES["alerts"], {}, lambda rows: [AlertRow(*row) for row in rows])


def ended_lately(within_s: float, queue: str | None = None, task: str | None = None) -> Statement[tuple[int, int]]:
    """How many jobs have failed and how many have succeeded within so many seconds, counted by whole minutes."""
    params = {"within": within_s, "queue": queue, "task": task}
    return Statement(QUERIES["ended_lately"], params, lambda rows: (rows[0][0], rows[0][1]))
