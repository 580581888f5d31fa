"""``pgjobs demo``."""

from __future__ import annotations

import sys

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

    done = demo.run(embedded.resolve(normal_url(url or "embedded:")))
    where = url or "embedded:"
    click.echo(f"\nLook around: PGJOBS_URL={where} PGJOBS_SCHEMA={SCHEMA} pgjobs info")
    sys.exit(codes.OK if done else codes.FAILURE)
