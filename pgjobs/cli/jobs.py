"""``pgjobs jobs``: list, show, cancel, retry, delete."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from pgjobs.cli import options, selection
from pgjobs.errors import JobStateError
from pgjobs.job import as_id

if TYPE_CHECKING:
    from uuid import UUID

    from pgjobs.app import PgJobs
    from pgjobs.job import JobRow

COLOURS = {"succeeded": "green", "failed": "red", "running": "cyan", "queued": "yellow", "scheduled": "blue"}


@click.group()
def command() -> None:
    """List, show, cancel, retry or delete jobs."""


@command.command("list")
@click.option("--status", type=click.Choice(selection.STATUSES), help="Only these.")
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

    known = options.jobs_of(app, url, schema)
    rows = [_without_private(known, row) for row in known.database.run(statements.jobs(status, queue, task, limit))]
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
            escape(row.task),
            escape(row.queue),
            _status(row),
            attempt,
            _age(row.created_at),
            escape(arguments[:60]),
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
    known = options.jobs_of(app, url, schema)
    job = known.job(job_id)
    row, failures = _without_private(known, job.row), job.failures()
    if as_json:
        options.write_json({"job": row, "failures": failures, "output": job.output()})
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
        ("args", _document(row.args)),
        ("result", None if row.result is None else _document(row.result)),
        ("usage", row.usage and f"{row.usage['cpu_s']:.2f} s of CPU, {row.usage['max_rss_bytes'] >> 20} MB at most"),
    ]
    out.print(f"[bold]{row.id}[/bold]  {_status(row)}")
    for name, value in lines:
        if value is not None:
            out.print(f"  {name:9} {escape(str(value))}", soft_wrap=True)
    if written := job.output():
        out.print("\n[bold]output[/bold]")
        out.print(escape(written.rstrip()), soft_wrap=True)
    for failure in failures:
        out.print(f"\n[red]attempt {failure.attempt}[/red] failed {failure.failed_at} ({failure.reason})")
        out.print(escape((failure.traceback or failure.message or "").rstrip()), soft_wrap=True)


@command.command()
@click.argument("job_ids", nargs=-1, metavar="[ID]...")
@click.option("--reason", default="cancelled", show_default=True, help="What is kept with the jobs.")
@selection.filters
@options.database
def cancel(
    job_ids: tuple[str, ...], reason: str, app: str | None, url: str | None, schema: str | None, **said: Any
) -> None:
    """Cancel jobs that have not ended, by id or by what they have in common.

    Those that wait are cancelled at once; those that run are stopped within seconds, threads when they look.
    """
    jobs = options.jobs_of(app, url, schema)
    _act(jobs, "cancel", lambda ids: list(jobs.cancel(ids, reason)), job_ids, said, selection.UNENDED)


@command.command()
@click.argument("job_ids", nargs=-1, metavar="[ID]...")
@selection.filters
@options.database
def retry(job_ids: tuple[str, ...], app: str | None, url: str | None, schema: str | None, **said: Any) -> None:
    """Queue ended jobs again, by id or by what they have in common; the failed ones unless --status says others."""
    jobs = options.jobs_of(app, url, schema)
    _act(jobs, "retry", jobs.retry, job_ids, said, ["failed"])


@command.command()
@click.argument("job_ids", nargs=-1, metavar="[ID]...")
@selection.filters
@options.database
def delete(job_ids: tuple[str, ...], app: str | None, url: str | None, schema: str | None, **said: Any) -> None:
    """Delete jobs with their failures, by id or by what they have in common; the run of a running one is stopped."""
    jobs = options.jobs_of(app, url, schema)
    _act(jobs, "delete", jobs.delete, job_ids, said, selection.STATUSES)


PAST = {"cancel": "cancelled", "retry": "queued again", "delete": "deleted"}


def _act(
    jobs: PgJobs,
    verb: str,
    act: Callable[[list[Any]], list[UUID]],
    job_ids: Sequence[str],
    said: dict[str, Any],
    by_default: Sequence[str],
) -> None:
    yes = said.pop("yes")
    if job_ids:
        if any(said.values()):
            raise click.UsageError("give ids or filters, not both")
        missed = {as_id(job_id) for job_id in job_ids} - set(act(list(job_ids)))
        for job_id in sorted(missed):
            job = jobs.job(job_id)
            raise JobStateError(f"job {job_id} is {job.status.value} and cannot be {PAST[verb]}")
        click.echo(f"{len(job_ids)} {PAST[verb]}")
        return
    chosen = selection.selection(**said, by_default=by_default)
    if selection.confirm(jobs, chosen, verb, yes=yes):
        done = sum(len(act(ids)) for ids in selection.chunks(jobs, chosen))
        click.echo(f"{done:,} {PAST[verb]}")


def _without_private(jobs: PgJobs, row: JobRow) -> JobRow:
    """A row as it may be shown: private are the arguments that it says itself, or its task where that is loaded."""
    from pgjobs.privacy import masked

    said: Any = row.options.get("private") if isinstance(row.options, dict) else None  # whatever SQL has written
    names = {str(name) for name in said} if isinstance(said, list) else set[str]()  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    if (task := jobs.tasks.get(row.task)) is not None:
        names |= task.signature.private
    return dataclasses.replace(row, args=masked(row.args, names)) if names else row


def _document(value: Any) -> str:
    from pgjobs.cipher import sealed

    return json.dumps(value, ensure_ascii=False) if sealed(value) is None else "[encrypted]"


def _status(row: JobRow) -> str:
    colour = COLOURS.get(row.status.value, "white")
    return f"[{colour}]{row.status.value}[/{colour}]"


def _age(since: datetime) -> str:
    from pgjobs.telemetry import duration

    return duration((datetime.now(UTC) - since).total_seconds())
