"""The duties: promote, reap, expire, prune, resume, roll up, tidy. Nobody leads: who comes first takes a row."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import psycopg

from pgjobs import statements
from pgjobs.connections.database import is_away
from pgjobs.connections.link import Link
from pgjobs.events import Event, Reaped, Recorded, TimedOut
from pgjobs.running.outcome import MAX_CRASHES, Failure, Outcome
from pgjobs.running.run import Claim, Run
from pgjobs.statements import Duty, Row
from pgjobs.worker.service import Cost, rest_after

TICK_S: Final = 0.05
"""How often due jobs are looked for by a worker alone: a scheduled job starts at most this late, and a little."""

MAX_TICK_S: Final = 0.5
"""How seldom a worker among very many looks."""

RECENT_S: Final = 2.0
"""Most looks pass over what has been due for longer: with a million dead entries there a look would take a second."""

DUTIES_EVERY_S: Final = 0.5
LATE_S: Final = 600.0
"""Retention is applied this much later than its age, so that most jobs have ended when their id is walked over."""

COARSE_S: Final = {"hour": 2 * 86_400.0, "day": 60 * 86_400.0}
"""Older than this, rollups count by the hour and by the day instead of the minute: a year has few rows a task."""

UNPARKED: Final = 1_000
"""So many jobs of resumed tasks are queued again at once."""

_FIRST_ID: Final = UUID(int=0)


class Maintenance:
    """Does what is due, on a connection of its own; ``tick`` does one round.

    Args:
        retentions: seconds for which ended jobs are kept, as the tasks say, the default included.
        promoted: called when jobs have become queued.
        workers: how many workers live. Of a hundred each looks for due jobs a tenth as often as one alone, so that the
            database has ten times as many looks from all of them, and not a hundred times.
    """

    def __init__(
        self,
        worker: UUID,
        link: Link,
        emit: Callable[[Event], None],
        *,
        result_ttl_s: float,
        failed_ttl_s: float,
        retentions: Sequence[float],
        promoted: Callable[[], None],
        workers: Callable[[], int],
    ) -> None:
        self._worker = worker
        self._link = link
        self._emit = emit
        self._happened: list[Event] = []
        self._result_ttl_s = result_ttl_s
        self._failed_ttl_s = failed_ttl_s
        self._retentions = sorted({result_ttl_s, *retentions})
        self._promoted = promoted
        self._workers = workers
        self._duties_at = 0.0
        self._whole_at = 0.0
        self._whole_cost = Cost()
        self._bodies: dict[str, Callable[[Duty], tuple[Any, bool]]] = {
            "reap": self._reap,
            "expire": self._expire,
            "prune": self._prune,
            "roll_up": self._roll_up,
            "tidy": self._tidy,
            "time_out": self._time_out,
            "resume": self._resume,
        }

    def tick(self) -> float:
        """Promotes what is due, and now and then takes a duty; returns the seconds until the next look.

        After a step of a duty it rests for as long as that took, and promotes, so that a long one shows in no latency.
        """
        try:
            rest_s = self._promote()
        except psycopg.Error as error:
            if not is_away(error):
                for _ in self._bodies:
                    if not self._take_one():
                        break
            raise
        started = time.monotonic()
        if started >= self._duties_at:
            if self._take_one():
                rest_s = min(rest_s, time.monotonic() - started)
                self._duties_at = 0.0
            else:
                self._duties_at = started + DUTIES_EVERY_S
        return rest_s

    def _promote(self) -> float:
        started = time.monotonic()
        back_s = None if started >= self._whole_at else RECENT_S
        due_in = self._link.peek(statements.next_due(back_s))
        if back_s is None:
            now = time.monotonic()
            self._whole_at = now + rest_after(self._whole_cost.after(now - started))
        while due_in is not None and due_in <= 0:
            if not self._link.one(statements.promote(back_s)):
                break
            self._promoted()
            due_in = self._link.peek(statements.next_due(back_s))
        rest_s = min(MAX_TICK_S, TICK_S * math.sqrt(max(1, self._workers())))
        return rest_s if due_in is None or due_in <= 0 else min(rest_s, due_in)

    def _take_one(self) -> bool:
        """Runs one duty that is due, within the transaction that takes it; returns whether there was one.

        One that fails is put off, else it would be the most overdue for ever, and no other would be done by anybody.
        """
        self._link.begin()
        duty = self._link.step(statements.take_duty(list(self._bodies), self._worker))
        if duty is None:
            self._link.commit()
            return False
        self._happened.clear()
        try:
            state, again = self._bodies[duty.name](duty)
        except psycopg.Error as error:
            if not is_away(error):
                self._link.one(statements.put_off_duty(duty.name))
            raise
        if again or state != duty.state:
            document = None if state is None else json.dumps(state)
            self._link.step(statements.leave_duty(duty.name, document, again=again))
        self._link.commit()
        for event in self._happened:
            self._emit(event)
        return True

    def _reap(self, duty: Duty) -> tuple[Any, bool]:
        dead = self._link.step(statements.mark_silent(interrupted=duty.interrupted))
        reaped = self._link.step(statements.reap(None, None, MAX_CRASHES, "the worker died while the job ran"))
        self._link.step(statements.forget_dead_claims())
        if reaped or dead:
            poison = sum(status == "failed" for _, status in reaped)
            self._happened.append(Reaped([name for _, name in dead], len(reaped), poison))
        return None, len(reaped) == 1_000

    def _resume(self, duty: Duty) -> tuple[Any, bool]:
        """Ends pauses whose time is over, and queues jobs again whose task is paused no more."""
        self._link.step(statements.end_pauses())
        return None, self._link.step(statements.unpark()) == UNPARKED

    def _time_out(self, duty: Duty) -> tuple[Any, bool]:
        """The last resort: what has run far past its timeout, because its worker cannot stop it."""
        ended = self._link.step(statements.time_out(None, None))
        if ended:
            self._happened.append(TimedOut([job_id for job_id, _ in ended]))
        return None, len(ended) == 1_000

    def _expire(self, duty: Duty) -> tuple[Any, bool]:
        """Looks back ten minutes, for rows that were held when their time came; once an hour, at all.

        Hours and days are those of the database: two workers whose clocks differ would call each other's rounds old.
        """
        state: dict[str, Any] = duty.state or {}
        hour = _when(duty, "%Y-%m-%dT%H")
        since = datetime(1970, 1, 1, tzinfo=UTC)
        if duty.ran_at is not None and state.get("whole") == hour:
            since = duty.ran_at - timedelta(minutes=10)
        expired = self._link.step(statements.expire(since))
        if expired.failed:
            self._happened.append(Recorded([self._never_ran(row) for row in expired.failed]))
        again = expired.jobs == 1_000
        return (state if again else {"whole": hour}), again

    def _never_ran(self, row: Row) -> Outcome:
        *columns, reason = row
        run = Run(tuple(columns), Claim(self._worker, 0), 0.0, "")
        return Outcome(
            run, "failed", 0.0, reason=reason, failure=Failure(reason, "it had not started in time", "", reason)
        )

    def _prune(self, duty: Duty) -> tuple[Any, bool]:
        """Walks the ids up to each retention's age from where it stopped; stragglers are looked for once a day."""
        state: dict[str, Any] = dict(duty.state or {})
        today = _when(duty, "%Y-%m-%d")
        if state.get("day") != today:
            state = {"day": today}
        for keep_s in self._retentions:
            name = f"{keep_s:g}"
            after = UUID(state.get(name, str(_FIRST_ID)))
            step = self._link.step(
                statements.prune(after, keep_s + min(LATE_S, keep_s), self._result_ttl_s, self._failed_ttl_s)
            )
            if step.reached is not None:
                state[name] = str(step.reached)
            if step.more:
                return state, True
        return state, False

    def _roll_up(self, duty: Duty) -> tuple[Any, bool]:
        """Merges the last minutes, and goes on with what is old from where it stopped."""
        self._link.step(statements.roll_up())
        state: dict[str, Any] = dict(duty.state or {})
        again = False
        for unit, age_s in COARSE_S.items():
            if (reached := self._link.step(statements.coarsen(unit, state.get(unit), age_s))) is not None:
                state[unit] = reached.isoformat()
                again = True
        return state or None, again

    def _tidy(self, duty: Duty) -> tuple[Any, bool]:
        self._link.step(statements.tidy())
        return None, False


def _when(duty: Duty, form: str) -> str | None:
    """When the duty was taken last, by the database's clock; None if it never was."""
    return None if duty.ran_at is None else duty.ran_at.astimezone(UTC).strftime(form)
