"""Workers, applications and their connections, as the model moves them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import psycopg

from pgjobs import PgJobs
from pgjobs.connections.link import Link
from pgjobs.events import ClaimLost, Event, Recorded
from pgjobs.running.outcome import Failure, Outcome, crashed
from pgjobs.running.run import Run
from pgjobs.statements import Statement
from pgjobs.worker.claiming.claimer import Claimer
from pgjobs.worker.claiming.lanes import Lanes
from pgjobs.worker.claiming.slots import Slots
from pgjobs.worker.subscription import Subscription
from tests.model import world
from tests.model.book import Plan

_FAILURE: Final = Failure("Error", "a message", "a traceback", "0")

ENDINGS: Final[dict[str, Callable[[Run], Outcome]]] = {
    "success": lambda run: Outcome(run, "succeeded", 0.1, result="1"),
    "failure": lambda run: Outcome(run, "failed", 0.1, reason="error", failure=_FAILURE),
    "retry": lambda run: Outcome(run, "scheduled", 0.1, reason="error", failure=_FAILURE, delay_s=0.0),
    "later": lambda run: Outcome(run, "scheduled", 0.1, reason="error", failure=_FAILURE, delay_s=3600.0),
    "snooze": lambda run: Outcome(run, "scheduled", 0.1, reason="snoozed", delay_s=3600.0, refund=1),
    "cancel": lambda run: Outcome(run, "cancelled", 0.1, reason="cancelled"),
    "crash": lambda run: crashed(run, RuntimeError("gone"), 0.1),
    "release": lambda run: Outcome(run, "released", 0.0),
    "away": lambda run: Outcome(run, "released", 0.0, delay_s=3600.0),
}


class Live:
    """A worker that lives: what it believes to hold."""

    def __init__(self, link: Link) -> None:
        self.events: list[Event] = []
        self.runs: list[Run] = []
        self.id = world.register(link)
        self.claimer = Claimer(
            self.id, link, Lanes(Subscription.parse("default")), Slots(9, lambda: None), flags=[], schema="pgjobs",
            admit=lambda run: None, emit=self.events.append,
        )  # fmt: skip
        # There are no slots that hold them.
        self.claimer._reconciliation._owed = lambda: [r for r in self.runs if r.claim.id in self.claimer.known]

    def heard(self) -> tuple[set[Run], set[Run]]:
        """Which runs it has just reported as recorded, and which as lost."""
        recorded = [outcome.run for event in self.events if isinstance(event, Recorded) for outcome in event.outcomes]
        lost = [event.run for event in self.events if isinstance(event, ClaimLost)]
        self.events.clear()
        assert len(set(recorded)) == len(recorded), "each end is reported once"
        return set(recorded), set(lost)


@dataclass
class Open:
    """A transaction that is still open, and what its commit comes to."""

    conn: psycopg.Connection[Any]
    plan: Plan
    back: Callable[[], None]
    then: Callable[[], None]

    def end(self, *, commit: bool) -> None:
        self.conn.execute("COMMIT" if commit else "ROLLBACK")
        self.back()
        if commit:
            self.plan.commit()
            self.then()


class Scene:
    """The database, and connections to it: for what happens at once, for workers that hang, for applications.

    What should wait for nobody fails when it does.
    """

    def __init__(self, url: str) -> None:
        impatient = f"{url}?options=-clock_timeout%3D2000"
        self.jobs = PgJobs(impatient)
        self.conn = psycopg.connect(impatient, autocommit=True)
        self.link, *self._links = [Link(self.jobs.database, f"link {index}") for index in range(4)]
        self._apps = [psycopg.connect(impatient) for _ in range(2)]
        self.anew()

    def anew(self) -> None:
        """Ends what a failed example has left open, and empties the tables."""
        self.spare, self.apps = list(self._links), list(self._apps)
        for link in self.spare:
            link.conn.execute("ROLLBACK")
        for app in self.apps:
            app.rollback()
        world.reset(self.conn)

    def hang(self, statements: list[Statement[Any]]) -> tuple[list[Any], psycopg.Connection[Any], Callable[[], None]]:
        """Runs statements of a worker in a transaction that stays open."""
        link = self.spare.pop()
        link.begin()
        results = [link.step(statement) for statement in statements]
        return results, link.conn, lambda: self.spare.append(link)

    def close(self) -> None:
        """Closes all connections."""
        for each in (self.conn, self.link, *self._links, *self._apps, self.jobs):
            each.close()
