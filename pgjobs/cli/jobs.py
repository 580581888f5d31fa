"""``pgjobs jobs``: list, show, retry."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from pgjobs.cli import options

if TYPE_CHECKING:
    from pgjobs.job import JobRow

STATUSES = ["scheduled", "blocked", "queued", "running", "succeeded", "failed", "cancelled", "expired"]
COLOURS = {"succeeded": "green", "failed": "red", "running": "cyan", "queued": "yellow", "scheduled": "blue"}


@click.group()
def command() -> None:
    """List, show or retry jobs."""


@command.command("list")
@click.option("--status", type=click.Choice(STATUSES), help="Only these.")
@click.option("-Q", "--queue", help="Only of this queue.")
@click.option("--task", help="Only of this task.")
@click.option("-n", "--limit", default=20, show_default=True, type=click.IntRange(1, 10_000))
@options.as_json
@options.database
def list_(
    status: str | None,
    queue: str | None,
    task: str | None,
    limit: int,
    as_json: bool,
    app: str | None,
    url: str | None,
    schema: str | None,
) -> None:
    """List jobs, newest first."""
    from pgjobs import statements

    rows = options.jobs_of(app, url, schema).database.run(statements.jobs(status, queue, task, limit))
    if as_json:
        options.write_json(rows)
        return
    if not rows:
        click.echo("no such jobs")
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("id", "task", "queue", "status", "attempt", "age", "arguments"):
        table.add_column(title, no_wrap=title != "arguments", overflow="ellipsis" if title == "arguments" else "fold")
    for row in rows:
        arguments = json.dumps(row.args, ensure_ascii=False)
        attempt = f"{row.attempt}/{row.max_attempts}"
        table.add_row(str(row.id), row.task, row.queue, _status(row), attempt, _age(row.created_at), arguments[:60])
    options.console().print(table)


@command.command()
@click.argument("job_id")
@options.as_json
@options.database
def show(job_id: str, as_json: bool, app: str | None, url: str | None, schema: str | None) -> None:
    """Show a job, with its failures."""
    job = options.jobs_of(app, url, schema).job(job_id)
    failures = job.failures()
    if as_json:
        options.write_json({"job": job.row, "failures": failures})
        return
    from rich.markup import escape

    out = options.console()
    row = job.row
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
        ("args", json.dumps(row.args, ensure_ascii=False)),
        ("result", None if row.result is None else json.dumps(row.result, ensure_ascii=False)),
    ]
    out.print(f"[bold]{row.id}[/bold]  {_status(row)}")
    for name, value in lines:
        if value is not None:
            out.print(f"  {name:9} {escape(str(value))}", soft_wrap=True)
    for failure in failures:
        out.print(f"\n[red]attempt {failure.attempt}[/red] failed {failure.failed_at} ({failure.reason})")
        out.print(escape((failure.traceback or failure.message or "").rstrip()), soft_wrap=True)


@command.command()
@click.argument("job_ids", nargs=-1, required=True)
@options.database
def retry(job_ids: tuple[str, ...], app: str | None, url: str | None, schema: str | None) -> None:
    """Queue ended jobs again."""
    jobs = options.jobs_of(app, url, schema)
    for job_id in job_ids:
        job = jobs.job(job_id).retry()
        click.echo(f"{job.id} {job.status.value}")


def _status(row: JobRow) -> str:
    colour = COLOURS.get(row.status.value, "white")
    return f"[{colour}]{row.status.value}[/{colour}]"


def _age(since: datetime) -> str:
    from pgjobs.telemetry import duration

    return duration((datetime.now(UTC) - since).total_seconds())
