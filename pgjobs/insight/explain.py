"""Why a job stands where it stands: each reason a sentence, with the command that changes it where there is one.

A reason is found by a small function from the facts to reasons; a feature that makes jobs wait adds its own to
``REASONS``, and what that one has to know to ``Facts``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from pgjobs import statements
from pgjobs.job import JobRow, Status
from pgjobs.statements import Deed, Member, Pause, Standing, Steps
from pgjobs.wording import duration, plural

__all__ = ["REASONS", "Facts", "Reason", "explain"]

COUNTED: Final = 1_000
"""So many jobs ahead are counted; beyond, it says "over 1,000"."""

ASIDE: Final = ("unknown task", "arguments do not fit", "options do not fit", "task cannot be made ready")
"""With these reasons a worker has sent a job back that it cannot run."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a job waits, runs, or has ended.

    Attributes:
        code: a word for programs, such as ``queue_paused``.
        text: a sentence for people.
        remedy: the command that changes it, or None where there is nothing to be done.
    """

    code: str
    text: str
    remedy: str | None = None

    def __str__(self) -> str:
        return f"{self.text}: {self.remedy}" if self.remedy else self.text


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a job and of what surrounds it."""

    row: JobRow
    standing: Standing
    pauses: Sequence[Pause]
    fleet: Sequence[Member]
    deeds: Sequence[Deed]

    @property
    def waits(self) -> bool:
        """Whether it has yet to be claimed, now or later."""
        return self.row.status in (Status.QUEUED, Status.SCHEDULED, Status.BLOCKED)

    @property
    def deadline(self) -> datetime | None:
        """When all of its attempts must be over."""
        length = _number(self.row.options, "deadline")
        return None if length is None else self.row.created_at + timedelta(seconds=length)

    def pause(self, kind: str, name: str) -> Pause | None:
        """The pause of a queue or a task, if there is one."""
        return next((pause for pause in self.pauses if (pause.kind, pause.name) == (kind, name)), None)

    def who(self, action: str) -> str:
        """Who has done it, as the audit knows; else nothing."""
        deed = next((deed for deed in self.deeds if deed.action == action), None)
        return f" by {deed.actor} at {_time(deed.at)}" if deed else ""


def explain(job_id: UUID) -> Steps[list[Reason]]:
    """The reasons of a job; of one that is not there, what may have become of it."""
    row = yield statements.job(job_id)
    standing = yield statements.standing_of(job_id)
    deeds = yield statements.deeds(job_id)
    if row is None or standing is None:
        return [_absent(job_id, deeds)]
    pauses = yield statements.pauses()
    fleet = yield statements.fleet()
    facts = Facts(row, standing, pauses, fleet, deeds)
    return [reason for find in REASONS for reason in find(facts)]


def _absent(job_id: UUID, deeds: Sequence[Deed]) -> Reason:
    if deleted := next((deed for deed in deeds if deed.action == "delete"), None):
        return Reason("deleted", f"there is no job {job_id}: it was deleted by {deleted.actor} at {_time(deleted.at)}")
    made = f"; its id was made at {_time(_made_at(job_id))}" if job_id.version == 7 else ""
    return Reason(
        "absent",
        f"there is no job {job_id}: its transaction is not committed or was rolled back, it was deleted, or it ended "
        f"and was pruned after its result_ttl (a day by default; 30 days where it had failed){made}",
    )


def _made_at(job_id: UUID) -> datetime:
    return datetime.fromtimestamp((job_id.int >> 80) / 1000, UTC)


# -- what keeps a waiting job


def _held(facts: Facts) -> Iterator[Reason]:
    if facts.row.status is Status.BLOCKED and facts.standing.hold == "job":
        why = (facts.row.reason or "").removeprefix("held").removeprefix(": ")
        who = facts.who("hold") or f" since {_time(facts.standing.held_at)}"
        yield Reason("held", f"it was put on hold{who}{_because(why)}", f"pgjobs jobs unhold {facts.row.id}")


def _queue_paused(facts: Facts) -> Iterator[Reason]:
    name = facts.row.queue
    if facts.waits and (pause := facts.pause("queue", name)):
        yield Reason("queue_paused", f"its queue {name} is paused{_since(pause)}", f"pgjobs queues resume {name}")


def _task_paused(facts: Facts) -> Iterator[Reason]:
    name = facts.row.task
    if facts.waits and (pause := facts.pause("task", name)):
        yield Reason("task_paused", f"its task {name} is paused{_since(pause)}", f"pgjobs tasks resume {name}")
    elif facts.row.status is Status.BLOCKED and facts.standing.hold == "task":
        yield Reason("task_resumed", f"its task {name} was paused and is resumed; a worker queues it within a second")


def _blocked(facts: Facts) -> Iterator[Reason]:
    if facts.row.status is Status.BLOCKED and facts.standing.hold is None:
        what = f"waits for {plural(facts.standing.blockers, 'other job')}" if facts.standing.blockers else "is blocked"
        yield Reason("blocked", f"it {what}{_because(facts.row.reason)}")


def _scheduled(facts: Facts) -> Iterator[Reason]:
    row = facts.row
    if row.due_at is None:
        return
    left_s = (row.due_at - facts.standing.at).total_seconds()
    now = f"pgjobs jobs run-now {row.id}"
    if row.reason and row.reason.startswith(ASIDE):
        yield _aside(facts)
    elif row.reason == "waits to run apart":
        yield Reason("apart", f"it was in a death, and waits for its turn to run apart, at {_time(row.due_at)}", now)
    elif row.attempt and row.reason and row.reason != "snoozed":
        tried = f"attempt {row.attempt} of {row.max_attempts} has failed ({_failure(facts)})"
        yield Reason("retrying", f"{tried}, and the next one is due at {_time(row.due_at)}{_within(left_s)}", now)
    elif left_s > 0:
        yield Reason("scheduled", f"it is due at {_time(row.due_at)}{_within(left_s)}{_because(row.reason)}", now)
    else:
        yield Reason("overdue", f"it has been due since {_time(row.due_at)}; the next worker that looks queues it", now)


def _aside(facts: Facts) -> Reason:
    row = facts.row
    if row.reason == "unknown task":
        return Reason(
            "unknown_task",
            f"a worker of its queue does not know its task {row.task}, and has sent it back until {_time(row.due_at)}",
            "restart the workers with the module that defines it: pgjobs worker -A MODULE",
        )
    broken = (row.reason or "").startswith("task ")
    return Reason(
        "misfit",
        f"a worker has sent it back until {_time(row.due_at)}, because its {row.reason}",
        "mend what raises that, and restart the workers"
        if broken
        else f"pgjobs jobs cancel {row.id}; enqueue it again as its task wants it",
    )


def _suspect(facts: Facts) -> Iterator[Reason]:
    if facts.waits and _option(facts.row.options, "suspect") is not None:
        yield Reason(
            "suspect",
            "the worker that ran it has died, and nobody knows whether by its fault: it waits to run with few others, "
            "so that it takes nobody with it",
        )
    elif facts.waits and facts.row.crashes:
        times = plural(facts.row.crashes, "time")
        yield Reason("crashed", f"its process has died {times}: it runs in one of its own, and is given up after three")


def _unserved(facts: Facts) -> Iterator[Reason]:
    if not facts.waits:
        return
    queue, living = facts.row.queue, [member for member in facts.fleet if member.lives]
    start = f"pgjobs worker -A MODULE -Q {queue}"
    if queue.startswith("@") and not any(member.serves(queue) for member in living):
        yield Reason(
            "worker_gone", "it was enqueued for one worker, and that one is gone", f"pgjobs jobs cancel {facts.row.id}"
        )
    elif not living:
        yield Reason("no_worker", "no worker lives", start)
    elif not any(member.serves(queue) for member in living):
        served = sorted({pattern for member in living for pattern in member.queues})
        yield Reason("unserved", f"no living worker serves its queue {queue}; served are {', '.join(served)}", start)
    elif all(member.quiet for member in living if member.serves(queue)):
        yield Reason("quiet", f"every worker that serves its queue {queue} is quiet", "pgjobs workers resume --all")


def _unpublished(facts: Facts) -> Iterator[Reason]:
    row = facts.row
    known = facts.standing.published or ":" in row.task or row.reason == "unknown task"
    if facts.waits and not known:
        yield Reason(
            "unpublished",
            f"no worker has ever said that it knows a task {row.task} (pgjobs.tasks)",
            "start a worker with the module that defines it: pgjobs worker -A MODULE",
        )


def _ahead(facts: Facts) -> Iterator[Reason]:
    if facts.row.status is not Status.QUEUED:
        return
    count, lately = facts.standing.ahead, facts.standing.lately
    pace = f"; its queue has ended {plural(lately, 'job')} in the last ten minutes"
    if count > COUNTED:
        text = f"over {COUNTED:,} jobs of its queue {facts.row.queue} are claimed before it{pace}"
    elif count:
        verb = "is" if count == 1 else "are"
        text = f"{plural(count, 'job')} of its queue {facts.row.queue} {verb} claimed before it{pace}"
    else:
        yield Reason("next", f"it is the next of its queue {facts.row.queue}, and starts when a worker has a free slot")
        return
    yield Reason("ahead", text, f"pgjobs jobs prioritize {facts.row.id} --to {min(100, facts.row.priority + 10)}")


def _expires(facts: Facts) -> Iterator[Reason]:
    row = facts.row
    if not facts.waits or row.expires_at is None:
        return
    ends = "fails" if _option(row.options, "on_expiry") == "fail" or row.expires_at == facts.deadline else "expires"
    which = "deadline" if row.expires_at == facts.deadline else "ttl"
    yield Reason("ttl", f"it {ends} at {_time(row.expires_at)}, by its {which}, if it has not started")


# -- what is so of one that runs


def _running(facts: Facts) -> Iterator[Reason]:
    row, standing = facts.row, facts.standing
    if row.status is not Status.RUNNING:
        return
    cancel = f"pgjobs jobs cancel {row.id}"
    if not standing.claimed:
        yield Reason(
            "no_claim", "it runs under a claim that is not there, so nobody will end it", f"pgjobs jobs delete {row.id}"
        )
    elif standing.worker is None:
        yield Reason(
            "no_claim", "it runs under the claim of a worker that is not there", f"pgjobs jobs delete {row.id}"
        )
    elif standing.dead_at is not None or (standing.silent_s or 0) >= statements.SILENT_S:
        seen = f"was last seen {duration(standing.silent_s or 0)} ago"
        yield Reason(
            "worker_lost",
            f"its worker {standing.worker} (pid {standing.pid} on {standing.host}) {seen}; another queues it again",
            "pgjobs workers",
        )
    else:
        where = f"on worker {standing.worker} (pid {standing.pid} on {standing.host})"
        since = f"since {_time(standing.claimed_at)}"
        yield Reason("running", f"attempt {row.attempt} of {row.max_attempts} runs {where} {since}", cancel)


def _timeout(facts: Facts) -> Iterator[Reason]:
    row = facts.row
    if row.status is Status.RUNNING and row.timeout is not None and row.started_at is not None:
        ends = min(filter(None, (row.started_at + row.timeout, facts.deadline)))
        yield Reason("timeout", f"the attempt is ended at {_time(ends)}, by its timeout or deadline")


def _cancelling(facts: Facts) -> Iterator[Reason]:
    row = facts.row
    if row.status is Status.RUNNING and row.cancel_at is not None:
        who = facts.who("cancel") or f" at {_time(row.cancel_at)}"
        yield Reason(
            "cancelling",
            f"it was asked to stop{who}{_because(row.reason)}; a thread looks at current_job().is_cancelled",
        )


# -- why one has ended


def _ended(facts: Facts) -> Iterator[Reason]:
    row = facts.row
    if row.status is Status.SUCCEEDED:
        yield Reason("succeeded", f"it succeeded at {_time(row.finished_at)}, attempt {row.attempt}")
    elif row.status.ended:
        at, retry = _time(row.finished_at), f"pgjobs jobs retry {row.id}"
        text = {
            Status.FAILED: f"it failed at {at}, attempt {row.attempt} of {row.max_attempts} ({_failure(facts)})",
            Status.CANCELLED: f"it was cancelled{facts.who('cancel') or f' at {at}'}{_because(row.reason)}",
            Status.EXPIRED: f"it expired at {at}: its ttl passed before it had started",
        }[row.status]
        yield Reason(row.status.value, text, retry)


def _unique(facts: Facts) -> Iterator[Reason]:
    row, key = facts.row, facts.standing.unique_key
    if key is None:
        return
    period = _number(row.options, "unique_for")
    until = "until it has ended" if period is None else f"until {_time(row.created_at + timedelta(seconds=period))}"
    yield Reason("unique", f"it holds its unique key {until}: an enqueue with the same key meets this job")


REASONS: Final[Sequence[Callable[[Facts], Iterator[Reason]]]] = (
    _ended, _running, _timeout, _cancelling, _held, _queue_paused, _task_paused, _blocked, _scheduled, _suspect,
    _unserved, _unpublished, _ahead, _expires, _unique,
)  # fmt: skip


def _failure(facts: Facts) -> str:
    standing = facts.standing
    if standing.exception is None:
        return facts.row.reason or "no reason recorded"
    lines = (standing.message or "").splitlines() or [""]
    return f"{standing.exception}: {lines[0][:200]}" if lines[0] else standing.exception


def _option(options: Any, name: str) -> Any:
    """An option of a row; SQL may have written anything."""
    return options.get(name) if isinstance(options, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


def _number(options: Any, name: str) -> float | None:
    """An option that is a number of seconds."""
    value = _option(options, name)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number and 0 <= value <= 3_153_600_000 else None


def _since(pause: Pause) -> str:
    until = f" until {_time(pause.until)}" if pause.until else ""
    return f" since {_time(pause.paused_at)}{until}{_because(pause.reason)}"


def _because(reason: str | None) -> str:
    return f" ({reason})" if reason else ""


def _within(left_s: float) -> str:
    return f", in {duration(left_s)}" if left_s > 0 else ""


def _time(at: datetime | None) -> str:
    return "an unknown time" if at is None else f"{at:%Y-%m-%d %H:%M:%S%z}"
