"""``pgjobs alerts``: how they stand; and a message to try their targets."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from pgjobs.cli import options
from pgjobs.wording import one_line

if TYPE_CHECKING:
    from pgjobs.statements import AlertRow


@click.group(invoke_without_command=True)
@options.as_json
@options.database
@click.pass_context
def command(ctx: click.Context, /, as_json: bool, app: str | None, url: str | None, schema: str | None) -> None:
    """Show how the alerts of the applications stand, those that fire first; or test the targets of one."""
    if ctx.invoked_subcommand is not None:
        options.refuse_before(ctx)
        return
    from pgjobs import statements

    rows = options.database_of(app, url, schema).run(statements.alerts())
    if as_json:
        options.write_json([row._asdict() for row in rows])
        return
    if not rows:
        click.echo("no alert has been judged yet; give PgJobs(alerts=[…]) and run a worker")
    for row in rows:
        click.echo(one_line(_line(row)))


def _line(row: AlertRow) -> str:
    said = f": {row.says}" if row.says else ""
    turning = (
        f", {'broken' if row.state == 'ok' else 'well'} since {row.turned_at.astimezone():%H:%M:%S}"
        if row.turned_at
        else ""
    )
    untold = f", {row.untold:,} not delivered yet" if row.untold else ""
    checked = f"judged {options.moment(row.checked_at)}" if row.checked_at else "not judged yet"
    return f"{row.state:6}  {row.name}{said} (since {options.moment(row.since)}{turning}{untold}; {checked})"


@command.command()
@click.argument("name")
@options.database
def test(name: str, app: str | None, url: str | None, schema: str | None) -> None:
    """Send a test message to each target of an alert of the application, which -A names."""
    from pgjobs.alerts import document
    from pgjobs.job import new_id

    jobs = options.jobs_of(app, url, schema)
    alert = jobs.alerts.get(name)
    if alert is None:
        known = ", ".join(map(repr, sorted(jobs.alerts))) or "none; name the application with -A"
        raise click.ClickException(f"no alert is named {name!r}; there is: {known}")
    now = time.time()
    message = document(name, {"kind": "test", "at": now, "since": now, "says": "this is a test", "value": 0.0})
    failed = 0
    for target in alert.targets:
        try:
            target.deliver(new_id().hex, message, jobs.webhook_secrets)
        except Exception as error:  # a target may be of the application's own making
            failed += 1
            click.echo(f"{target.key}: {error}", err=True)
        else:
            click.echo(f"{target.key}: delivered")
    if failed:
        raise SystemExit(1)
