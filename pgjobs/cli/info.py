"""``pgjobs info``: how the queues and the workers stand."""

from __future__ import annotations

import time
from collections.abc import Iterator
from importlib import import_module
from threading import Thread
from typing import TYPE_CHECKING

import click

from pgjobs.cli import codes, options

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from pgjobs.connections.database import Database
    from pgjobs.insight.overview import Overview


@click.command(epilog="Example: pgjobs info --watch 2")
@click.option(
    "--watch",
    type=options.Seconds(0.1),
    metavar="SECONDS",
    help="Show it again and again, until Ctrl-C; with --json one document a line.",
)
@options.as_json
@options.database
def command(watch: float | None, as_json: bool, app: str | None, url: str | None, schema: str | None) -> None:
    """Show queues, workers, what they have handled, how fast, and how long the backlog will take.

    A rate is that of the last five minutes. An outlook is given only where it can be: not for what is paused, nor where
    more is scheduled than waits.
    """
    database = options.database_of(app, url, schema)
    options.keep_drivers_quiet()
    if watch is None:
        if not as_json:
            Thread(target=import_module, args=("pgjobs.cli.picture",), daemon=True).start()  # while the server works
        seen = read(database, once=True)
        if as_json:
            options.write_json(seen.document())
        else:
            _show(options.console(fits=True), seen)
        return
    try:
        if as_json:
            _stream(database, watch)
        else:
            _watch(database, watch)
    except KeyboardInterrupt:
        return


def read(database: Database, *, once: bool = False) -> Overview:
    """Reads how all of it stands."""
    from pgjobs.insight.overview import overview

    return database.look(overview(), once=once)


def _show(out: Console, seen: Overview) -> None:
    from pgjobs.cli.picture import picture

    out.print(picture(seen))


def _stream(database: Database, rest_s: float) -> None:
    """A document each time; where the database is away, standard error says so."""
    seen: Overview | None = read(database)
    while True:
        if seen is not None:
            click.echo(options.as_line(seen.document()))
        time.sleep(rest_s)
        try:
            seen = read(database)
        except Exception as error:
            seen = None
            click.secho(codes.outage(error), fg="red", err=True)


def _watch(database: Database, rest_s: float) -> None:
    """In a screen of its own, whose last picture stays when it is left; in a pipe one picture after the other."""
    out = options.console(fits=True)
    if not out.is_terminal or out.is_dumb_terminal:
        for seen in _each(database, rest_s):
            out.print(*seen, "", sep="\n")
        return
    from rich.console import Group
    from rich.live import Live

    each = _each(database, rest_s)
    last = next(each)
    try:
        with Live(Group(*last), console=out, screen=True, auto_refresh=False, vertical_overflow="crop") as live:
            live.refresh()
            for last in each:
                live.update(Group(*last), refresh=True)
    finally:
        out.print(*last, sep="\n")


def _each(database: Database, rest_s: float) -> Iterator[list[RenderableType]]:
    """A picture each time; where the database is away a line more, that says so. It must have been there once."""
    from rich.text import Text

    from pgjobs.cli.picture import picture

    last: RenderableType = picture(read(database))
    yield [last]
    while True:
        time.sleep(rest_s)
        try:
            last = picture(read(database))
            yield [last]
        except Exception as error:
            yield [last, Text(codes.outage(error), "red", no_wrap=True)]
