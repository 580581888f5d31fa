"""``pgjobs roles``."""

from __future__ import annotations

import sys

import click

from pgjobs.cli import codes, options


@click.group()
def command() -> None:
    """PostgreSQL roles with the least that producers, workers, readers and admins need.

    They are groups that cannot log in: GRANT pgjobs_worker TO app. All begin with the schema's name. The owner of the
    schema is whoever runs `pgjobs migrate`.
    """


@command.command()
@click.option("--sql", "as_sql", is_flag=True, help="Write the statements instead of running them.")
@options.url
@options.schema
def create(as_sql: bool, url: str | None, schema: str | None) -> None:
    """Make the roles, and give them exactly their privileges; repeat it after an upgrade.

    It takes the schema's owner, with CREATEROLE. Where those are two, both run parts of what --sql writes.
    """
    from psycopg.errors import InsufficientPrivilege

    from pgjobs import roles

    with options.connection(url, schema) as (conn, name):
        if as_sql:
            click.echo(roles.script(conn, name), nl=False)
            return
        try:
            new = roles.create(conn, name)
        except InsufficientPrivilege as error:
            refused = error.diag.message_primary or error
            remedy = "have the schema's owner, with CREATEROLE, run what `pgjobs roles create --sql` writes"
            raise click.ClickException(f"{refused}; {remedy}") from None
    for role, what in roles.ROLES.items():
        full = roles.role_name(role, name)
        click.echo(f"{full:24} {what}{' (new)' if full in new else ''}")


@command.command()
@options.url
@options.schema
def check(url: str | None, schema: str | None) -> None:
    """Compare what the roles may do with what they should; exit with 1 where that differs."""
    from pgjobs import roles

    options.keep_drivers_quiet()
    with options.connection(url, schema) as (conn, name):
        findings = roles.check(conn, name)
    for finding in findings:
        click.echo(str(finding), err=True)
    if findings:
        click.echo("run `pgjobs roles create`", err=True)
        sys.exit(codes.FAILURE)
    click.echo(f"the roles of schema {name} have exactly what they need")
