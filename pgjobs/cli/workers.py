"""``pgjobs workers``."""

from __future__ import annotations

import click

from pgjobs.cli import options
from pgjobs.cli.info import WorkerLine, worker_table


@click.command()
@options.as_json
@options.database
def command(as_json: bool, app: str | None, url: str | None, schema: str | None) -> None:
    """List the workers that count as alive, and what they hold."""
    from pgjobs import statements

    lines = [WorkerLine(*row) for row in options.jobs_of(app, url, schema).database.run(statements.workers())]
    if as_json:
        options.write_json([line.document() for line in lines])
    elif lines:
        options.console().print(worker_table(lines))
    else:
        click.echo("no worker; start one with: pgjobs worker -A app.tasks")
