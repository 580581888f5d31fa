"""``pgjobs queues``: list, pause, resume, clear, drain."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from pgjobs.cli import completion, options
from pgjobs.wording import one_line

if TYPE_CHECKING:
    from pgjobs.statements import Pause

after = click.option("--for", "length", metavar="DURATION", help="Resume it then, as in 10m or 1h.")
reason = click.option("--reason", help="Why, for others to read.")

LOOK_S = 0.5
"""How often drain looks."""


@click.group()
def command() -> None:
    """List, pause, resume, drain or clear queues."""


@command.command("list")
@options.as_json
@options.database
def list_(as_json: bool, app: str | None, url: str | None, schema: str | None) -> None:
    """List the queues, and what is paused, tasks included."""
    from pgjobs import statements
    from pgjobs.insight.overview import QueueLine

    jobs = options.jobs_of(app, url, schema)
    pauses = jobs.pauses()
    lines = {line.queue: line for line in (QueueLine(*row) for row in jobs.database.run(statements.queue_stats()))}
    for pause in pauses:
        if pause.kind == "queue" and pause.name not in lines:
            lines[pause.name] = QueueLine(pause.name, 0, 0, 0, 0, 0, 0, 0, 0, None)
    if as_json:
        options.write_json({"queues": list(lines.values()), "pauses": [pause._asdict() for pause in pauses]})
        return
    paused = {pause.name: pause for pause in pauses if pause.kind == "queue"}
    for name, line in sorted(lines.items()):
        state = _state(paused[name]) if name in paused else "active"
        said = f"{name}: {line.queued:,} queued, {line.running:,} running, {line.scheduled:,} scheduled; {state}"
        click.echo(one_line(said))
    for pause in pauses:
        if pause.kind == "task":
            click.echo(one_line(f"task {pause.name}: {_state(pause)}"))
    if not lines and not pauses:
        click.echo("no queue has had a job yet")


def _state(pause: Pause) -> str:
    until = f" until {pause.until:%Y-%m-%d %H:%M:%S%z}" if pause.until else ""
    return f"paused{until}" + (f" ({pause.reason})" if pause.reason else "")


@command.command()
@click.argument("name", shell_complete=completion.queues)
@after
@reason
@options.database
def pause(
    name: str, length: str | None, reason: str | None, app: str | None, url: str | None, schema: str | None
) -> None:
    """Pause a queue, for all workers: what runs goes on to its end, and jobs may still be enqueued."""
    options.jobs_of(app, url, schema).pause(name, for_=length, reason=reason)
    click.echo(f"queue {name} is paused")


@command.command()
@click.argument("name", shell_complete=completion.queues)
@options.database
def resume(name: str, app: str | None, url: str | None, schema: str | None) -> None:
    """Resume a queue."""
    paused = options.jobs_of(app, url, schema).resume(name)
    click.echo(f"queue {name} is resumed" if paused else f"queue {name} was not paused")


@command.command()
@click.argument("name", shell_complete=completion.queues)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@options.database
def clear(name: str, **said: Any) -> None:
    """Delete the jobs that wait in a queue; those that run or have ended stay. The same as pgjobs purge -Q NAME."""
    from pgjobs.cli import purge

    click.get_current_context().invoke(purge.command, queue=name, whole=False, **said)


@command.command()
@click.argument("name", shell_complete=completion.queues)
@click.option("--timeout", metavar="DURATION", help="Give up then, with exit code 1.")
@options.database
def drain(name: str, timeout: str | None, app: str | None, url: str | None, schema: str | None) -> None:
    """Wait until nothing of a queue is queued or runs; workers must serve it."""
    from pgjobs import statements
    from pgjobs.config import seconds
    from pgjobs.insight.overview import QueueLine

    jobs = options.jobs_of(app, url, schema)
    deadline = None if timeout is None else time.monotonic() + seconds(timeout, what="--timeout")
    while True:
        lines = [QueueLine(*row) for row in jobs.database.run(statements.queue_stats())]
        left = next((line for line in lines if line.queue == name and line.queued + line.running), None)
        if left is None:
            break
        if deadline is not None and time.monotonic() >= deadline:
            raise click.ClickException(f"queue {name} still has {left.queued:,} queued, {left.running:,} running")
        time.sleep(LOOK_S)
    click.echo(f"queue {name} is empty")
