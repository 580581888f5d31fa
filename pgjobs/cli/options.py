"""Options that several commands have, and how they show what they have read."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import re
from collections.abc import Callable, Generator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar
from uuid import UUID

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from psycopg import Connection
    from rich.console import Console

    from pgjobs.app import PgJobs
    from pgjobs.connections.database import Database

F = TypeVar("F", bound=Callable[..., Any])


LEAST: Final = 32 << 20
"""Bytes of memory that every worker process takes."""

_STEERING: Final = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""JSON escapes the others itself."""

_UNITS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def size(value: str) -> int:
    """A number of bytes, with or without a unit."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]?)(?:i?B)?", value.strip(), re.IGNORECASE)
    if match is None:
        raise click.BadParameter(f"{value!r} is no size; write 500M or 2G")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def memory(value: str) -> int:
    """A bound of a process's memory, with or without a unit."""
    if (bound := size(value)) < LEAST:
        raise click.BadParameter(f"{value!r} is less than a process takes before it runs a job; write 500M or 2G")
    return bound


class Seconds(click.FloatRange):
    """Seconds within bounds; those that are not finite lie within any."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        length: float = super().convert(value, param, ctx)
        if not math.isfinite(length):
            self.fail(f"{value} is no number of seconds", param, ctx)
        return length


app = click.option(
    "-A",
    "--app",
    envvar="PGJOBS_APP",
    metavar="MODULE[:NAME]",
    help="The application: a module, or its PgJobs. [PGJOBS_APP]",
)
schema = click.option(
    "--schema", envvar="PGJOBS_SCHEMA", help="The schema of the tables; pgjobs by default. [PGJOBS_SCHEMA]"
)
url = click.option("--url", metavar="URL", help="The database, if not the one of the environment.")
as_json = click.option("--json", "as_json", is_flag=True, help="Write JSON.")


def database(command: F) -> F:
    """Adds what says where the database is."""
    return url(app(schema(command)))


def jobs_of(app_name: str | None, url_: str | None, schema_: str | None) -> PgJobs:
    """Returns the application's PgJobs, or one for the database that was named."""
    if app_name:
        from pgjobs.running.loading import load

        return load(app_name).jobs
    from pgjobs.app import PgJobs

    return PgJobs(url_, schema=schema_)


def database_of(app_name: str | None, url_: str | None, schema_: str | None) -> Database:
    """The same database, for commands that only look at it: what a PgJobs can do besides takes long to load."""
    if app_name:
        return jobs_of(app_name, url_, schema_).database
    from pgjobs.config import DEFAULT_SCHEMA, schema_name
    from pgjobs.connections.database import Database

    return Database(url_, schema_name(schema_ or DEFAULT_SCHEMA))


@contextlib.contextmanager
def connection(url_: str | None, schema_: str | None) -> Generator[tuple[Connection[Any], str]]:
    """A connection to the database, in autocommit, and the schema's name.

    Raises:
        SchemaError: what the block reads is not there.
    """
    from pgjobs.config import DEFAULT_SCHEMA, schema_name
    from pgjobs.connections.database import Database, explained

    name = schema_name(schema_ or DEFAULT_SCHEMA)
    with contextlib.closing(Database(url_, name).connect("pgjobs")) as conn, explained(name):
        yield conn, name


def console(*, fits: bool = False) -> Console:
    """A console for people: colours on a terminal, plain text in a pipe.

    Args:
        fits: what is shown fits any width, so a pipe is as wide as COLUMNS says, which ``watch`` sets.
    """
    from pgjobs.cli.console import Harmless

    out = Harmless(highlight=False)
    if out.is_terminal or (fits and os.environ.get("COLUMNS", "").isdecimal()):
        return out
    return Harmless(highlight=False, width=200)


def keep_drivers_quiet() -> None:
    """Has the driver's warnings of lost connections go nowhere, in commands that say themselves what is lost."""
    import logging

    logging.getLogger("psycopg").addHandler(logging.NullHandler())


def coloured() -> bool | None:
    """Whether lines are coloured: as NO_COLOR and FORCE_COLOR say, else None for where it goes to a terminal."""
    if os.environ.get("NO_COLOR"):
        return False
    return True if os.environ.get("FORCE_COLOR") else None


def write_json(value: Any) -> None:
    """Writes a value as JSON, one document."""
    click.echo(as_line(value, indent=2))


def as_line(value: Any, indent: int | None = None) -> str:
    """A value as JSON, in one line unless it is indented; what steers a terminal is escaped."""
    text = json.dumps(value, default=plain, ensure_ascii=False, indent=indent)
    return _STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def moment(at: datetime) -> str:
    """A moment for people, by the clock of this host: the server's zone is none of theirs."""
    return f"{at.astimezone():%Y-%m-%d %H:%M:%S}"


def plain(value: Any) -> Any:
    """A value as JSON has it, where ``json`` knows it not."""
    match value:
        case UUID():
            return str(value)
        case datetime():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return dataclasses.asdict(value)
        case _:
            raise TypeError(f"{type(value).__name__} is not JSON")


def refuse_before(ctx: click.Context) -> None:
    """Refuses options before a subcommand, which are not its: without this, it would be done in another database.

    Raises:
        click.UsageError: there are some.
    """
    for option in ctx.command.params:
        name = str(option.name)
        if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"write {option.opts[-1]} behind {ctx.invoked_subcommand}", ctx)
