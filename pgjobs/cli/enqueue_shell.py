"""``pgjobs enqueue-shell``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pgjobs.cli import options

if TYPE_CHECKING:
    from pgjobs.handle import Job


@click.command()
@click.argument("arguments", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND [ARGUMENTS]...")
@click.option("-Q", "--queue", help="Its queue.")
@click.option("--priority", type=click.IntRange(-100, 100), help="Larger runs first.")
@click.option("--delay", metavar="DURATION", help="Start this much later: 90s, 10m, 1h30m.")
@click.option("--ttl", metavar="DURATION", help="Expire if not started within.")
@click.option("--timeout", metavar="DURATION", help="How long an attempt may run.")
@click.option("--max-attempts", type=click.IntRange(1), help="Runs in all; of use with --check.")
@click.option("--check", is_flag=True, help="Fail where the exit code is not 0.")
@options.as_json
@options.database
def command(
    arguments: tuple[str, ...],
    check: bool,
    app: str | None,
    url: str | None,
    schema: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Enqueue a command, for a worker started with --allow-shell.

    It runs in a process group of its own; its exit code is the result, and what it writes is kept: see
    `pgjobs jobs show`, and while it runs `pgjobs jobs logs -f`. No shell reads the arguments, unless it is the
    command.

        pgjobs enqueue-shell --timeout 10m -- pg_dump -f /backup/today.sql app
    """
    from pgjobs.running.shell import TASK

    chosen = {name: value for name, value in given.items() if value is not None}
    if (attempts := chosen.pop("max_attempts", None)) is not None:
        chosen["retry"] = attempts
    named: dict[str, Any] = {"command": list(arguments)} | ({"check": True} if check else {})
    job: Job[Any] = options.jobs_of(app, url, schema).using(None, **chosen).enqueue(TASK, **named)
    if as_json:
        options.write_json({"id": job.id, "task": job.task})
    else:
        click.echo(str(job.id))
