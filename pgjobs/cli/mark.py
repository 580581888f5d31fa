"""``pgjobs mark``: moments that figures are to be read by, such as deploys."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from pgjobs.cli import options

if TYPE_CHECKING:
    from pgjobs.app import PgJobs


@click.command(epilog='Example: pgjobs mark "v1.2.3" --at 2027-01-31T12:00+01:00')
@click.argument("text", required=False)
@click.option("--at", metavar="TIME", help="The moment, with a time zone, as in 2027-01-31T12:00+01:00; else now.")
@click.option("--list", "as_list", is_flag=True, help="List the last marks instead.")
@click.option(
    "-n", "--limit", default=20, show_default=True, type=click.IntRange(1, 10_000), help="So many, with --list."
)
@options.as_json
@options.database
def command(
    text: str | None,
    at: str | None,
    as_list: bool,
    limit: int,
    as_json: bool,
    app: str | None,
    url: str | None,
    schema: str | None,
) -> None:
    """Mark a moment, such as a deploy, or list the marks.

    Who says so and on which host is kept with it. pgjobs info shows the last mark, and reports divide time by it.
    Marks are kept for a year.
    """
    if as_list == (text is not None) or (as_list and at is not None):
        raise click.UsageError('give a text, such as pgjobs mark "v1.2.3", or --list')
    moment = None if at is None else moment_of(at)
    jobs = options.jobs_of(app, url, schema)
    if as_list:
        _list(jobs, limit, as_json=as_json)
        return
    mark = jobs.mark(text or "", moment)
    if as_json:
        options.write_json(mark)
    else:
        click.echo(f"marked {mark.text} at {mark.at:%Y-%m-%d %H:%M:%S%z}")


def moment_of(text: str) -> datetime:
    """A moment as somebody writes it.

    Raises:
        click.BadParameter: it is none, or has no time zone.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.utcoffset() is None:
        raise click.BadParameter(f"{text!r} is no time with a zone; write it as 2027-01-31T12:00+01:00")
    return moment


def _list(jobs: PgJobs, limit: int, *, as_json: bool) -> None:
    marks = jobs.marks(limit)
    if as_json:
        options.write_json(marks)
        return
    if not marks:
        click.echo('no mark; make one with: pgjobs mark "v1.2.3"')
        return
    from rich.text import Text

    from pgjobs.cli.grid import Column, Grid
    from pgjobs.wording import about

    now = datetime.now(UTC)
    ages = [(now - mark.at).total_seconds() for mark in marks]
    columns = [
        Column("at", [Text(f"{mark.at:%Y-%m-%d %H:%M:%S%z}") for mark in marks], 1, right=False),
        Column("age", [Text(f"{about(age)} ago" if age >= 0 else f"in {about(-age)}") for age in ages], 3),
        Column("mark", [Text(mark.text, "bold") for mark in marks], 0, right=False),
        Column("by", [Text(f"{mark.author}@{mark.host or '?'}") for mark in marks], 2, right=False),
    ]
    options.console().print(Grid(columns))
