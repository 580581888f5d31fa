"""What a supervisor says to the database and hears from it: that its children live, what is asked of them, who died."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

from pgjobs import statements
from pgjobs.connections.database import Database
from pgjobs.connections.link import Link
from pgjobs.events import Event
from pgjobs.supervisor.children import Children
from pgjobs.supervisor.process import Process
from pgjobs.worker.answers import Answers
from pgjobs.worker.deaths import LOOK_S, Death, Deaths
from pgjobs.worker.service import Outage, Service

BEAT_S: Final = 3.0

logger = logging.getLogger("pgjobs.worker")


class Heartbeat:
    """Beats for all children, on a thread and a connection of its own, from when one has told where the database is.

    Args:
        is_stopping: whether all of them were asked to leave.
        ask: asks for more on that connection, with each round.
    """

    def __init__(
        self,
        children: Children,
        emit: Callable[[Event], None],
        *,
        is_stopping: Callable[[], bool],
        ask: Callable[[Link], None] = lambda link: None,
    ) -> None:
        self.reached_at = float("-inf")
        """When the database was last reached, by the monotonic clock."""
        self._children = children
        self._emit = emit
        self._is_stopping = is_stopping
        self._ask = ask
        self._outage = Outage(emit)
        self._deaths = Deaths(emit)
        self._answers = Answers()
        self._link: Link | None = None
        self._service: Service | None = None
        self._beat_at = 0.0
        self._beaten: set[UUID] = set()

    @property
    def has_begun(self) -> bool:
        """Whether it is known where the database is."""
        return self._service is not None

    def begin(self, database: Database) -> None:
        """Beats from now on."""
        link = self._link = Link(database, "pgjobs supervisor")
        self._service = Service("beat", lambda: self._turn(link), self._outage, self._emit, close=link.close)
        self._service.start()

    def wake(self) -> None:
        """Has the next round come now; it beats if a child has begun a life."""
        if self._service is not None:
            self._service.wake()

    def beat_soon(self) -> None:
        """Has the next beat come now."""
        self._beat_at = 0.0
        self.wake()

    def answer(self, life: UUID, question: str, facts: Any) -> None:
        """Has an answer written down."""
        self._answers.add(life, question, facts)
        self.beat_soon()

    def report(self, death: Death) -> None:
        """Has a death reported."""
        self._deaths.add(death)
        self.wake()

    def settle(self) -> None:
        """Reports, on the caller's thread, the deaths that are still to be reported."""
        if not self._deaths or self._link is None:
            return
        self.stop()
        try:
            self._deaths.report(self._link)
        except Exception as error:
            logger.warning("could not report a death (%s); the reaper will find it", type(error).__name__)

    def stop(self) -> None:
        """Beats no more."""
        if self._service is not None:
            self._service.stop()
            self._service.join(3.0)

    def _turn(self, link: Link) -> float:
        """One UPDATE for all children, every few seconds; and what is to be said of the dead, every second."""
        lives = self._children.lives()
        if lives and (lives.keys() - self._beaten or time.monotonic() >= self._beat_at):
            self._beat(link, lives)
        for life, child in lives.items():
            if (forced := child.forced_answer()) is not None:
                self._answers.add(life, *forced)
        self._answers.write(link)
        self._ask(link)
        self._deaths.report(link)
        if self._deaths.find_neighbours(link):
            self.reached_at = time.monotonic()
        return LOOK_S

    def _beat(self, link: Link, lives: dict[UUID, Process]) -> None:
        self._beat_at = time.monotonic() + BEAT_S
        self._beaten = set(lives)
        leaving = [life for life, child in lives.items() if child.is_leaving or self._is_stopping()]
        orders = link.one(statements.beat(list(lives), leaving))
        self.reached_at = time.monotonic()
        for life, child in lives.items():
            if life in orders:
                child.obey(orders[life])
            elif child.popen.poll() is None:
                child.tell(f"dead {life}")
