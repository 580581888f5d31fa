"""Alerts: rules about queues, workers and failures, and who is told when one is broken and when it is well again.

Which of them are broken is judged by the workers of the application, one at a time, from indexes and rollups; see
``pgjobs.worker.alerting``. Where messages go is in ``pgjobs.targets``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, NamedTuple, Protocol, TypeVar

from pgjobs import statements
from pgjobs.arguments.codec import Json
from pgjobs.config import Duration, queue_name, seconds
from pgjobs.errors import OptionError
from pgjobs.statements import Statement
from pgjobs.targets import Target, ToCommand, ToMail, ToSlack, ToWebhook
from pgjobs.wording import duration, plural

__all__ = [
    "Alert",
    "FailureRate",
    "Failures",
    "NoWorker",
    "QueueAge",
    "QueueLength",
    "Reading",
    "Rule",
    "Target",
    "ToCommand",
    "ToMail",
    "ToSlack",
    "ToWebhook",
]

T = TypeVar("T")
Kind = Literal["firing", "reminder", "recovered"]

TRIES: Final = 12
"""So often a message is tried; the last time some five hours after the first."""

FIRST_REST_S: Final = 30.0
"""The rest after the first failure, longer than an attempt to deliver may take; it doubles up to an hour."""

MOST_UNTOLD: Final = 100
"""Messages of one alert that are kept for targets out of reach."""


class Ask(Protocol):
    """Runs a statement, in a transaction that only reads."""

    def __call__(self, statement: Statement[T], /) -> T: ...


class Reading(NamedTuple):
    """What a rule has found: whether it is broken, the figure, and a phrase for people."""

    broken: bool
    value: float
    says: str


class Rule(Protocol):
    """What can be wrong. ``read`` asks for little: alerts are judged every five seconds."""

    def read(self, ask: Ask, /) -> Reading:
        """Finds out how things are."""
        ...


# -- rules


@dataclass(frozen=True)
class QueueAge:
    """A job waits for its first attempt for longer than so long; in one queue, or in any.

    Raises:
        OptionError: a length of time or a queue that cannot be meant.
    """

    over: Duration
    queue: str | None = None

    def __post_init__(self) -> None:
        seconds(self.over, what="over")
        _checked(self.queue)

    def read(self, ask: Ask, /) -> Reading:
        ages = ask(statements.ages_of_queues(None if self.queue is None else [self.queue]))
        if not ages:
            return Reading(False, 0.0, "nothing waits")
        queue, age_s = next(iter(ages.items()))
        says = f"the oldest job waits for {duration(max(age_s, 0.0))} in queue {queue}"
        return Reading(age_s > seconds(self.over), max(age_s, 0.0), says)


@dataclass(frozen=True)
class QueueLength:
    """More jobs than so many are queued: in one queue, or in any of them. Beyond 10,000 the number is an estimate.

    Raises:
        OptionError: a number or a queue that cannot be meant.
    """

    over: int
    queue: str | None = None

    def __post_init__(self) -> None:
        _count(self.over, "over")
        _checked(self.queue)

    def read(self, ask: Ask, /) -> Reading:
        lengths = {row[0]: row[1] for row in ask(statements.queue_stats()) if self.queue in (None, row[0])}
        if not lengths:
            return Reading(False, 0.0, "nothing is queued")
        queue, queued = max(lengths.items(), key=lambda each: each[1])
        return Reading(queued > self.over, queued, f"{plural(queued, 'job')} queued in queue {queue}")


@dataclass(frozen=True)
class Failures:
    """More jobs than so many have failed for good within a time: of a task or queue, or of all.

    Raises:
        OptionError: a number, a length of time or a queue that cannot be meant.
    """

    over: int = 0
    within: Duration = "15m"
    task: str | None = None
    queue: str | None = None

    def __post_init__(self) -> None:
        _count(self.over, "over")
        _positive(self.within, "within")
        _checked(self.queue)

    def read(self, ask: Ask, /) -> Reading:
        within_s = seconds(self.within)
        failed, _ = ask(statements.ended_lately(within_s, self.queue, self.task))
        says = f"{plural(failed, 'job')}{_whose(self.task, self.queue)} failed in {duration(within_s)}"
        return Reading(failed > self.over, failed, says)


@dataclass(frozen=True)
class FailureRate:
    """More than a share of the jobs that ended within a time have failed for good, of a task or queue, or of all.

    Args:
        over: from 0 to 1.
        least: of fewer ended jobs nothing is said.

    Raises:
        OptionError: a share, a number, a length of time or a queue that cannot be meant.
    """

    over: float
    within: Duration = "15m"
    task: str | None = None
    queue: str | None = None
    least: int = 10

    def __post_init__(self) -> None:
        if isinstance(self.over, bool) or not isinstance(self.over, int | float) or not 0 <= self.over < 1:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise OptionError(f"over is {self.over!r}; give a share from 0 to 1, such as 0.05")
        _count(self.least, "least")
        _positive(self.within, "within")
        _checked(self.queue)

    def read(self, ask: Ask, /) -> Reading:
        within_s = seconds(self.within)
        failed, succeeded = ask(statements.ended_lately(within_s, self.queue, self.task))
        ended = failed + succeeded
        share = failed / ended if ended else 0.0
        says = f"{share:.1%} of {plural(ended, 'job')}{_whose(self.task, self.queue)} failed in {duration(within_s)}"
        return Reading(ended >= self.least and share > self.over, share, says)


@dataclass(frozen=True)
class NoWorker:
    """Jobs wait in a queue that no living worker serves: in this one, or in any.

    Where no worker lives at all, nobody judges it: that is for ``pgjobs check``.

    Raises:
        OptionError: a queue that cannot be meant.
    """

    queue: str | None = None

    def __post_init__(self) -> None:
        _checked(self.queue)

    def read(self, ask: Ask, /) -> Reading:
        ages = ask(statements.ages_of_queues(None if self.queue is None else [self.queue]))
        living = [member for member in ask(statements.fleet()) if member.lives] if ages else []
        unserved = sorted(queue for queue in ages if not any(member.serves(queue) for member in living))
        more = f" and {plural(len(unserved) - 3, 'other queue')}" if len(unserved) > 3 else ""
        says = f"no worker serves {', '.join(unserved[:3])}{more}, where jobs wait" if unserved else "all is served"
        return Reading(bool(unserved), len(unserved), says)


def _checked(queue: str | None) -> None:
    if queue is not None:
        queue_name(queue)


def _count(value: object, what: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise OptionError(f"{what} is {value!r}; give a whole number of jobs, 0 or more")


def _positive(value: Duration, what: str) -> float:
    if (value_s := seconds(value, what=what)) == 0:
        raise OptionError(f"{what} is 0; give a length of time, such as '15m'")
    return value_s


def _whose(task: str | None, queue: str | None) -> str:
    return (f" of task {task}" if task else "") + (f" in queue {queue}" if queue else "")


# -- alerts


@dataclass(frozen=True, init=False)
class Alert:
    """A rule, and who is told: when it is broken, again while it stays so, and once when it is well.

    Args:
        rule: such as QueueAge("5m").
        targets: such as ToSlack("https://hooks.slack.com/…"); at least one.
        name: under which it is known in the database; made of the rule by default. Two alerts must not share one.
        every: how often it is said again that it is still broken; None for never.
        for_: for how long the rule must be broken before anybody is told, and well before it counts as that.

    Raises:
        OptionError: a value that cannot be meant.
    """

    rule: Rule
    targets: tuple[Target, ...]
    name: str
    every_s: float | None
    for_s: float

    def __init__(
        self,
        rule: Rule,
        *targets: Target,
        name: str | None = None,
        every: Duration | None = "1h",
        for_: Duration = 0,
    ) -> None:
        if not callable(getattr(rule, "read", None)):
            raise OptionError(f"an alert's rule is {rule!r}; give one such as QueueAge('5m') from pgjobs.alerts")
        if not targets:
            raise OptionError(f"the alert of {rule!r} has no target; give one, such as ToMail('smtps://…')")
        if wrong := next((each for each in targets if not callable(getattr(each, "deliver", None))), None):
            raise OptionError(f"an alert's target is {wrong!r}; give one such as ToWebhook('https://…')")
        values: dict[str, Any] = {
            "rule": rule,
            "targets": targets,
            "name": repr(rule) if name is None else name,
            "every_s": None if every is None else _positive(every, "every"),
            "for_s": seconds(for_, what="for_"),
        }
        if not isinstance(values["name"], str) or not values["name"].strip():
            raise OptionError(f"an alert's name is {name!r}; give a text")
        for key, value in values.items():
            object.__setattr__(self, key, value)

    def target(self, key: str) -> Target | None:
        """The target that has a key."""
        return next((each for each in self.targets if each.key == key), None)


def by_name(given: Sequence[Alert]) -> dict[str, Alert]:
    """Alerts by their names.

    Raises:
        OptionError: one is none, or two have one name.
    """
    found: dict[str, Alert] = {}
    for alert in given:
        if not isinstance(alert, Alert):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise OptionError(f"alerts has {alert!r}; give Alert(rule, target, …) from pgjobs.alerts")
        if alert.name in found:
            raise OptionError(f"two alerts are named {alert.name!r}; give one of them another name=")
        found[alert.name] = alert
    return found


# -- how one stands


@dataclass(frozen=True, slots=True)
class Standing:
    """How an alert stands: since when, since when the readings say otherwise, and when it was last told of."""

    state: str
    since: datetime
    turned_at: datetime | None = None
    told_at: datetime | None = None


def advance(alert: Alert, standing: Standing, broken: bool, at: datetime) -> tuple[Standing, Kind | None]:
    """What a reading makes of an alert, and what is to be told of that."""
    firing = standing.state == "firing"
    if broken == firing:
        calm = replace(standing, turned_at=None)
        if firing and _is_due(alert, standing, at):
            return replace(calm, told_at=at), "reminder"
        return calm, None
    turned_at = standing.turned_at or at
    if at - turned_at < timedelta(seconds=alert.for_s):
        return replace(standing, turned_at=turned_at), None
    return Standing("ok" if firing else "firing", turned_at, None, at), "recovered" if firing else "firing"


def _is_due(alert: Alert, standing: Standing, at: datetime) -> bool:
    last = standing.told_at or standing.since
    return alert.every_s is not None and at - last >= timedelta(seconds=alert.every_s)


@dataclass(slots=True)
class Outbox:
    """The messages of an alert that no target has confirmed. Each has an id, which stays when it is sent again."""

    alert: Alert
    messages: list[dict[str, Json]] = field(default_factory=list[dict[str, Json]])

    def add(self, kind: Kind, reading: Reading, standing: Standing, at: datetime) -> None:
        """Adds a message for each target; it takes the place of a reminder that was not delivered."""
        self.messages = [each for each in self.messages if each.get("kind") != "reminder"]
        for target in self.alert.targets:
            text = f"{self.alert.name} {target.key} {kind} {at.isoformat()}"
            self.messages.append({
                "id": hashlib.sha256(text.encode()).hexdigest()[:32],
                "target": target.key,
                "kind": kind,
                "at": at.timestamp(),
                "since": standing.since.timestamp(),
                "says": reading.says,
                "value": reading.value,
                "tries": 0,
                "next": 0.0,
            })  # fmt: skip
        del self.messages[:-MOST_UNTOLD]

    def due(self, at: datetime) -> list[dict[str, Json]]:
        """The first message to each target, where it is due; it counts as tried, and rests before it is due again."""
        found: dict[str, dict[str, Json]] = {}
        now = at.timestamp()
        for message in self.messages:
            found.setdefault(str(message.get("target")), message)
        due = [message for message in found.values() if message["next"] <= now]
        for message in due:
            message["next"] = now + min(FIRST_REST_S * 2 ** message["tries"], 3600.0)
            message["tries"] += 1
        return due


def document(name: str, message: dict[str, Json]) -> dict[str, Json]:
    """A message as targets are told it."""
    return {
        "type": f"alert.{message['kind']}",
        "timestamp": _text(message["at"]),
        "data": {
            "alert": name,
            "says": message["says"],
            "value": message["value"],
            "since": _text(message["since"]),
        },
    }  # fmt: skip


def _text(moment_s: float) -> str:
    return datetime.fromtimestamp(moment_s, UTC).isoformat()
