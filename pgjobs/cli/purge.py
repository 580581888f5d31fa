"""``pgjobs purge``."""

from __future__ import annotations

import click

from pgjobs.cli import completion, options, selection


@click.command()
@click.option("-Q", "--queue", shell_complete=completion.queues, help="Only of this queue.")
@click.option("--all", "whole", is_flag=True, help="Of every queue.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@options.database
def command(queue: str | None, whole: bool, yes: bool, app: str | None, url: str | None, schema: str | None) -> None:
    """Delete the jobs that wait in a queue; those that run or have ended stay.

    For others see: pgjobs jobs delete --help
    """
    if bool(queue) == whole:
        raise click.UsageError("say -Q QUEUE, or --all for every queue")
    from pgjobs import statements
    from pgjobs.statements import Selection

    jobs = options.jobs_of(app, url, schema)
    chosen = Selection(selection.WAITING, queue)
    if selection.confirm(jobs, chosen, "delete", yes=yes):
        click.echo(f"{selection.act(jobs, 'purge', statements.delete, chosen):,} deleted")
