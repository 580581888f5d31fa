"""``pgjobs jobs``: list, show, explain, logs and files; ``export`` and ``steer`` have its other commands."""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, Any

import click

from pgjobs.cli import codes, options, selection, steer
from pgjobs.cli.export import export
from pgjobs.insight.shown import without_private
from pgjobs.job import as_id
from pgjobs.wording import harmless, one_line

if TYPE_CHECKING:
    from pgjobs.job import JobRow, LogRow

COLOURS = {"succeeded": "green", "failed": "red", "running": "cyan", "queued": "yellow", "scheduled": "blue"}


@click.group()
def command() -> None:
    """List, show, export and steer jobs; show what they have logged and attached."""


for each in (export, *steer.COMMANDS):
    command.add_command(each)


@command.command("list")
@selection.conditions
@click.option("-n", "--limit", default=20, show_default=True, type=click.IntRange(1, 10_000))
@options.as_json
@options.database
def list_(limit: int, as_json: bool, app: str | None, url: str | None, schema: str | None, **said: Any) -> None:
    """List jobs, newest first: all of them, or those that have something in common."""
    from pgjobs import statements

    known = options.jobs_of(app, url, schema)
    chosen = selection.chosen(**said)
    with selection.reading(known, chosen) as conn:
        found = known.database.run(statements.jobs(chosen, limit), conn)
    rows = [without_private(known, row) for row in found]
    if as_json:
        options.write_json(rows)
        return
    if not rows:
        click.echo("no such jobs")
        return
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("id", "task", "queue", "status", "attempt", "age", "arguments"):
        table.add_column(title, no_wrap=title != "arguments", overflow="ellipsis" if title == "arguments" else "fold")
    for row in rows:
        arguments = _document(row.args)
        attempt = f"{row.attempt}/{row.max_attempts}"
        table.add_row(
            str(row.id),
            escape(one_line(row.task)),
            escape(one_line(row.queue)),
            _status(row),
            attempt,
            _age(row.created_at),
            escape(one_line(arguments[:60])),
        )
    options.console().print(table)


@command.command()
@click.argument("job_id")
@options.as_json
@options.database
def show(job_id: str, as_json: bool, app: str | None, url: str | None, schema: str | None) -> None:
    """Show a job, with its failures and what it has written.

    Private arguments are left out, and what is stored encrypted stays so.
    """
    from pgjobs import statements

    known = options.jobs_of(app, url, schema)
    job = known.job(job_id)
    row, failures = without_private(known, job.row), job.failures()
    output = known.database.run(statements.output(job.id))
    if as_json:
        options.write_json({"job": row, "failures": failures, "output": output})
        return
    from rich.markup import escape

    out = options.console()
    lines: list[tuple[str, Any]] = [
        ("task", row.task),
        ("queue", f"{row.queue}, priority {row.priority}"),
        ("attempt", f"{row.attempt} of {row.max_attempts}" + (f", {row.crashes} crashes" if row.crashes else "")),
        ("created", row.created_at),
        ("due", row.due_at),
        ("expires", row.expires_at),
        ("started", row.started_at),
        ("finished", row.finished_at),
        ("reason", row.reason),
        ("progress", None if row.progress is None else _document(row.progress)),
        ("meta", None if row.meta is None else _document(row.meta)),
        ("args", _document(row.args)),
        ("result", None if row.result is None else _document(row.result)),
        ("usage", row.usage and f"{row.usage['cpu_s']:.2f} s of CPU, {row.usage['max_rss_bytes'] >> 20} MB at most"),
    ]
    out.print(f"[bold]{row.id}[/bold]  {_status(row)}")
    for name, value in lines:
        if value is not None:
            out.print(f"  {name:9} {escape(one_line(str(value)))}", soft_wrap=True)
    if output:
        out.print("\n[bold]output[/bold]")
        out.print(escape(_text(output).rstrip()), soft_wrap=True)
    for failure in failures:
        out.print(
            f"\n[red]attempt {failure.attempt}[/red] failed {failure.failed_at} ({escape(one_line(failure.reason))})"
        )
        out.print(escape((failure.traceback or failure.message or "").rstrip()), soft_wrap=True)


@command.command()
@click.argument("job_id")
@options.as_json
@options.database
def explain(job_id: str, as_json: bool, app: str | None, url: str | None, schema: str | None) -> None:
    """Say why a job waits, runs or has ended, and what to do about it; exit with 1 where there is none."""
    from pgjobs.insight.explain import explain

    asked = as_id(job_id)
    reasons = options.jobs_of(app, url, schema).database.run_steps(explain(asked))
    if as_json:
        options.write_json({"id": asked, "reasons": reasons})
    else:
        from rich.text import Text

        out = options.console()
        for reason in reasons:
            out.print(Text.assemble("• ", one_line(reason.text)), soft_wrap=True)
            if reason.remedy:
                out.print(Text.assemble("  → ", (one_line(reason.remedy), "cyan")), soft_wrap=True)
    if any(reason.code in ("absent", "deleted") for reason in reasons):
        sys.exit(codes.FAILURE)


@command.command()
@click.argument("job_id")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended.")
@options.as_json
@options.database
def logs(job_id: str, follow: bool, as_json: bool, app: str | None, url: str | None, schema: str | None) -> None:
    """Show what a job has logged; what is stored encrypted stays so. With -f and --json one object a line."""
    from pgjobs import statements

    known = options.jobs_of(app, url, schema)
    job = known.job(job_id)
    if as_json and not follow:
        options.write_json(known.database.run(statements.logs(job.id, 0, 10_000)))
        return
    after = 0
    while True:
        ended = job.refresh().status.ended
        while lines := known.database.run(statements.logs(job.id, after, 10_000)):
            for line in lines:
                click.echo(options.as_line(line) if as_json else _line(line))
            after = lines[-1].id
        if ended or not follow:
            return
        time.sleep(0.5)


def _line(row: LogRow) -> str:
    return f"{options.moment(row.at)} {row.level.upper():7} {row.attempt:>2}  {harmless(_text(row.line))}"


@command.command()
@click.argument("job_id")
@options.as_json
@options.database
def files(job_id: str, as_json: bool, app: str | None, url: str | None, schema: str | None) -> None:
    """List the files of a job."""
    found = options.jobs_of(app, url, schema).job(job_id).files()
    if as_json:
        options.write_json(found)
        return
    for file in found:
        named = one_line(f"{file.name}  {file.content_type or ''}")
        click.echo(f"{file.size:>12,}  {options.moment(file.created_at)}  {named}")


@command.command()
@click.argument("job_id")
@click.argument("name")
@click.option("-o", "--output", required=True, type=click.File("wb"), help="Where to; - for standard output.")
@options.database
def file(job_id: str, name: str, output: IO[bytes], app: str | None, url: str | None, schema: str | None) -> None:
    """Write a file of a job to a path."""
    output.write(options.jobs_of(app, url, schema).job(job_id).file(name))


def _document(value: Any) -> str:
    from pgjobs.arguments.cipher import sealed

    return json.dumps(value, ensure_ascii=False) if sealed(value) is None else "[encrypted]"


def _text(stored: str) -> str:
    from pgjobs.arguments.cipher import sealed_text

    return stored if sealed_text(stored) is None else "[encrypted]"


def _status(row: JobRow) -> str:
    colour = COLOURS.get(row.status.value, "white")
    return f"[{colour}]{row.status.value}[/{colour}]"


def _age(since: datetime) -> str:
    from pgjobs.wording import duration

    return duration((datetime.now(UTC) - since).total_seconds())
