"""``pgjobs top``: watch and steer, full-screen."""

from __future__ import annotations

import sys

import click

from pgjobs.cli import options


@click.command(epilog="Example: pgjobs top --view failures --refresh 5")
@click.option(
    "--refresh",
    default=2.0,
    show_default=True,
    type=options.Seconds(0.1, 3600),
    metavar="SECONDS",
    help="How often it looks.",
)
@click.option(
    "--view",
    default="queues",
    show_default=True,
    type=click.Choice(["queues", "tasks", "workers", "jobs", "failures"]),
    help="What it shows first.",
)
@options.database
def command(refresh: float, view: str, app: str | None, url: str | None, schema: str | None) -> None:
    """Watch queues, tasks, workers, jobs and failures full-screen, and steer them: ? shows the keys, q quits.

    What changes anything is asked about first, and what is done to jobs is noted in the table pgjobs.audit. Needs the
    extra tui. For pipes and scripts there is: pgjobs info --json
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError("pgjobs top needs a terminal; for a pipe there is: pgjobs info --json")
    from pgjobs import statements, top

    jobs = options.jobs_of(app, url, schema)
    jobs.database.run(statements.last_mark())  # what is wrong with the database is said before the screen is taken
    top.run(jobs, refresh, view)
