"""The cycle: complete the last batch, forget emptied claims, claim the next batch; one transaction, one round trip.

Under load cycles overlap: what one has claimed is read, and begins, while the database works on the next. Jobs whose
claim has returned and that have not begun never outlive a tick, whatever fails: whoever looks between two ticks finds
each claimed job waiting, running or to be recorded.

Jobs come from the lanes that the worker knows, from their low bounds on. Where something is known or found to lie below
a bound, claims begin there too, until that range is empty.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from pgjobs import statements
from pgjobs.connections.link import Link, Results
from pgjobs.events import Event
from pgjobs.job import new_id
from pgjobs.report import Desk
from pgjobs.running.outcome import Outcome, released
from pgjobs.running.run import Claim, Run
from pgjobs.statements import Lane, Range, Row, Rows, Statement
from pgjobs.worker.claiming.completer import Completer
from pgjobs.worker.claiming.hints import Hints
from pgjobs.worker.claiming.lanes import Lanes, in_order
from pgjobs.worker.claiming.pace import POLL_S, Pace
from pgjobs.worker.claiming.pauses import Pauses
from pgjobs.worker.claiming.reconcile import Reconciliation
from pgjobs.worker.claiming.recorder import Recorder
from pgjobs.worker.claiming.slots import Slots
from pgjobs.worker.claiming.suspects import Suspects
from pgjobs.worker.claiming.sweep import Sweep

STOPS_S: Final = 1.0
"""How often a worker that runs something asks whether somebody has cancelled it."""


class Claimer:
    """One worker's claims and completions, on one connection. ``tick`` does one cycle; ``wake`` brings it forward.

    Attributes:
        claims: how many have found jobs.
        workers: how many workers live, as of the last comparison.
        quiet: claim no more for now; what waits for a slot goes back.
        drained: set once nothing was left to claim, and all that was held had been recorded.
        spent: set once the limit is reached, and all that was held has been recorded.

    Args:
        admit: makes a run ready for its executor, or returns the outcome that stands in for it.
        limit: claim this many jobs in all, then no more.
    """

    def __init__(
        self,
        worker: UUID,
        link: Link,
        lanes: Lanes,
        slots: Slots,
        *,
        flags: Sequence[str],
        schema: str,
        admit: Callable[[Run], Outcome | None],
        emit: Callable[[Event], None],
        desk: Desk | None = None,
        limit: int | None = None,
    ) -> None:
        self.worker = worker
        self.known: dict[UUID, Claim] = {}
        self.claims = 0
        self.workers = 1
        self.quiet = False
        self.drained = threading.Event()
        self.spent = threading.Event()
        self._link = link
        self._lanes = lanes
        self._slots = slots
        self._schema = schema
        self._admit = admit
        self._desk = desk or Desk()
        self._completer = Completer(emit, self._desk)
        self._budget = limit
        self._pace = Pace(worker, flags)
        self._hints = Hints(lanes, self._pace)
        self._pauses = Pauses(lanes, link)
        self._adopted: deque[tuple[UUID, Row]] = deque()
        self._sweep = Sweep(lanes, link)
        self._reconciliation = Reconciliation(worker, link, emit, known=lambda: self.known, owed=self._owed)
        self._recorder = Recorder(link, slots, self._completer, emit)
        self._claiming = True
        self._ticking = False
        self._stops_at = 0.0
        self._suspects = Suspects(link, slots)
        self._arrived: _Arrived | None = None

    # -- asked from other threads

    def hint(self, queue: str, priority: int) -> bool:
        """Says that a lane has got work; returns whether it is one that we claim from."""
        return self._hints.queued(queue, priority)

    def hint_restored(self, queue: str, priority: int, position: int) -> bool:
        """Says that jobs went back to old places, which may lie below our bound."""
        return self._hints.restored(queue, priority, position)

    def hint_pauses(self) -> None:
        """Says that somebody has paused or resumed a queue or a task."""
        self._pauses.changed()

    def hint_stops(self) -> None:
        """Says that somebody has cancelled or deleted a running job, perhaps one of ours."""
        self._stops_at = 0.0

    def adopt(self, claim_id: UUID, row: Row) -> None:
        """Says that a job stands under a claim that was made elsewhere in this process."""
        self._adopted.append((claim_id, row))

    def look(self) -> None:
        """Says that there may be work, nobody knows where: after a break of the LISTEN connection."""
        self._pace.look_now()
        self._sweep.soon()

    def stop_claiming(self) -> None:
        """Lets the worker finish what it has."""
        self._claiming = False

    @property
    def resting(self) -> bool:
        """Whether no cycle is under way, whose claim may be on its way.

        Once this was seen after ``stop_claiming``, no job will come any more: a cycle first says that it is under way,
        and then asks whether it may claim.
        """
        return not self._ticking

    @property
    def settled(self) -> bool:
        """Whether every outcome taken so far stands in the table, and no suspect waits."""
        return self._recorder.settled and not self._suspects

    def forgettable(self) -> list[UUID]:
        """The claims that are settled as a whole, and not yet forgotten."""
        return self._completer.settled_claims()

    def notable(self) -> list[Range]:
        """Where live positions begin, as far as the next worker has not been told."""
        return self._lanes.to_note()

    # -- the cycle

    def tick(self) -> float:
        """Does one cycle if one is due; returns the seconds until the next one may be."""
        self._ticking = True
        try:
            self._step()
        finally:
            self._begin_arrived()
            self._ticking = False
        return self._rest_s()

    def _step(self) -> None:
        if self._adopted:
            self._take_adopted()
        if time.monotonic() >= self._reconciliation.at:
            self.workers = self._sweep.workers = self._reconciliation.step()
        self._give_back_stale()
        self._see_to_stops()
        if self._pauses.see_to():
            self._pace.look_now()
        if self._sweep_is_due and self._room():
            self._step_sweep()
        if self._room() and (lanes := self._lanes.to_age()):
            self._lanes.age(self._link.one(statements.ages(lanes)))
        while self._cycle_if_due() and self._is_pressed:
            pass
        self._begin_arrived()
        if self._budget == 0 and self.settled and self._slots.empty:
            self.spent.set()

    def _room(self) -> int:
        if not self._may_claim:
            return 0
        arrived = 0 if self._arrived is None else self._arrived.count
        room = self._slots.room(arrived)
        return room if self._budget is None else min(room, self._budget - arrived)

    @property
    def _may_claim(self) -> bool:
        return self._claiming and not self.quiet

    def _rest_s(self) -> float:
        now = time.monotonic()
        rest = min(POLL_S, self._desk.due_in_s, self._recorder.due_in_s)
        if (flush_in := self._slots.flush_in_s()) is not None:
            rest = min(rest, flush_in)
        if self._slots.waiting or self._suspects:
            rest = min(rest, 0.25)
        if self._room():
            rest = min(rest, self._pace.look_at - now, self._sweep.due_in_s)
        return max(0.0, rest)

    def _give_back_stale(self) -> None:
        stale = self._slots.take_stale() if self._may_claim else self._slots.take_waiting()
        self._give_back([released(run) for run in stale])
        self._give_back(self._suspects.see_to(claiming=self._may_claim))

    def _give_back(self, back: list[Outcome]) -> None:
        """Has jobs recorded that have not begun: they count not as done."""
        if self._budget is not None:
            self._budget += len(back)
        if back:
            self._slots.put_back(back)

    def _see_to_stops(self) -> None:
        """Stops runs whose jobs were cancelled or deleted, or belong to another claim by now."""
        now = time.monotonic()
        if now < self._stops_at:
            return
        self._stops_at = now + STOPS_S
        if held := self._slots.held:
            asked = statements.to_be_stopped([run.id for run in held], [run.claim.id for run in held])
            if stops := self._link.one(asked):
                self._give_back([released(run) for run in self._slots.cancel(stops)])

    def _cycle_if_due(self) -> bool:
        now, room = time.monotonic(), self._room()
        if (
            (room > 0 and now >= self._pace.look_at)
            or self._slots.flush_in_s() == 0.0
            or self._recorder.due_in_s <= 0
            or self._desk.due_in_s <= 0
            or self._pace.must_unflag(room)
        ):
            self._cycle(self._recorder.take(), room)
            self._sweep.note()
            return True
        return False

    @property
    def _is_pressed(self) -> bool:
        """Whether the next cycle goes first, and what has arrived begins while the database works on that.

        So it is where outcomes wait, nothing else is to be seen to, and more has arrived than could start at once.
        """
        return (
            self._arrived is not None
            and self._arrived.count > self._slots.count
            and self._slots.flush_in_s() == 0.0
            and time.monotonic() < min(self._reconciliation.at, self._stops_at)
            and not (self._adopted or self._suspects or self._pauses.due or self._sweep_is_due)
        )

    def _cycle(self, outcomes: list[Outcome], room: int) -> None:
        fresh, below = self._hints.take() if room else (False, {})
        lanes = self._lanes.preferred()
        claim_id = new_id()
        recording = self._recorder.statements(outcomes)
        batch: list[Statement[Any]] = [*recording, *self._completer.forget()]
        refreshing = self._lanes.to_refresh(lanes) if room else []
        if refreshing:
            batch.append(statements.bounds(refreshing))
        claim_at = len(batch)
        if room:
            batch.append(statements.claim(self.worker, claim_id, self._hints.ranges(lanes, below), room))
        flag = self._pace.flag(claim_id, room, forgetful=self._lanes.forgetful)
        batch += flag
        if not batch:
            return
        results = self._send(batch, outcomes)
        if results is None:
            self._hints.look_below(below.values())
            return
        found = 0
        try:
            if recording:
                self._recorder.confirm(outcomes, results[: len(recording)])
        finally:  # what was claimed begins, whatever becomes of that
            if room:
                found = self._take(claim_id, lanes, results, claim_at)
        followed, self._completer.followed = self._completer.followed, set()
        if refreshing:
            self._lanes.refresh(results[claim_at - 1])
            self._hints.look_below(self._lanes.late())
        if room:
            self._hints.look_below(below.values() if found >= room else ())
            nothing_found = self._pace.after(found, room, again=fresh, flagged=bool(flag and results[-1]))
            self._note_drained(nothing_found and not followed)
        for lane in followed:
            self.hint(*lane)

    def _send(self, batch: Sequence[Statement[Any]], outcomes: list[Outcome]) -> Results | None:
        """Runs a cycle's statements; None if they failed, and were seen to."""
        try:
            return self._link.batch(*batch, meanwhile=self._begin_arrived)
        except Exception as error:  # of the database, or of what was begun meanwhile
            self._recorder.broke(outcomes, error)
        return None

    def _take(self, claim_id: UUID, lanes: Sequence[Lane], results: Results, place: int) -> int:
        self._begin_arrived()  # which had to wait where the database was slow to take the batch
        if found := results.rows(place):
            self.claims += 1
            self._arrived = _Arrived(claim_id, lanes, results, place, found, time.perf_counter())
        return found

    def _begin_arrived(self) -> None:
        """Hands over to the slots what the last cycle has claimed."""
        arrived, self._arrived = self._arrived, None
        if arrived is not None:
            rows = in_order(arrived.results[arrived.place], arrived.lanes)
            self._hints.proved(rows)
            self._begin(arrived.claim_id, rows, arrived.received)

    def _take_adopted(self) -> None:
        """Begins the adopted jobs that stand under their claims: others were rolled back, or given back meanwhile.

        Where that cannot be asked, the next reconciliation gives them back.
        """
        adopted = [self._adopted.popleft() for _ in range(len(self._adopted))]
        asked = statements.standing([row[0] for _, row in adopted], [claim_id for claim_id, _ in adopted])
        ours = {job_id for job_id, _, status, mine in self._link.one(asked) if mine and status == "running"}
        for claim_id, row in adopted:
            if row[0] in ours:
                self._begin(claim_id, [row], time.perf_counter())

    def _begin(self, claim_id: UUID, rows: Rows, received: float) -> None:
        claim = Claim(claim_id, len(rows), self._desk)
        ready: list[Run] = []
        unfit: list[Outcome] = []
        fit = self._fit if self._pauses.any_ else self._admit
        for row in rows:
            run = Run(row, claim, received, self._schema)
            if (outcome := fit(run)) is None:
                ready.append(run)
            else:
                unfit.append(outcome)
        if self._budget is not None:
            self._budget -= len(ready)
        if unfit:
            self._slots.put_back(unfit)
        if guarded := [run for run in ready if run.guarded]:
            self._suspects.add(guarded)
            ready = [run for run in ready if not run.guarded]
        self._slots.add(ready)
        self.known = {key: kept for key, kept in self.known.items() if kept.left} | {claim_id: claim}

    def _fit(self, run: Run) -> Outcome | None:
        """Makes a run ready; returns the outcome of one that is not to run: the release sees to those on pause."""
        return released(run) if self._pauses.stops(run.task_name, run.queue) else self._admit(run)

    def _note_drained(self, nothing_found: bool) -> None:
        if nothing_found and self.settled and self._slots.empty:
            self.drained.set()

    @property
    def _sweep_is_due(self) -> bool:
        return self._sweep.due(hurried=self._pace.settling)

    def _step_sweep(self) -> None:
        fresh, strays = self._sweep.step()
        if fresh:
            self._pace.look_now()
        self._hints.look_below(strays)

    # -- at the end

    def give_back(self, link: Link) -> None:
        """Releases what the database still believes us to hold, where nothing runs any more; forgets settled claims."""
        for claim_id, job_ids in link.one(statements.reconcile(self.worker)):
            link.one(statements.release([claim_id] * len(job_ids), job_ids))
        link.one(statements.forget_claims(self.forgettable()))

    # -- after a break

    def reconnected(self) -> None:
        """Starts anew with the bounds and the flag, and asks what the database believes."""
        self._lanes.reset()
        self._sweep.anew()
        self._pauses.changed()
        self._pace.reset()
        self._reconciliation.doubt()
        self._pace.look_now()

    def _owed(self) -> list[Run]:
        """Every run whose outcome is still to be recorded."""
        return [*self._slots.owed, *self._recorder.kept, *self._suspects.waiting]


@dataclass(frozen=True, slots=True)
class _Arrived:
    """Jobs of a claim whose reply is there, still to be read and begun."""

    claim_id: UUID
    lanes: Sequence[Lane]
    results: Results
    place: int
    count: int
    received: float
