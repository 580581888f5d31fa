"""``pgjobs tail``: what happens to jobs, as it happens."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import click

from pgjobs.cli import codes, completion, options

if TYPE_CHECKING:
    from pgjobs.connections.database import Database
    from pgjobs.insight.tail import Happening, Tail

LOOK_S: Final = 0.5
LEVELS: Final = ("debug", "info", "warning", "error", "critical")
COLOURS: Final = {
    "enqueued": "yellow", "started": "cyan", "succeeded": "green", "failed": "red", "retried": "magenta",
    "cancelled": "white", "expired": "white", "log": None,
}  # fmt: skip


@click.command(epilog="Example: pgjobs tail -f -Q mail --level warning")
@click.option("-f", "--follow", is_flag=True, help="Go on, until Ctrl-C.")
@click.option("-Q", "--queue", shell_complete=completion.queues, help="Only of this queue.")
@click.option("--task", shell_complete=completion.tasks, help="Only of this task.")
@click.option("--job", metavar="ID", help="Only of this job.")
@click.option("--level", type=click.Choice(LEVELS), help="Log lines from this level on; all by default.")
@click.option(
    "-n", "--lines", "count", default=20, show_default=True, type=click.IntRange(0, 10_000), help="So many of the last."
)
@options.as_json
@options.database
def command(
    follow: bool,
    queue: str | None,
    task: str | None,
    job: str | None,
    level: str | None,
    count: int,
    as_json: bool,
    app: str | None,
    url: str | None,
    schema: str | None,
) -> None:
    """Show what happens to jobs: enqueued, started, succeeded, failed, retried, and what they log.

    Without -f the last of it. With --json one object a line. It reads what the tables say, twice a second, and costs
    the workers nothing; where more than some thousand jobs end a second, it shows a part of them.
    """
    from pgjobs.insight.tail import Tail
    from pgjobs.job import as_id
    from pgjobs.statements import Scope

    database = options.database_of(app, url, schema)
    options.keep_drivers_quiet()
    tail = Tail(Scope(queue, task, None if job is None else as_id(job)), level)
    try:
        last = database.look(tail.look())
        _write(last[len(last) - min(count, len(last)) :], as_json=as_json)
        while follow:
            time.sleep(LOOK_S)
            _write(_look(database, tail), as_json=as_json)
    except KeyboardInterrupt:
        return


def _look(database: Database, tail: Tail) -> list[Happening]:
    """What is new; nothing where the database is away, which is said and tried again."""
    try:
        return database.look(tail.look())
    except Exception as error:
        click.secho(codes.outage(error), fg="red", err=True)
        return []


def _write(happened: Iterable[Happening], *, as_json: bool) -> None:
    for each in happened:
        click.echo(
            options.as_line(each.document()) if as_json else _line(each),
            color=options.coloured(),
        )


def _line(each: Happening) -> str:
    from pgjobs.wording import duration, harmless, one_line

    when = f"{each.at.astimezone():%H:%M:%S.%f}"[:-3]
    head = f"{when}  {click.style(f'{each.what:9}', fg=COLOURS.get(each.what))}  {one_line(each.task)}  {each.id}"
    if each.what == "log":
        return f"{head}  {one_line(each.level or '').upper()}  {harmless(each.text or '')}"
    said = [f"queue {one_line(each.queue)}"] if each.what == "enqueued" else []
    if each.attempt > 1:
        said.append(f"attempt {each.attempt}")
    if each.seconds is not None:
        said.append(f"in {duration(each.seconds)}")
    if each.due_at is not None:
        said.append(f"due {each.due_at.astimezone():%Y-%m-%d %H:%M:%S}")
    if each.what in ("failed", "retried", "cancelled", "expired"):
        said.append(one_line(each.text or each.reason or ""))
    return "  ".join([head, *filter(None, said)])
