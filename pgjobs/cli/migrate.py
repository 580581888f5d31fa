"""``pgjobs migrate``."""

from __future__ import annotations

import sys

import click

from pgjobs.cli import codes, options


@click.command()
@click.option("--to", default="head", metavar="REVISION", help="The last revision to apply; the newest by default.")
@click.option("--sql", "as_sql", is_flag=True, help="Write the script instead of running it.")
@click.option("--check", is_flag=True, help="Apply nothing; exit with 5 if something is to be applied.")
@click.option(
    "--lock-wait",
    default="60s",
    metavar="TIME",
    help="How long to try again while a transaction locks a table, a second at a time; 60s by default.",
)
@options.url
@options.schema
def command(to: str, as_sql: bool, check: bool, lock_wait: str, url: str | None, schema: str | None) -> None:
    """Bring the database up to this release.

    Safe to run from eight hosts at once: one applies, the others wait and find nothing to do.
    """
    from pgjobs import migrations
    from pgjobs.config import DEFAULT_SCHEMA, schema_name
    from pgjobs.connections.database import Database
    from pgjobs.telemetry import set_up_logging

    name = schema_name(schema or DEFAULT_SCHEMA)
    if as_sql:
        click.echo(migrations.sql(schema=name, to=to), nl=False)
        return
    database = Database(url, name)
    if check:
        missing = migrations.pending(database.url, name)
        if missing:
            click.echo(f"schema {name} of {database.where} lacks {', '.join(missing)}; run `pgjobs migrate`", err=True)
            sys.exit(codes.OUT_OF_DATE)
        click.echo(f"schema {name} of {database.where} is up to date ({migrations.head()})")
        return
    set_up_logging("warning")
    applied = migrations.migrate(database.url, schema=name, to=to, lock_wait=lock_wait)
    done = f"applied {', '.join(applied)}" if applied else "is up to date"
    click.echo(f"schema {name} of {database.where}: {done}" if applied else f"schema {name} of {database.where} {done}")
    if applied and applied[-1] == migrations.head():
        _renew_roles(database.url, name)


def _renew_roles(url: str, schema: str) -> None:
    """New tables are the owner's alone: without this, workers with a role of `pgjobs roles` could not use them."""
    import psycopg

    from pgjobs import roles

    with psycopg.connect(url, autocommit=True) as conn:
        try:
            renewed = roles.renew(conn, schema)
        except psycopg.Error as error:
            raise click.ClickException(
                f"migrated, but the roles could not be given what they need now ({str(error).strip()}); have the "
                "schema's owner run `pgjobs roles create`"
            ) from None
    if renewed:
        click.echo(f"gave {', '.join(renewed)} what they need now")
