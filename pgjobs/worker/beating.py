"""What a worker without a supervisor says to the database, and hears from it: a supervisor does so for its children."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from pgjobs import statements
from pgjobs.connections.link import Link
from pgjobs.statements import Orders
from pgjobs.worker.answers import Answers
from pgjobs.worker.deaths import LOOK_S, Deaths
from pgjobs.worker.service import Service

if TYPE_CHECKING:
    from pgjobs.worker.life import Life
    from pgjobs.worker.runtime import Worker

BEAT_S: Final = 3.0


class Beat:
    """Says every few seconds that the worker lives, and has it do what it is asked; ``service`` turns it."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._link = Link(worker.jobs.database, "pgjobs beat")
        self._deaths = Deaths(worker.emit)
        self._answers = Answers()
        self._asked: str | None = None
        self._beat_at = 0.0
        self.service = Service("beat", self._turn, worker.outage, worker.emit, close=self._link.close)

    def soon(self) -> None:
        """Has the next beat come now."""
        self._beat_at = 0.0
        self.service.wake()

    def _turn(self) -> float:
        life = self._worker.life
        if life is not None and time.monotonic() >= self._beat_at:
            self._beat(life)
        self._answers.write(self._link)
        self._deaths.find_neighbours(self._link)
        return LOOK_S

    def _beat(self, life: Life) -> None:
        self._beat_at = time.monotonic() + BEAT_S
        leaving = [life.id] if self._worker.is_stopping else []
        orders = self._link.one(statements.beat([life.id], leaving)).get(life.id)
        if orders is None:
            self._worker.declared_dead(life.id)
        else:
            self._obey(life, orders)

    def _obey(self, life: Life, orders: Orders) -> None:
        self._worker.be_quiet(orders.quiet)
        if orders.leave and not self._worker.is_stopping:
            life.claimer.stop_claiming()
            self._worker.request_stop()
        question = orders.question
        if question is not None and question.id != self._asked:
            self._asked = question.id
            self._worker.ask(question.what, question.seconds, lambda facts: self._answer(life.id, question.id, facts))

    def _answer(self, life_id: UUID, question: str, facts: Any) -> None:
        self._answers.add(life_id, question, facts)
        self.soon()
