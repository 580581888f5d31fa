"""``pgjobs tasks``: list, pause and resume."""

from __future__ import annotations

from dataclasses import asdict

import click

from pgjobs.cli import completion, options
from pgjobs.cli.queues import after, reason


@click.group()
def command() -> None:
    """List, pause or resume tasks.

    Jobs of one that is paused are put on hold when it is their turn, and queued again in their old order.
    """


@command.command("list")
@options.as_json
@options.database
def list_(as_json: bool, app: str | None, url: str | None, schema: str | None) -> None:
    """List the tasks that workers know or have handled: what they have ended in the last hour, and what is paused."""
    from pgjobs import statements

    database = options.database_of(app, url, schema)
    known = database.run(statements.task_stats())
    paused = {pause.name: pause for pause in database.run(statements.pauses()) if pause.kind == "task"}
    if as_json:
        options.write_json([asdict(each) | {"paused": each.name in paused} for each in known])
    elif known:
        from pgjobs.cli.picture import task_table

        options.console(fits=True).print(task_table(known, paused))
    else:
        click.echo("no task is known; workers publish theirs when they start")


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
