"""``pgjobs jobs``: list, show, logs, files, and steer."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, Any

import click

from pgjobs.cli import codes, options, selection
from pgjobs.cli.export import export
from pgjobs.errors import JobStateError
from pgjobs.insight.shown import without_private
from pgjobs.job import as_id

if TYPE_CHECKING:
    from uuid import UUID

    from pgjobs.app import PgJobs
    from pgjobs.job import JobRow, LogRow
    from pgjobs.statements import Statement

COLOURS = {"succeeded": "green", "failed": "red", "running": "cyan", "queued": "yellow", "scheduled": "blue"}


@click.group()
def command() -> None:
    """List, show, export and steer jobs; show what they have logged and attached."""


command.add_command(export)


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
            out.print(f"  {name:9} {escape(str(value))}", soft_wrap=True)
    if output:
        out.print("\n[bold]output[/bold]")
        out.print(escape(_text(output).rstrip()), soft_wrap=True)
    for failure in failures:
        out.print(f"\n[red]attempt {failure.attempt}[/red] failed {failure.failed_at} ({failure.reason})")
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
            out.print(Text.assemble("• ", reason.text), soft_wrap=True)
            if reason.remedy:
                out.print(Text.assemble("  → ", (reason.remedy, "cyan")), soft_wrap=True)
    if any(reason.code in ("absent", "deleted") for reason in reasons):
        sys.exit(codes.FAILURE)


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
    from pgjobs import statements

    jobs = options.jobs_of(app, url, schema)
    _act(jobs, "cancel", lambda ids: statements.cancel(ids, reason), job_ids, said, selection.UNENDED)


@command.command()
@click.argument("job_ids", nargs=-1, metavar="[ID]...")
@click.option("--args", metavar="JSON", help="Other arguments, for one job: a JSON object.")
@click.option("--edit", is_flag=True, help="Change the arguments of one job in an editor.")
@selection.filters
@options.database
def retry(
    job_ids: tuple[str, ...],
    args: str | None,
    edit: bool,
    app: str | None,
    url: str | None,
    schema: str | None,
    **said: Any,
) -> None:
    """Queue ended jobs again, by id or by what they have in common; the failed ones unless --status says others.

    Of many jobs it says first how many there are. It may be interrupted and run again; the table pgjobs.audit tells who
    did it, to which, and to how many.
    """
    from pgjobs import statements

    jobs = options.jobs_of(app, url, schema)
    if args is None and not edit:
        _act(jobs, "retry", statements.retry, job_ids, said, ["failed"])
        return
    if len(job_ids) != 1 or (edit and args is not None):
        raise click.UsageError("give one id with --args or --edit")
    job = jobs.job(job_ids[0])
    job.retry(args=_edited(jobs, job.row) if args is None else _arguments(args))
    selection.act_on(jobs, "retry with other arguments", statements.statuses, {"ids": [str(job.id)]}, [[job.id]])
    click.echo(f"1 {PAST['retry']}")


def _edited(jobs: PgJobs, row: JobRow) -> dict[str, Any]:
    """Private arguments do not show in the editor, and stay as they are where nobody replaces them."""
    from pgjobs.arguments.privacy import unmasked

    shown = json.dumps(without_private(jobs, row).args, ensure_ascii=False, indent=2)
    text = click.edit(shown, extension=".json")
    if text is None:
        raise click.UsageError("the editor was left without saving; nothing was done")
    return unmasked(_arguments(text), row.args)


def _arguments(text: str) -> dict[str, Any]:
    try:
        args: Any = json.loads(text)
    except ValueError as error:
        raise click.UsageError(f"the arguments are no JSON: {error}") from None
    if not isinstance(args, dict):
        raise click.UsageError('the arguments are no JSON object; name each: {"user_id": 42}')
    return args  # pyright: ignore[reportUnknownVariableType]


@command.command()
@click.argument("job_ids", nargs=-1, metavar="[ID]...")
@selection.filters
@options.database
def delete(job_ids: tuple[str, ...], app: str | None, url: str | None, schema: str | None, **said: Any) -> None:
    """Delete jobs with their failures, by id or by what they have in common; the run of a running one is stopped."""
    from pgjobs import statements

    jobs = options.jobs_of(app, url, schema)
    _act(jobs, "delete", statements.delete, job_ids, said, selection.STATUSES)


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
                click.echo(json.dumps(line, default=options.plain, ensure_ascii=False) if as_json else _line(line))
            after = lines[-1].id
        if ended or not follow:
            return
        time.sleep(0.5)


def _line(row: LogRow) -> str:
    return f"{options.moment(row.at)} {row.level.upper():7} {row.attempt:>2}  {_text(row.line)}"


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
        click.echo(f"{file.size:>12,}  {options.moment(file.created_at)}  {file.name}  {file.content_type or ''}")


@command.command()
@click.argument("job_id")
@click.argument("name")
@click.option("-o", "--output", required=True, type=click.File("wb"), help="Where to; - for standard output.")
@options.database
def file(job_id: str, name: str, output: IO[bytes], app: str | None, url: str | None, schema: str | None) -> None:
    """Write a file of a job to a path."""
    output.write(options.jobs_of(app, url, schema).job(job_id).file(name))


@command.command()
@click.argument("job_ids", nargs=-1, metavar="[ID]...")
@click.option("--reason", help="What is kept with the jobs.")
@selection.filters
@options.database
def hold(
    job_ids: tuple[str, ...], reason: str | None, app: str | None, url: str | None, schema: str | None, **said: Any
) -> None:
    """Put waiting jobs on hold, by id or by what they have in common, until they are let go."""
    from pgjobs import statements

    jobs = options.jobs_of(app, url, schema)
    _act(jobs, "hold", lambda ids: statements.hold(ids, reason), job_ids, said, selection.WAITING)


@command.command()
@click.argument("job_ids", nargs=-1, metavar="[ID]...")
@selection.filters
@options.database
def unhold(job_ids: tuple[str, ...], app: str | None, url: str | None, schema: str | None, **said: Any) -> None:
    """Let jobs go that are on hold: to the end of their queue, or to their time if that is still to come."""
    from pgjobs import statements

    jobs = options.jobs_of(app, url, schema)
    _act(jobs, "unhold", statements.unhold, job_ids, said, ["blocked"])


@command.command()
@click.argument("job_ids", nargs=-1, metavar="[ID]...")
@click.option("--to", required=True, metavar="QUEUE", help="The queue that they are to have.")
@selection.filters
@options.database
def move(job_ids: tuple[str, ...], to: str, app: str | None, url: str | None, schema: str | None, **said: Any) -> None:
    """Give waiting jobs another queue, at the end of which they wait."""
    from pgjobs import statements

    jobs = options.jobs_of(app, url, schema)
    _act(jobs, "move", lambda ids: statements.move(ids, to, None), job_ids, said, selection.WAITING)


@command.command()
@click.argument("job_ids", nargs=-1, metavar="[ID]...")
@click.option("--to", required=True, type=click.IntRange(-100, 100), help="The priority; larger runs first.")
@selection.filters
@options.database
def prioritize(
    job_ids: tuple[str, ...], to: int, app: str | None, url: str | None, schema: str | None, **said: Any
) -> None:
    """Give waiting jobs another priority, behind the jobs that have it."""
    from pgjobs import statements

    jobs = options.jobs_of(app, url, schema)
    _act(jobs, "prioritize", lambda ids: statements.move(ids, None, to), job_ids, said, selection.WAITING)


@command.command("run-now")
@click.argument("job_ids", nargs=-1, metavar="[ID]...")
@selection.filters
@options.database
def run_now(job_ids: tuple[str, ...], app: str | None, url: str | None, schema: str | None, **said: Any) -> None:
    """Queue scheduled jobs now, however far off their time is."""
    from pgjobs import statements

    jobs = options.jobs_of(app, url, schema)
    _act(jobs, "run", statements.run_now, job_ids, said, ["scheduled"])


PAST = {
    "cancel": "cancelled",
    "retry": "queued again",
    "delete": "deleted",
    "hold": "put on hold",
    "unhold": "let go",
    "move": "moved",
    "prioritize": "moved",
    "run": "queued now",
}


def _act(
    jobs: PgJobs,
    verb: str,
    doing: Callable[[list[UUID]], Statement[Any]],
    job_ids: Sequence[str],
    said: dict[str, Any],
    by_default: Sequence[str],
) -> None:
    yes = said.pop("yes")
    if job_ids:
        if any(said.values()):
            raise click.UsageError("give ids or filters, not both")
        ids = [as_id(job_id) for job_id in job_ids]
        done: set[UUID] = set()
        selection.act_on(jobs, verb, lambda ids: _noting(doing(ids), done), {"ids": list(map(str, ids))}, [ids])
        for job_id in sorted(set(ids) - done):
            job = jobs.job(job_id)
            raise JobStateError(f"job {job_id} is {job.status.value} and cannot be {PAST[verb]}")
        click.echo(f"{len(job_ids)} {PAST[verb]}")
        return
    chosen = selection.selection(**said, by_default=by_default)
    if selection.confirm(jobs, chosen, verb, yes=yes):
        click.echo(f"{selection.act(jobs, verb, doing, chosen):,} {PAST[verb]}")


def _noting(statement: Statement[Any], done: set[UUID]) -> Statement[Any]:
    """The same statement, which notes the ids that it brings back."""

    def read(rows: Any) -> Any:
        done.update(row[0] for row in rows)
        return statement.read(rows)

    return dataclasses.replace(statement, read=read)


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
