"""``pgjobs workers``."""

from __future__ import annotations

import click

from pgjobs.cli import options


@click.group(invoke_without_command=True)
@options.as_json
@options.database
@click.pass_context
def command(ctx: click.Context, /, as_json: bool, app: str | None, url: str | None, schema: str | None) -> None:
    """List the workers that count as alive, and what they hold; or have each of them run a job."""
    if ctx.invoked_subcommand is not None:
        return
    from pgjobs import statements
    from pgjobs.overview import WorkerLine

    lines = [WorkerLine(*row) for row in options.jobs_of(app, url, schema).database.run(statements.workers())]
    if as_json:
        options.write_json([line.document() for line in lines])
    elif lines:
        from pgjobs.cli.picture import worker_table

        options.console().print(worker_table(lines))
    else:
        click.echo("no worker; start one with: pgjobs worker -A app.tasks")


@command.command()
@click.argument("function")
@click.argument("arguments", nargs=-1)
@click.option("--ttl", metavar="DURATION", help="Expire where it has not started within; 60s by default.")
@options.as_json
@options.database
def broadcast(
    function: str,
    arguments: tuple[str, ...],
    ttl: str | None,
    as_json: bool,
    app: str | None,
    url: str | None,
    schema: str | None,
) -> None:
    """Enqueue a job for every worker process, each in a queue that only this one serves.

    Arguments are written as for pgjobs enqueue.
    """
    from pgjobs.cli.enqueue import parse

    positional, named = parse(arguments)
    jobs = options.jobs_of(app, url, schema)
    door = jobs.using() if ttl is None else jobs.using(ttl=ttl)
    made = door.broadcast(function, *positional, **named)
    if as_json:
        options.write_json([{"id": job.id, "task": job.task} for job in made])
    else:
        click.echo("\n".join(str(job.id) for job in made) or "no worker")
