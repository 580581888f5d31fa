"""``pgjobs tasks``: pause and resume."""

from __future__ import annotations

import click

from pgjobs.cli import completion, options
from pgjobs.cli.queues import after, reason


@click.group()
def command() -> None:
    """Pause or resume tasks: their jobs are put on hold when it is their turn, and queued again in their old order."""


@command.command()
@click.argument("name", shell_complete=completion.tasks)
@after
@reason
@options.database
def pause(
    name: str, length: str | None, reason: str | None, app: str | None, url: str | None, schema: str | None
) -> None:
    """Pause a task, for all workers, by the name that its jobs carry; those that run go on to their end."""
    options.jobs_of(app, url, schema).pause(task=name, for_=length, reason=reason)
    click.echo(f"task {name} is paused")


@command.command()
@click.argument("name", shell_complete=completion.tasks)
@options.database
def resume(name: str, app: str | None, url: str | None, schema: str | None) -> None:
    """Resume a task."""
    paused = options.jobs_of(app, url, schema).resume(task=name)
    click.echo(f"task {name} is resumed" if paused else f"task {name} was not paused")
