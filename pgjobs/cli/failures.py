"""``pgjobs failures``: by what they have in common; and one kind of them, with a traceback and its jobs."""

from __future__ import annotations

import sys

import click

from pgjobs.cli import codes, completion, options
from pgjobs.wording import one_line


@click.group(invoke_without_command=True)
@click.option("--task", shell_complete=completion.tasks, help="Only of this task.")
@click.option("--since", metavar="DURATION", help="Only those that were seen in the last 2h or 7d.")
@click.option("-n", "--limit", default=50, show_default=True, type=click.IntRange(1, 10_000))
@click.option("--all", "everything", is_flag=True, help="Of all that are kept, and not of the last 10,000 attempts.")
@options.as_json
@options.database
@click.pass_context
def command(
    ctx: click.Context,
    task: str | None,
    since: str | None,
    limit: int,
    everything: bool,
    as_json: bool,
    app: str | None,
    url: str | None,
    schema: str | None,
) -> None:
    """Show failures by what they have in common: the exception and where it was raised; the latest first.

    The last 10,000 failed attempts are counted, or all of them with --all.

    To run them again: pgjobs jobs retry --fingerprint FINGERPRINT
    """
    if ctx.invoked_subcommand is not None:
        options.refuse_before(ctx)
        return
    from pgjobs import statements
    from pgjobs.config import seconds

    since_s = None if since is None else seconds(since, what="--since")
    alike = statements.failures_alike if everything else statements.lately_alike
    database = options.database_of(app, url, schema)
    found = database.run(alike(task, since_s, limit))
    if not everything and database.run(statements.more_failures()):
        click.echo("of the last 10,000 failed attempts; --all counts those before, too", err=True)
    if as_json:
        options.write_json(found)
        return
    if not found:
        click.echo("no failures")
        return
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("fingerprint", "task", "attempts", "jobs", "failed", "first seen", "last seen", "exception"):
        table.add_column(title, no_wrap=title != "exception")
    for each in found:
        times = (options.moment(each.first_at), options.moment(each.last_at))
        counts = map(str, (each.attempts, each.jobs, each.failed))
        what = ": ".join(text for text in (each.exception, (each.message or "").partition("\n")[0]) if text)
        table.add_row(each.fingerprint, escape(one_line(each.task)), *counts, *times, escape(what[:200]))
    options.console().print(table)


@command.command()
@click.argument("fingerprint")
@click.option("-n", "--limit", default=20, show_default=True, type=click.IntRange(1, 10_000), help="Jobs.")
@options.as_json
@options.database
def show(fingerprint: str, limit: int, as_json: bool, app: str | None, url: str | None, schema: str | None) -> None:
    """Show the traceback of the last of some failures, and the jobs that have failed so."""
    from pgjobs import statements

    database = options.database_of(app, url, schema)
    alike = database.run(statements.failures_alike(None, None, 10_000, fingerprint))
    jobs = database.run(statements.jobs_alike(fingerprint, limit))
    if as_json:
        options.write_json({"failures": alike, "jobs": jobs})
        sys.exit(codes.OK if alike else codes.FAILURE)
    if not alike:
        raise click.ClickException(f"no failure has the fingerprint {fingerprint}; see `pgjobs failures`")
    from rich.markup import escape

    out = options.console()
    for each in alike:
        out.print(
            f"[bold]{escape(one_line(each.task))}[/bold]  {each.attempts:,} attempts of {each.jobs:,} jobs",
            soft_wrap=True,
        )
    out.print(escape((jobs[0].traceback or jobs[0].message or "").rstrip()), soft_wrap=True)
    for job in jobs:
        out.print(f"{job.id}  {job.status:9}  attempt {job.attempt}  {options.moment(job.failed_at)}", soft_wrap=True)
