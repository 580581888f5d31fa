"""What every job should be: the protocol in Python, written from its description and not from its SQL."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from pgjobs.running.outcome import MAX_CRASHES, Outcome
from pgjobs.running.run import Run
from tests.model.world import ENDED

NEW: Final = -1
"""A position that was just drawn; the table says which."""


@dataclass(slots=True)
class Expected:
    """A job. Times are hours from now, below 0 where they have passed; run_h is how long it has been running."""

    id: UUID
    max_attempts: int = 3
    due_h: float | None = None
    ttl_h: float | None = None
    key: str | None = None
    status: str = "queued"
    position: int | None = NEW
    attempt: int = 0
    crashes: int = 0
    run_h: float | None = None
    claim: UUID | None = None
    asked: bool = False
    away: bool = False
    suspect: dict[str, Any] | None = None
    failures: int = 0

    def __post_init__(self) -> None:
        if self.due_h is not None:
            self.status, self.position = "scheduled", None

    @property
    def row(self) -> tuple[Any, ...]:
        """As the table shows it."""
        return (
            self.status, self.position, self.attempt, self.crashes, self.claim, self.key, self.asked,
            self.suspect, self.failures, self.due_h is not None,
        )  # fmt: skip

    def start(self, claim: UUID) -> None:
        self.status, self.position, self.claim, self.run_h = "running", None, claim, 0
        self.attempt += 1

    def end(self, status: str) -> None:
        self.status, self.position, self.due_h, self.key = status, None, None, None
        self.away = False

    def queue(self, position: int) -> None:
        self.status, self.position, self.due_h, self.away = "queued", position, None, False

    def rest(self, due_h: float) -> None:
        self.status, self.position, self.due_h = "scheduled", None, due_h


@dataclass(slots=True)
class Taken:
    """A row of claims."""

    worker: UUID
    positions: dict[UUID, int]


@dataclass(slots=True)
class Member:
    """A row of workers."""

    seen_h: float = 0
    beat: int = 0
    missed: int = 0
    misses: int = 0
    dead: bool = False


@dataclass(slots=True)
class Plan:
    """What a statement should return, the jobs that it should write, and what it comes to when it is committed."""

    result: Any
    jobs: Sequence[Expected] = ()
    effects: list[Callable[[], None]] = field(default_factory=list)

    def commit(self) -> None:
        for effect in self.effects:
            effect()


class Book:
    """Jobs, claims and workers as they should be; what is held is skipped or must not be touched."""

    def __init__(self) -> None:
        self.jobs: dict[UUID, Expected] = {}
        self.claims: dict[UUID, Taken] = {}
        self.workers: dict[UUID, Member] = {}
        self.rolled: Counter[str] = Counter()
        self.held: set[UUID] = set()

    def free(self, *statuses: str) -> list[Expected]:
        """Jobs in these statuses whose rows nobody holds."""
        return [job for job in self.jobs.values() if job.status in statuses and job.id not in self.held]

    def alive(self, worker: UUID) -> bool:
        return worker in self.workers and not self.workers[worker].dead

    def fenced(self, job_id: UUID, claim: UUID) -> Expected | None:
        """The job if this claim holds it."""
        job = self.jobs.get(job_id)
        return job if job is not None and (job.status, job.claim) == ("running", claim) else None

    def _end(self, job: Expected, status: str) -> None:
        job.end(status)
        self.rolled[status] += 1

    # -- application

    def enqueue(self, job: Expected) -> Plan:
        return Plan(None, [job], [lambda: self.jobs.update({job.id: job})])

    def cancel(self, job: Expected) -> Plan:
        def effect() -> None:
            job.asked = True
            if job.status != "running":
                self._end(job, "cancelled")

        if job.status in ENDED:
            return Plan({})
        return Plan({job.id: "running" if job.status == "running" else "cancelled"}, [job], [effect])

    def retry(self, job: Expected) -> Plan:
        def effect() -> None:
            job.queue(NEW)
            job.attempt = job.crashes = 0
            job.claim, job.asked, job.suspect, job.ttl_h, job.run_h = None, False, None, None, None

        return Plan([job.id], [job], [effect]) if job.status in ENDED else Plan([])

    def delete(self, job: Expected) -> Plan:
        return Plan([job.id], [job], [lambda: self.jobs.pop(job.id) and None])

    def complete_within(self, job_id: UUID, claim: UUID) -> Plan:
        job = self.fenced(job_id, claim)
        return Plan(True, [job], [lambda: self._end(job, "succeeded")]) if job else Plan(False)

    # -- workers

    def claim(self, worker: UUID, claim: UUID, low: int, high: int, limit: int) -> Plan:
        waiting = [
            job
            for job in self.free("queued")
            if low <= (job.position or 0) < high and not (job.ttl_h is not None and job.ttl_h <= 0)
        ]
        taken = sorted(waiting, key=lambda job: job.position or 0)[:limit] if self.alive(worker) else []

        def effect() -> None:
            if taken:
                self.claims[claim] = Taken(worker, {job.id: job.position or 0 for job in taken})
            for job in taken:
                job.start(claim)

        return Plan({job.id for job in taken}, taken, [effect])

    def record(self, outcomes: Iterable[Outcome]) -> Plan:
        """Completions, other ends and releases of one batch; the result: the runs whose ends are written."""
        plan = Plan(set(), [])
        for outcome in outcomes:
            job = self.fenced(outcome.run.id, outcome.run.claim.id)
            if job is not None and job.id not in self.held:
                plan.result.add(outcome.run)
                plan.jobs = [*plan.jobs, job]
                plan.effects.append(self._settling(job, outcome))
        return plan

    def found(self, run: Run) -> str:
        """What a worker finds out of an end that was not written: to be sent again, written before, or lost."""
        if self.fenced(run.id, run.claim.id):
            return "kept"
        job = self.jobs.get(run.id)
        return "recorded" if job is not None and job.claim == run.claim.id else "lost"

    def _settling(self, job: Expected, outcome: Outcome) -> Callable[[], None]:
        if outcome.ending == "succeeded":
            return lambda: self._end(job, "succeeded")
        if outcome.ending == "released":
            return lambda: self._release(job, outcome.delay_s)
        return lambda: self._settle(job, outcome)

    def _settle(self, job: Expected, outcome: Outcome) -> None:
        job.attempt -= outcome.refund
        job.crashes += outcome.crash
        job.failures += outcome.failure is not None
        if job.suspect and job.suspect.get("runs"):
            job.suspect = None
        if outcome.ending == "scheduled" and not job.asked:
            job.rest((outcome.delay_s or 0) / 3600)
            self.rolled["retried" if outcome.failure else "snoozed"] += 1
        else:
            self._end(job, "cancelled" if outcome.ending == "scheduled" else outcome.ending)

    def _release(self, job: Expected, away_s: float | None = None) -> None:
        position = self.claims[job.claim].positions[job.id]  # type: ignore[index]
        job.attempt, job.claim, job.run_h = job.attempt - 1, None, None
        if job.suspect:
            job.suspect = {"of": job.suspect["of"]}
        if job.asked:
            self._end(job, "cancelled")
        elif away_s is None:
            job.queue(position)
        else:
            job.suspect = (job.suspect or {"of": 1}) | {"place": position}
            job.rest(away_s / 3600)
            job.away = True

    def give_back(self, claim: UUID) -> None:
        """What a worker does with a claim that it has never heard of."""
        for job_id in self.claims[claim].positions:
            if (job := self.fenced(job_id, claim)) and job_id not in self.held:
                self._release(job)
        if not self.runs_under(claim):
            del self.claims[claim]

    def runs_under(self, claim: UUID) -> bool:
        return any(self.fenced(job_id, claim) for job_id in self.claims[claim].positions)

    def begin(self, job: Expected) -> Plan:
        def effect() -> None:
            job.suspect = (job.suspect or {"of": 1}) | {"runs": True}

        return Plan({job.id}, [job], [effect])

    # -- duties

    def _running(self, of: Collection[UUID]) -> list[Expected]:
        """Jobs that run under claims of these workers, whose rows nobody holds."""
        taken = [(job_id, claim) for claim, row in self.claims.items() if row.worker in of for job_id in row.positions]
        found = [self.fenced(job_id, claim) for job_id, claim in taken if job_id not in self.held]
        return [job for job in found if job is not None]

    def reap(self, begun: Collection[UUID] | None) -> Plan:
        plan = Plan({})
        plan.jobs = self._running([worker for worker, row in self.workers.items() if row.dead])
        for job in plan.jobs:
            ran = bool(job.suspect and job.suspect.get("runs"))
            alone = job.suspect is not None and job.suspect["of"] == 1
            crash = job.id in begun if begun is not None else ran and alone
            poison = crash and job.crashes + 1 >= MAX_CRASHES
            plan.result[job.id] = "cancelled" if job.asked else "failed" if poison else "queued"
            plan.effects.append(self._reaping(job, plan.result[job.id], crash, begun is None))
        return plan

    def _reaping(self, job: Expected, status: str, crash: bool, blind: bool) -> Callable[[], None]:
        position = self.claims[job.claim].positions[job.id]  # type: ignore[index]

        def effect() -> None:
            suspect = job.suspect or {}
            if suspect.get("runs"):
                job.suspect = {"of": max(suspect["of"] // 4, 1)}
            elif blind:
                job.suspect = {"of": suspect.get("of", 16)}
            if status != "queued":
                self._end(job, status)
            else:
                job.queue(NEW if crash and job.crashes else position)
                job.run_h = None
            job.crashes += crash
            job.failures += crash or blind
            job.attempt, job.claim = job.attempt - 1, None

        return effect

    def time_out(self) -> Plan:
        plan = Plan({})
        workers = [taken.worker for taken in self.claims.values()]
        plan.jobs = [job for job in self._running(workers) if job.run_h is not None and job.run_h > 1]
        for job in plan.jobs:
            spent = job.attempt >= job.max_attempts
            plan.result[job.id] = "cancelled" if job.asked else "failed" if spent else "scheduled"
            plan.effects.append(self._timing_out(job, plan.result[job.id]))
        return plan

    def _timing_out(self, job: Expected, status: str) -> Callable[[], None]:
        def effect() -> None:
            job.failures += 1
            job.claim = None
            if job.suspect and job.suspect.get("runs"):
                job.suspect = None
            if status == "scheduled":
                job.rest(1)
                self.rolled["retried"] += 1
            else:
                self._end(job, status)

        return effect

    def promote(self) -> Plan:
        due = [job for job in self.free("scheduled") if job.due_h is not None and job.due_h <= 0]
        return Plan(len(due), due, [lambda: [self._promote(job) for job in due] and None])

    def _promote(self, job: Expected) -> None:
        job.queue(job.suspect.pop("place") if job.away and job.suspect else NEW)

    def expire(self) -> Plan:
        late = [job for job in self.free("queued", "scheduled", "blocked") if job.ttl_h is not None and job.ttl_h <= 0]
        return Plan(len(late), late, [lambda: [self._end(job, "expired") for job in late] and None])

    def forget_dead_claims(self) -> set[UUID]:
        """Returns what goes."""
        gone = {
            claim for claim, row in self.claims.items() if not self.alive(row.worker) and not self.runs_under(claim)
        }
        for claim in gone:
            del self.claims[claim]
        return gone

    def mark_silent(self, interrupted: bool) -> set[UUID]:
        """Returns who is dead now."""
        dead = set()
        for worker, row in self.workers.items():
            if row.dead or not row.seen_h:
                continue
            still = row.beat == row.missed and not interrupted
            if still and row.misses >= 6:
                row.dead = True
                dead.add(worker)
            row.misses, row.missed = (row.misses + 1 if still else 1), row.beat
        return dead
