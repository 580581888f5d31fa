"""The overview as a terminal shows it."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from rich.console import Group
from rich.text import Text

from pgjobs.cli.grid import Bars, Column, Flow, Grid, glyphs
from pgjobs.insight.overview import WAITING, Overview, QueueView, WorkerLine
from pgjobs.wording import about, duration, one_line, plural, rate, short

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

    from pgjobs.statements import Mark, TaskStats

STYLES: Final = ("cyan", "yellow", "blue", "magenta")
"""Of running, queued, scheduled and blocked jobs."""

STATES: Final = {"busy": "cyan", "idle": "green", "quiet": "magenta", "suspect": "bold red", "stopping": "yellow"}
MOST_WORKERS: Final = 20
MOST_UNRUNNABLE: Final = 10


def picture(seen: Overview) -> RenderableType:
    """All of it."""
    parts: list[RenderableType] = [heading(seen), Text()]
    if seen.queues:
        parts += [Legend(seen), queue_table(seen.queues)]
    else:
        parts.append(Text("no queue has had a job yet"))
    if seen.workers:
        parts += [Text(), worker_table(_worst_first(seen.workers)[:MOST_WORKERS])]
        if len(seen.workers) > MOST_WORKERS:
            parts.append(Text(f"and {len(seen.workers) - MOST_WORKERS:,} more: pgjobs workers", "dim"))
    parts += notes(seen)
    return Group(*parts)


def heading(seen: Overview) -> Flow:
    """Workers, what was handled in the last hour, the rate, and the last mark."""
    states, flow = seen.states, Flow()
    shown = [
        state for state in (*STATES, *sorted(states.keys() - STATES)) if states[state] or state in ("busy", "idle")
    ]
    flow.add("", [plural(len(seen.workers), "worker")])
    flow.add(
        ", ", [Text(f"{states[state]:,} {state}", STATES.get(state, "") if states[state] else "") for state in shown]
    )
    handled = [Text(f"{count:,} {status}", "red" if status == "failed" else "") for status, count in _sorted(seen.hour)]
    first, *others = handled or [Text("nothing")]
    flow.add("  ·  ", [Text("last hour: ").append_text(first), *others])
    if pace := sum(queue.per_s for queue in seen.queues):
        flow.add("  ·  ", [rate(pace)])
    if seen.mark is not None:
        flow.add("  ·  ", [last_mark(seen.mark)])
    return flow


def last_mark(mark: Mark) -> Text:
    """The last mark, and how long ago that was."""
    ago = about((datetime.now(UTC) - mark.at).total_seconds())
    return Text.assemble("last mark: ", (mark.text, "bold"), f", {ago} ago")


def _sorted(hour: dict[str, int]) -> list[tuple[str, int]]:
    order = ["succeeded", "failed", "retried"]
    return sorted(hour.items(), key=lambda each: (order.index(each[0]) if each[0] in order else len(order), each[0]))


class Legend:
    """What the parts of the bars are."""

    def __init__(self, seen: Overview) -> None:
        self._any = [any(queue.waiting[index] for queue in seen.queues) for index in range(len(WAITING))]
        self._paused = any(queue.pause for queue in seen.queues)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        flow = Flow()
        for shown, glyph, style, status in zip(self._any, glyphs(console), STYLES, WAITING, strict=True):
            if shown:
                flow.add("  ", [Text.assemble((glyph, style), f" {status}")])
        if self._paused:
            flow.add("  ", [Text.assemble(("‖" if glyphs(console)[0] != "#" else "P", "yellow"), " paused")])
        if flow.parts:
            yield flow
            yield Text()


def queue_table(queues: Sequence[QueueView]) -> Grid:
    """The queues, a bar for each. What is dropped first where it is narrow has the highest rank."""

    def numbers(title: str, rank: int, counts: Sequence[int], style: str = "", *, always: bool = True) -> list[Column]:
        if not always and not any(counts):
            return []
        return [Column(title, [Text(f"{count:,}", style if count else "dim") for count in counts], rank)]

    lines = [queue.line for queue in queues]
    columns = [
        Column("queue", [_name(queue) for queue in queues], 0, right=False),
        *numbers("queued", 1, [line.queued for line in lines]),
        *numbers("running", 2, [line.running for line in lines]),
        *numbers("scheduled", 7, [line.scheduled for line in lines]),
        *numbers("blocked", 8, [queue.blocked for queue in queues], always=False),
        Column("oldest", [Text(_age(line.oldest_s)) for line in lines], 4),
        Column("rate", [Text(rate(queue.per_s), "" if queue.per_s else "dim") for queue in queues], 6),
        *numbers("handled", 9, [queue.handled for queue in queues]),
        *numbers("handled 1h", 11, [queue.handled_hour for queue in queues]),
        *numbers("failed", 3, [line.failed for line in lines], "red"),
        *numbers("failed 1h", 10, [queue.failed_hour for queue in queues], "red"),
    ]
    outlooks = [outlook(queue) for queue in queues]
    if any(outlooks):
        columns.append(Column("outlook", outlooks, 5, right=False))
    return Grid(columns, Bars([queue.waiting for queue in queues], STYLES))


def _name(queue: QueueView) -> Text:
    return Text.assemble(("‖ ", "yellow"), queue.name) if queue.pause else Text(queue.name)


def outlook(queue: QueueView) -> Text:
    """What becomes of the backlog: nothing where that cannot be said."""
    if queue.pause is not None:
        until = f" until {queue.pause.until.astimezone():%H:%M}" if queue.pause.until else ""
        return Text(f"paused{until}", "yellow")
    if queue.line.queued and not queue.is_served:
        return Text("no worker serves it", "red")
    forecast = queue.forecast
    if forecast is None:
        return Text()
    return Text(str(forecast), {"drains": "green", "grows": "red"}.get(forecast.course, "dim"))


def _worst_first(workers: Sequence[WorkerLine]) -> list[WorkerLine]:
    order = ["suspect", "stopping", "quiet", "busy", "idle"]
    return sorted(workers, key=lambda worker: (order.index(worker.state) if worker.state in order else 1, worker.name))


def worker_table(workers: Sequence[WorkerLine]) -> Grid:
    """Workers, what each does and holds, and when it was heard of last."""
    return Grid(
        [
            Column("worker", [Text(worker.name) for worker in workers], 0, right=False),
            Column(
                "state",
                [Text(worker.state, STATES.get(worker.state, "")) for worker in workers],
                1,
                right=False,
            ),
            Column("slots", [Text(f"{worker.running:,}/{worker.slots:,}") for worker in workers], 2),
            Column("last beat", [Text(f"{_age(worker.silent_s)} ago") for worker in workers], 3),
            Column("up for", [Text(_up(worker)) for worker in workers], 5),
            Column("queues", [Text(",".join(worker.queues)) for worker in workers], 4, right=False),
        ]
    )


def task_table(tasks: Sequence[TaskStats], paused: Container[str]) -> Grid:
    """Tasks, what each has ended in the last hour, and how long its successful runs took."""

    def counts(title: str, rank: int, values: Sequence[int], style: str = "") -> Column:
        return Column(title, [Text(f"{value:,}", style if value else "dim") for value in values], rank)

    names = [Text.assemble(("‖ ", "yellow"), each.name) if each.name in paused else Text(each.name) for each in tasks]
    return Grid(
        [
            Column("task", names, 0, right=False),
            Column("queue", [Text(each.queue or "") for each in tasks], 6, right=False),
            counts("succeeded 1h", 2, [each.succeeded for each in tasks]),
            counts("failed 1h", 1, [each.failed for each in tasks], "red"),
            counts("retried 1h", 3, [each.retried for each in tasks], "magenta"),
            Column("mean", [Text(_age(each.mean_s)) for each in tasks], 7),
            Column("p50", [Text(_age(each.p50_s)) for each in tasks], 5),
            Column("p95", [Text(_age(each.p95_s)) for each in tasks], 4),
        ]
    )


def _up(worker: WorkerLine) -> str:
    return about((datetime.now(UTC) - worker.started_at).total_seconds())


def notes(seen: Overview) -> Iterator[RenderableType]:
    """What is out of order, or stands still."""
    lines = [
        Text(f"{plural(count, 'job')} of {short(task)} cannot run here: {one_line(reason)}", "red")
        for task, reason, count in seen.unrunnable[:MOST_UNRUNNABLE]
    ]
    if len(seen.unrunnable) > MOST_UNRUNNABLE:
        lines.append(Text(f"and so {len(seen.unrunnable) - MOST_UNRUNNABLE:,} more: pgjobs doctor", "red"))
    for pause in seen.pauses:
        if pause.kind == "task":
            why = f" ({pause.reason})" if pause.reason else ""
            lines.append(Text(f"task {pause.name} is paused{why}", "yellow"))
    if lines:
        yield Text()
        yield from lines


def _age(value_s: float | None) -> str:
    return "" if value_s is None else duration(max(0.0, value_s)) if value_s < 90 else about(value_s)
