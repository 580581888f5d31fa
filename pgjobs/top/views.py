"""The views of ``pgjobs top``, in the order of their tabs. A feature adds its own with ``register``."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from rich.text import Text

from pgjobs import statements
from pgjobs.arguments.cipher import sealed
from pgjobs.insight.overview import QueueView, WorkerLine, overview
from pgjobs.insight.shown import without_private
from pgjobs.job import Status
from pgjobs.statements import Alike, Steps, TaskStats
from pgjobs.top import actions
from pgjobs.top.view import Action, Column, Section, View
from pgjobs.wording import about, duration, plural, rate

if TYPE_CHECKING:
    from pgjobs.app import PgJobs
    from pgjobs.job import FailureRow, JobRow, LogRow

LATEST: Final = 300
"""So many jobs are shown, those that run first."""

KINDS: Final = 200
LINES: Final = 500
STATUS_STYLES: Final = {
    "running": "cyan", "queued": "yellow", "scheduled": "blue", "blocked": "magenta", "succeeded": "green",
    "failed": "red", "cancelled": "dim", "expired": "dim",
}  # fmt: skip
STATE_STYLES: Final = {"busy": "cyan", "idle": "green", "quiet": "magenta", "suspect": "bold red", "stopping": "yellow"}


def count(value: int, style: str = "") -> Text:
    """A number; one that is nothing keeps back."""
    return Text(f"{value:,}", style if value else "dim")


def age(value_s: float | None) -> str:
    """A length of time, short."""
    if value_s is None:
        return ""
    return duration(max(0.0, value_s)) if value_s < 90 else about(value_s)


def ago(moment: datetime | None) -> str:
    """How long ago a moment was."""
    return "" if moment is None else age((datetime.now(UTC) - moment).total_seconds())


# -- queues


def _read_queues(jobs: PgJobs) -> Steps[list[QueueView]]:
    return (yield from overview()).queues


def _outlook(queue: QueueView) -> Text:
    if queue.pause is not None:
        return Text("paused", "yellow")
    if queue.line.queued and not queue.is_served:
        return Text("no worker serves it", "red")
    if (forecast := queue.forecast) is None:
        return Text()
    return Text(str(forecast), {"drains": "green", "grows": "red"}.get(forecast.course, "dim"))


def _ask_queue(queue: QueueView) -> str:
    waits = plural(queue.line.queued, "job")
    if queue.pause is not None:
        return f"Resume queue {queue.name}? {waits} will start."
    return f"Pause queue {queue.name}? {waits} will wait; what runs goes on."


QUEUES: Final = View[QueueView](
    "queues",
    [
        Column("queue", lambda queue: Text.assemble(("‖ " if queue.pause else "", "yellow"), queue.name),
               lambda queue: queue.name),
        Column("backlog", lambda queue: "", lambda queue: sum(queue.waiting), 6, 16, parts=lambda queue: queue.waiting),
        Column("queued", lambda queue: count(queue.line.queued), lambda queue: queue.line.queued, 1, 9, right=True),
        Column("running", lambda queue: count(queue.line.running, "cyan"),
               lambda queue: queue.line.running, 2, 7, right=True),
        Column("scheduled", lambda queue: count(queue.line.scheduled),
               lambda queue: queue.line.scheduled, 8, 9, right=True),
        Column("blocked", lambda queue: count(queue.blocked), lambda queue: queue.blocked, 9, 7, right=True),
        Column("failed", lambda queue: count(queue.line.failed, "red"),
               lambda queue: queue.line.failed, 3, 9, right=True),
        Column("handled", lambda queue: count(queue.handled), lambda queue: queue.handled, 10, 12, right=True),
        Column("oldest", lambda queue: age(queue.line.oldest_s), lambda queue: queue.line.oldest_s, 5, 8, right=True),
        Column("rate", lambda queue: Text(rate(queue.per_s), "" if queue.per_s else "dim"),
               lambda queue: queue.per_s, 7, 9,
               right=True),
        Column("outlook", _outlook, lambda queue: str(_outlook(queue)), 4, 27),
    ],
    _read_queues,
    lambda queue: queue.name,
    [Action("p", "pause or resume", _ask_queue,
            lambda jobs, queue: actions.toggle_queue(jobs, queue.name, paused=queue.pause is not None))],
    empty="no queue has had a job yet",
)  # fmt: skip


# -- tasks


class TaskLine:
    """A task, and whether it is paused."""

    def __init__(self, stats: TaskStats, *, paused: bool) -> None:
        self.stats = stats
        self.paused = paused


def _read_tasks(jobs: PgJobs) -> Steps[list[TaskLine]]:
    stats: list[TaskStats] = yield statements.task_stats()
    pauses: list[Any] = yield statements.pauses()
    paused = {pause.name for pause in pauses if pause.kind == "task"}
    return [TaskLine(each, paused=each.name in paused) for each in stats]


def _ask_task(line: TaskLine) -> str:
    name = line.stats.name
    if line.paused:
        return f"Resume task {name}? Its jobs start again, in their old order."
    return f"Pause task {name}? All its jobs will be put on hold when it is their turn; what runs goes on."


TASKS: Final = View[TaskLine](
    "tasks",
    [
        Column("task", lambda line: Text.assemble(("‖ " if line.paused else "", "yellow"), line.stats.name),
               lambda line: line.stats.name),
        Column("queue", lambda line: line.stats.queue or "", lambda line: line.stats.queue, 5, 14),
        Column("succeeded", lambda line: count(line.stats.succeeded),
               lambda line: line.stats.succeeded, 1, 10, right=True),
        Column("failed", lambda line: count(line.stats.failed, "red"),
               lambda line: line.stats.failed, 2, 8, right=True),
        Column("retried", lambda line: count(line.stats.retried, "magenta"), lambda line: line.stats.retried, 3, 8,
               right=True),
        Column("mean", lambda line: age(line.stats.mean_s), lambda line: line.stats.mean_s, 7, 8, right=True),
        Column("p50", lambda line: age(line.stats.p50_s), lambda line: line.stats.p50_s, 6, 8, right=True),
        Column("p95", lambda line: age(line.stats.p95_s), lambda line: line.stats.p95_s, 4, 8, right=True),
    ],
    _read_tasks,
    lambda line: line.stats.name,
    [Action("p", "pause or resume", _ask_task,
            lambda jobs, line: actions.toggle_task(jobs, line.stats.name, paused=line.paused))],
    empty="no task is known; workers publish theirs when they start",
)  # fmt: skip


# -- workers


def _read_workers(jobs: PgJobs) -> Steps[list[WorkerLine]]:
    rows: Any = yield statements.workers()
    return [WorkerLine(*row) for row in rows]


def _ask_worker(worker: WorkerLine) -> str | None:
    if worker.stopping:
        return None
    if worker.quiet:
        return f"Have {worker.name} claim again?"
    return (
        f"Have {worker.name} claim no more? {plural(worker.running, 'job')} that it holds will be finished; it stays."
    )


def _ask_stop(worker: WorkerLine) -> str | None:
    return None if worker.stopping else f"Stop {worker.name}? It finishes what runs, and nobody follows it."


WORKERS: Final = View[WorkerLine](
    "workers",
    [
        Column("worker", lambda worker: worker.name, lambda worker: worker.name),
        Column("state", lambda worker: Text(worker.state, STATE_STYLES.get(worker.state, "")),
               lambda worker: worker.state,
               1, 8),
        Column("slots", lambda worker: f"{worker.running:,}/{worker.slots:,}", lambda worker: worker.running, 2, 9,
               right=True),
        Column("last beat", lambda worker: age(worker.silent_s), lambda worker: worker.silent_s, 3, 9, right=True),
        Column("up for", lambda worker: ago(worker.started_at), lambda worker: worker.started_at, 5, 8, right=True),
        Column("queues", lambda worker: ",".join(worker.queues), lambda worker: ",".join(worker.queues), 4, 20),
    ],
    _read_workers,
    lambda worker: str(worker.id),
    [
        Action("p", "quiet or resume", _ask_worker, actions.toggle_worker),
        Action("x", "stop", _ask_stop, actions.stop_worker),
    ],
    empty="no worker; start one with: pgjobs worker -A app.tasks",
)  # fmt: skip


# -- jobs


def _read_jobs(jobs: PgJobs) -> Steps[list[JobRow]]:
    held: list[Any] = yield statements.held(LATEST)
    running: dict[Any, JobRow] = yield statements.jobs_by_id(held)
    latest: list[JobRow] = yield statements.jobs(statements.Selection([each.value for each in Status]), LATEST)
    rows = {row.id: row for row in (*running.values(), *latest)}
    return [without_private(jobs, row) for row in rows.values()]


def document(value: Any) -> str:
    """A JSON value in a line; what is encrypted is not shown."""
    return json.dumps(value, ensure_ascii=False) if sealed(value) is None else "[encrypted]"


def _detail_job(jobs: PgJobs, shown: JobRow) -> Steps[list[Section]]:
    row: JobRow | None = yield statements.job(shown.id)
    if row is None:
        return [("job", f"{shown.id} is there no more")]
    row = without_private(jobs, row)
    failures: list[FailureRow] = yield statements.failures(row.id)
    lines: list[LogRow] = yield statements.logs(row.id, 0, LINES)
    sections: list[Section] = [("job", _facts(row)), ("arguments", document(row.args))]
    for name, value in (("progress", row.progress), ("meta", row.meta), ("result", row.result)):
        if value is not None:
            sections.append((name, document(value)))
    for failure in failures:
        text = (failure.traceback or failure.message or failure.reason).rstrip()
        sections.append((f"attempt {failure.attempt} failed {failure.failed_at:%Y-%m-%d %H:%M:%S}", Text(text, "red")))
    if lines:
        logged = "\n".join(f"{line.at:%H:%M:%S} {line.level.upper():7} {line.line}" for line in lines)
        sections.append(("log", logged))
    return sections


def _facts(row: JobRow) -> Text:
    text = Text()
    status = Text(row.status.value, STATUS_STYLES[row.status.value])
    facts: list[tuple[str, Text | str | None]] = [
        ("id", str(row.id)),
        ("task", row.task),
        ("status", status),
        ("queue", f"{row.queue}, priority {row.priority}"),
        ("attempt", f"{row.attempt} of {row.max_attempts}" + (f", {row.crashes} crashes" if row.crashes else "")),
        ("reason", row.reason),
        ("created", _when(row.created_at)),
        ("due", _when(row.due_at)),
        ("expires", _when(row.expires_at)),
        ("started", _when(row.started_at)),
        ("finished", _when(row.finished_at)),
    ]
    for name, value in facts:
        if value is not None:
            text.append(f"{name:9} ", "dim").append_text(value if isinstance(value, Text) else Text(value)).append("\n")
    text.rstrip()
    return text


def _when(moment: datetime | None) -> str | None:
    if moment is None:
        return None
    off_s = (moment - datetime.now(UTC)).total_seconds()
    return f"{moment:%Y-%m-%d %H:%M:%S%z}, " + (f"in {about(off_s)}" if off_s > 0 else f"{about(-off_s)} ago")


def _ask_retry(row: JobRow) -> str | None:
    if not row.status.ended:
        return None
    return f"Queue 1 job of {row.task} again? It is {row.status.value}: {row.id}"


def _ask_cancel(row: JobRow) -> str | None:
    return None if row.status.ended else f"Cancel 1 job of {row.task}? It is {row.status.value}: {row.id}"


JOBS: Final = View["JobRow"](
    "jobs",
    [
        Column("task", lambda row: row.task, lambda row: row.task),
        Column("status", lambda row: Text(row.status.value, STATUS_STYLES[row.status.value]),
               lambda row: row.status.value,
               1, 9),
        Column("queue", lambda row: row.queue, lambda row: row.queue, 4, 12),
        Column("attempt", lambda row: f"{row.attempt}/{row.max_attempts}", lambda row: row.attempt, 5, 7, right=True),
        Column("age", lambda row: ago(row.created_at), lambda row: -row.created_at.timestamp(), 2, 8, right=True),
        Column("id", lambda row: str(row.id), lambda row: row.id, 7, 36),
        Column("arguments", lambda row: document(row.args)[:60], lambda row: document(row.args), 6, 40),
    ],
    _read_jobs,
    lambda row: str(row.id),
    [
        Action("r", "retry", _ask_retry, lambda jobs, row: actions.retry_job(jobs, row.id)),
        Action("c", "cancel", _ask_cancel, lambda jobs, row: actions.cancel_job(jobs, row.id)),
    ],
    _detail_job,
    sorted_by=(4, False),
    empty="no jobs",
)  # fmt: skip


# -- failures


def _read_failures(jobs: PgJobs) -> Steps[list[Alike]]:
    found: list[Alike] = yield statements.lately_alike(None, None, KINDS)
    return found


def _detail_failures(jobs: PgJobs, alike: Alike) -> Steps[list[Section]]:
    failed: list[Any] = yield statements.jobs_alike(alike.fingerprint, 50)
    sections: list[Section] = [
        (
            "failures",
            f"{alike.attempts:,} attempts of {plural(alike.jobs, 'job')} of {alike.task}; {alike.failed:,} failed",
        ),
        ("seen", f"first {ago(alike.first_at)} ago, last {ago(alike.last_at)} ago"),
    ]
    if failed:
        text = (failed[0].traceback or failed[0].message or "").rstrip()
        sections.append(("the last of them", Text(text, "red")))
        lines = (f"{job.id}  {job.status:9}  attempt {job.attempt}  {ago(job.failed_at)} ago" for job in failed)
        sections.append(("jobs", "\n".join(lines)))
    return sections


def _what(alike: Alike) -> str:
    return ": ".join(text for text in (alike.exception, (alike.message or "").partition("\n")[0]) if text)


def _ask_retry_alike(alike: Alike) -> str | None:
    if not alike.failed:
        return None
    return f"Queue {plural(alike.failed, 'failed job')} of {alike.task} again? They failed with {_what(alike)[:80]}"


def _ask_cancel_alike(alike: Alike) -> str | None:
    left = alike.jobs - alike.failed
    if not left:
        return None
    return (
        f"Cancel what has not ended of {plural(left, 'job')} of {alike.task}? They failed once with {_what(alike)[:80]}"
    )


FAILURES: Final = View[Alike](
    "failures",
    [
        Column("exception", _what, _what),
        Column("task", lambda alike: alike.task, lambda alike: alike.task, 2, 22),
        Column("attempts", lambda alike: count(alike.attempts), lambda alike: alike.attempts, 4, 8, right=True),
        Column("jobs", lambda alike: count(alike.jobs), lambda alike: alike.jobs, 3, 7, right=True),
        Column("failed", lambda alike: count(alike.failed, "red"), lambda alike: alike.failed, 1, 7, right=True),
        Column("last seen", lambda alike: ago(alike.last_at),
               lambda alike: -alike.last_at.timestamp(), 1, 9, right=True),
    ],
    _read_failures,
    lambda alike: f"{alike.fingerprint} {alike.task}",
    [
        Action("r", "retry all", _ask_retry_alike, actions.retry_alike),
        Action("c", "cancel all", _ask_cancel_alike, actions.cancel_alike),
    ],
    _detail_failures,
    every_s=10.0,
    sorted_by=(5, False),
    empty="no failures",
)  # fmt: skip


VIEWS: Final[list[View[Any]]] = [QUEUES, TASKS, WORKERS, JOBS, FAILURES]


def register(view: View[Any]) -> None:
    """Adds a view, as the last tab."""
    VIEWS.append(view)
