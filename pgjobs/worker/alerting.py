"""Judges an application's alerts and tells their targets: in each of its workers, and of each alert one at a time.

What is to be told is written in the transaction that finds it, and taken away when the target has confirmed: a worker
that dies between them leaves it to another one, which tells it once more. No target is waited for in a transaction.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import psycopg

from pgjobs import statements
from pgjobs.alerts import TRIES, Alert, Outbox, Standing, advance, document
from pgjobs.arguments.codec import Json
from pgjobs.connections.database import is_away
from pgjobs.connections.link import Link
from pgjobs.errors import ConfigurationError
from pgjobs.events import AlertTurned, AlertUndelivered, Event, Trouble
from pgjobs.targets import ToWebhook
from pgjobs.webhooks import UNSIGNED

CHECK_S: Final = 5.0
"""How often an alert is judged, by whichever worker comes first."""


class Alerting:
    """``tick`` judges what is to be judged, and sends what is to be told.

    Args:
        secrets: what messages to webhooks are signed with.

    Raises:
        ConfigurationError: there are webhooks, and nothing to sign with: nobody would hear of it before it is broken.
    """

    def __init__(
        self,
        alerts: Mapping[str, Alert],
        secrets: Sequence[str],
        link: Link,
        emit: Callable[[Event], None],
        every_s: float = CHECK_S,
    ) -> None:
        for alert in alerts.values():
            if not secrets and any(isinstance(target, ToWebhook) for target in alert.targets):
                raise ConfigurationError(f"alert {alert.name!r} tells a webhook, and {UNSIGNED}")
        self._alerts = alerts
        self._secrets = secrets
        self._link = link
        self._emit = emit
        self._every_s = every_s
        self._added = False

    def tick(self) -> float:
        """One round; returns the seconds until the next."""
        if not self._added:
            self._link.one(statements.add_alerts(list(self._alerts)))
            self._added = True
        for alert in self._alerts.values():
            for message in self._judge_safely(alert):
                self._tell(alert, message)
        return self._every_s

    def _judge_safely(self, alert: Alert) -> list[dict[str, Json]]:
        """A rule that raises must not keep the others from being judged, be it that a database of its own is away."""
        try:
            return self._judge(alert)
        except Exception as error:
            self._link.close()
            if is_away(error) and not self._is_answered():
                raise
            self._emit(Trouble(f"alert {alert.name}", error))
            return []

    def _is_answered(self) -> bool:
        """Whether the database is there."""
        try:
            self._link.begin()
            self._link.commit()
        except psycopg.Error:
            return False
        return True

    def _judge(self, alert: Alert) -> list[dict[str, Json]]:
        """Judges an alert unless somebody has just done so; returns the messages to be sent now."""
        self._link.begin()
        taken = self._link.step(statements.take_alerts([alert.name], self._every_s))
        if not taken:
            self._link.commit()
            return []
        (row,) = taken
        before = Standing(row.state, row.since, row.turned_at, row.told_at)
        reading = alert.rule.read(self._link.step)
        after, kind = advance(alert, before, reading.broken, row.at)
        outbox = Outbox(alert, row.untold)
        if kind is not None:
            outbox.add(kind, reading, before if kind == "recovered" else after, row.at)
        due = outbox.due(row.at)
        standing: dict[str, Any] = {
            "state": after.state, "since": after.since, "turned_at": after.turned_at, "told_at": after.told_at,
            "says": reading.says, "value": reading.value, "untold": json.dumps(outbox.messages),
        }  # fmt: skip
        self._link.step(statements.note_alert(alert.name, **standing))
        self._link.commit()
        if kind is not None:
            self._emit(AlertTurned(alert.name, kind, reading.says))
        return due

    def _tell(self, alert: Alert, message: dict[str, Json]) -> None:
        target = alert.target(str(message["target"]))
        if target is not None:
            try:
                target.deliver(str(message["id"]), document(alert.name, message), self._secrets)
            except Exception as error:
                last = message["tries"] >= TRIES
                self._emit(AlertUndelivered(alert.name, target.key, error, last))
                if not last:
                    return
        self._link.one(statements.told_alert(alert.name, str(message["id"])))
