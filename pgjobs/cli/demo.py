"""``pgjobs demo``."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import click

from pgjobs.cli import codes


@click.command()
@click.option("--url", metavar="URL", help="Instead of the embedded database; its schema pgjobs_demo is dropped first.")
def command(url: str | None) -> None:
    """Watch a queue at work, on a PostgreSQL of its own.

    Counts the words of a few hundred real pages with two workers, kills one of them in the middle, and shows by SQL
    that every job has ended.
    """
    from pgjobs import demo, embedded
    from pgjobs.config import normal_url
    from pgjobs.demo.tasks import SCHEMA

    where = url or "embedded:"
    if where.startswith("embedded:"):
        click.echo("Starting a PostgreSQL of its own; nothing is installed on this machine …")
    done = demo.run(embedded.resolve(normal_url(where)))
    click.echo(f"\nLook around: PGJOBS_URL={where} PGJOBS_SCHEMA={SCHEMA} {_myself()} info")
    sys.exit(codes.OK if done else codes.FAILURE)


def _myself() -> str:
    """This command as it can be typed: by its name where the shell finds it, else by its path."""
    own = Path(sys.argv[0]).resolve()
    if shutil.which(own.name) is not None or own.name == "__main__.py":
        return "pgjobs"
    here = Path.cwd().resolve()
    return str(own.relative_to(here) if own.is_relative_to(here) else own)
