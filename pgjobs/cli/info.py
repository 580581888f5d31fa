"""``pgjobs info``: how the queues and the workers stand."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from pgjobs.cli import options

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pgjobs.app import PgJobs

BAR = 30


@dataclass(frozen=True, slots=True)
class QueueLine:
    """How one queue stands; oldest_s is the age of its longest waiting job, in seconds."""

    queue: str
    queued: int
    running: int
    scheduled: int
    succeeded: int
    failed: int
    cancelled: int
    expired: int
    retried: int
    oldest_s: float | None


@dataclass(frozen=True, slots=True)
class WorkerLine:
    """One worker that counts as alive."""

    id: UUID
    name: str
    host: str
    pid: int
    queues: list[str]
    slots: int
    started_at: Any
    silent_s: float
    stopping: bool
    running: int
    quiet: bool = False

    @property
    def state(self) -> str:
        """What it does."""
        if self.stopping:
            return "stopping"
        if self.quiet:
            return "quiet"
        return "busy" if self.running else "idle"

    def document(self) -> dict[str, Any]:
        """As JSON shows it."""
        return asdict(self) | {"state": self.state}


@click.command()
@click.option("--watch", type=click.FloatRange(0.1), metavar="SECONDS", help="Show it again and again.")
@options.as_json
@options.database
def command(watch: float | None, as_json: bool, app: str | None, url: str | None, schema: str | None) -> None:
    """Show queues, workers and what they have handled."""
    jobs = options.jobs_of(app, url, schema)
    if as_json:
        queues, workers, handled, unrunnable = read(jobs)
        waiting = [{"task": task, "reason": reason, "jobs": count} for task, reason, count in unrunnable]
        lines = [worker.document() for worker in workers]
        options.write_json({"queues": queues, "workers": lines, "last_hour": handled, "unrunnable": waiting})
        return
    out = options.console()
    if watch is None:
        out.print(picture(*read(jobs)))
        return
    from rich.live import Live

    with Live(console=out, screen=False, auto_refresh=False) as live:
        while True:
            live.update(picture(*read(jobs)), refresh=True)
            time.sleep(watch)


def read(jobs: PgJobs) -> tuple[list[QueueLine], list[WorkerLine], dict[str, int], list[tuple[str, str, int]]]:
    """Reads queues, workers, what was handled in the last hour by status, and what no worker can run."""
    from pgjobs import statements

    run = jobs.database.run
    queues = [QueueLine(*row) for row in run(statements.queue_stats())]
    workers = [WorkerLine(*row) for row in run(statements.workers())]
    return queues, workers, run(statements.throughput(60)), run(statements.unrunnable())


def picture(
    queues: list[QueueLine],
    workers: list[WorkerLine],
    handled: dict[str, int],
    unrunnable: list[tuple[str, str, int]],
) -> RenderableType:
    """Draws it for a terminal."""
    from rich.console import Group
    from rich.text import Text

    from pgjobs.wording import plural

    busy = sum(worker.state == "busy" for worker in workers)
    of = ", ".join(f"{count:,} {status}" for status, count in sorted(handled.items())) or "nothing"
    summary = f"{plural(len(workers), 'worker')}, {busy} busy, {len(workers) - busy} idle · last hour: {of}"
    parts: list[RenderableType] = [_queue_table(queues) if queues else Text("no queue has had a job yet"), Text()]
    if workers:
        parts += [worker_table(workers), Text()]
    for task, reason, count in unrunnable:
        parts.append(Text(f"{plural(count, 'job')} of {task} cannot run here: {reason}", "red"))
    return Group(*parts, Text(summary))


def _queue_table(queues: list[QueueLine]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    longest = max(queue.queued + queue.running for queue in queues) or 1
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("queue")
    table.add_column("")
    for title in ("queued", "running", "scheduled", "succeeded", "failed", "oldest"):
        table.add_column(title, justify="right")
    for queue in queues:
        bar = Text()
        bar.append("█" * _width(queue.running, longest), "cyan")
        bar.append("█" * _width(queue.queued, longest), "yellow")
        failed = Text(f"{queue.failed:,}", "red" if queue.failed else "")
        counts = [f"{count:,}" for count in (queue.queued, queue.running, queue.scheduled, queue.succeeded)]
        table.add_row(queue.queue, bar, *counts, failed, _age(queue.oldest_s))
    return table


def worker_table(workers: list[WorkerLine]) -> RenderableType:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("worker", "queues", "state", "slots", "last beat"):
        table.add_column(title)
    for worker in workers:
        beat = f"{_age(worker.silent_s)} ago"
        table.add_row(worker.name, ",".join(worker.queues), worker.state, f"{worker.running}/{worker.slots}", beat)
    return table


def _width(count: int, longest: int) -> int:
    return 0 if not count else max(1, round(BAR * count / longest))


def _age(value_s: float | None) -> str:
    from pgjobs.wording import duration

    return "" if value_s is None else duration(max(0.0, value_s))
