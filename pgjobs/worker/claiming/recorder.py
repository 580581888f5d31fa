"""Takes outcomes from the slots to the table. Whatever fails meanwhile, none is dropped.

Invariant: an outcome that was taken from the slots is under way, kept for later, back in the slots, or settled.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import psycopg

from pgjobs.connections.database import RESEND, is_away
from pgjobs.connections.link import Link
from pgjobs.events import Event, Trouble
from pgjobs.running.outcome import Outcome
from pgjobs.running.run import Run
from pgjobs.statements import Statement
from pgjobs.worker.claiming.completer import Completer, is_unstorable
from pgjobs.worker.claiming.slots import Slots

FIRST_REST_S: Final = 0.02
LONGEST_REST_S: Final = 1.0


class Recorder:
    """A claimer's outcomes, from ``take`` on: first their statements, then what came back or ``broke``.

    Those whose rows somebody holds are kept, and tried again with growing rests; they hold up no other.
    """

    def __init__(self, link: Link, slots: Slots, completer: Completer, emit: Callable[[Event], None]) -> None:
        self._link = link
        self._slots = slots
        self._completer = completer
        self._emit = emit
        self._under_way = False
        self._kept: list[Outcome] = []
        self._kept_until = 0.0
        self._rest_s = FIRST_REST_S / 2

    @property
    def settled(self) -> bool:
        """Whether every outcome taken so far stands in the table."""
        return not self._kept and not self._under_way

    @property
    def kept(self) -> list[Run]:
        """The runs whose outcomes are kept for later."""
        return [outcome.run for outcome in self._kept]

    @property
    def due_in_s(self) -> float:
        """Seconds until what is kept is tried again; infinite if there is nothing."""
        return self._kept_until - time.monotonic() if self._kept else float("inf")

    def take(self) -> list[Outcome]:
        """Hands over what is to be recorded now."""
        self._under_way = True
        outcomes = self._slots.take_finished()
        if self.due_in_s <= 0:
            outcomes += self._kept
            self._kept = []
        self._under_way = bool(outcomes)
        return outcomes

    def statements(self, outcomes: list[Outcome]) -> list[Statement[Any]]:
        """What records the outcomes. Where a text cannot be sent they are recorded apart, and that one as a failure."""
        try:
            return self._completer.statements(outcomes)
        except UnicodeError:
            self._keep(self._apart(outcomes))
        except Exception:
            self._slots.put_back(outcomes)
            raise
        outcomes.clear()
        self._under_way = False
        return []

    def confirm(self, outcomes: list[Outcome], results: Sequence[Any]) -> None:
        """Takes what the statements have returned."""
        with self._none_dropped(outcomes):
            self._keep(self._completer.confirm(outcomes, results, self._link))
        self._under_way = False

    def broke(self, outcomes: list[Outcome], error: Exception) -> None:
        """Sees to outcomes whose transaction has failed. A claim that fails with them undoes no completion.

        Raises:
            Exception: the error, where the service has to see to it.
        """
        if not isinstance(error, psycopg.Error | UnicodeError) or isinstance(error, RESEND) or is_away(error):
            self._slots.put_back(outcomes)
            if not isinstance(error, RESEND):
                raise error
        else:
            self._completer.drop_unstorable(error)
            if not outcomes:
                raise error
            if not is_unstorable(error):
                self._emit(Trouble("claimer", error))
            self._keep(self._apart(outcomes))
        self._under_way = False

    def _apart(self, outcomes: list[Outcome]) -> list[Outcome]:
        with self._none_dropped(outcomes):
            return self._completer.record_apart(outcomes, self._link)

    @contextmanager
    def _none_dropped(self, outcomes: list[Outcome]) -> Generator[None]:
        """Takes those back that are not settled yet, where somewhere in between the database fails."""
        try:
            yield
        except Exception:
            self._slots.put_back([outcome for outcome in outcomes if not outcome.run.settled])
            raise

    def _keep(self, kept: list[Outcome]) -> None:
        if kept:
            self._kept += kept
            self._rest_s = min(LONGEST_REST_S, self._rest_s * 2)
            self._kept_until = time.monotonic() + self._rest_s
        elif not self._kept:
            self._rest_s = FIRST_REST_S / 2
