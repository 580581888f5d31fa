"""What jobs can be told from the command line, by id or by what they have in common: parts of ``pgjobs jobs``."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from pgjobs.cli import options, selection
from pgjobs.errors import JobStateError
from pgjobs.insight.shown import without_private
from pgjobs.job import as_id

if TYPE_CHECKING:
    from uuid import UUID

    from pgjobs.app import PgJobs
    from pgjobs.job import JobRow
    from pgjobs.statements import Statement

PAST: Final = {
    "cancel": "cancelled",
    "retry": "queued again",
    "delete": "deleted",
    "hold": "put on hold",
    "unhold": "let go",
    "move": "moved",
    "prioritize": "moved",
    "run": "queued now",
}


def _of_jobs(function: Callable[..., None]) -> Callable[..., None]:
    """Takes ids, or what jobs have in common, and the database."""
    taking = selection.filters(options.database(function))
    return click.argument("job_ids", nargs=-1, metavar="[ID]...")(taking)


@click.command()
@click.option("--reason", default="cancelled", show_default=True, help="What is kept with the jobs.")
@_of_jobs
def cancel(
    job_ids: tuple[str, ...], reason: str, app: str | None, url: str | None, schema: str | None, **said: Any
) -> None:
    """Cancel jobs that have not ended, by id or by what they have in common.

    Those that wait are cancelled at once; those that run are stopped within seconds, threads when they look.
    """
    from pgjobs import statements

    jobs = options.jobs_of(app, url, schema)
    _act(jobs, "cancel", lambda ids, among: statements.cancel(ids, reason, among), job_ids, said, selection.UNENDED)


@click.command()
@click.option("--args", metavar="JSON", help="Other arguments, for one job: a JSON object.")
@click.option("--edit", is_flag=True, help="Change the arguments of one job in an editor.")
@_of_jobs
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


@click.command()
@_of_jobs
def delete(job_ids: tuple[str, ...], app: str | None, url: str | None, schema: str | None, **said: Any) -> None:
    """Delete jobs with their failures, by id or by what they have in common; the run of a running one is stopped."""
    from pgjobs import statements

    jobs = options.jobs_of(app, url, schema)
    _act(jobs, "delete", statements.delete, job_ids, said, selection.STATUSES)


@click.command()
@click.option("--reason", help="What is kept with the jobs.")
@_of_jobs
def hold(
    job_ids: tuple[str, ...], reason: str | None, app: str | None, url: str | None, schema: str | None, **said: Any
) -> None:
    """Put waiting jobs on hold, by id or by what they have in common, until they are let go."""
    from pgjobs import statements

    jobs = options.jobs_of(app, url, schema)
    _act(jobs, "hold", lambda ids, among: statements.hold(ids, reason, among), job_ids, said, selection.WAITING)


@click.command()
@_of_jobs
def unhold(job_ids: tuple[str, ...], app: str | None, url: str | None, schema: str | None, **said: Any) -> None:
    """Let jobs go that are on hold: to the end of their queue, or to their time if that is still to come."""
    from pgjobs import statements

    jobs = options.jobs_of(app, url, schema)
    _act(jobs, "unhold", lambda ids, _: statements.unhold(ids), job_ids, said, ["blocked"])


@click.command()
@click.option("--to", required=True, metavar="QUEUE", help="The queue that they are to have.")
@_of_jobs
def move(job_ids: tuple[str, ...], to: str, app: str | None, url: str | None, schema: str | None, **said: Any) -> None:
    """Give waiting jobs another queue, at the end of which they wait."""
    from pgjobs import statements
    from pgjobs.config import queue_name

    queue = queue_name(to)
    jobs = options.jobs_of(app, url, schema)
    _act(jobs, "move", lambda ids, among: statements.move(ids, queue, None, among), job_ids, said, selection.WAITING)


@click.command()
@click.option("--to", required=True, type=click.IntRange(-100, 100), help="The priority; larger runs first.")
@_of_jobs
def prioritize(
    job_ids: tuple[str, ...], to: int, app: str | None, url: str | None, schema: str | None, **said: Any
) -> None:
    """Give waiting jobs another priority, behind the jobs that have it."""
    from pgjobs import statements

    jobs = options.jobs_of(app, url, schema)
    _act(jobs, "prioritize", lambda ids, among: statements.move(ids, None, to, among), job_ids, said, selection.WAITING)


@click.command("run-now")
@_of_jobs
def run_now(job_ids: tuple[str, ...], app: str | None, url: str | None, schema: str | None, **said: Any) -> None:
    """Queue scheduled jobs now, however far off their time is."""
    from pgjobs import statements

    jobs = options.jobs_of(app, url, schema)
    _act(jobs, "run", lambda ids, _: statements.run_now(ids), job_ids, said, ["scheduled"])


def _act(
    jobs: PgJobs,
    verb: str,
    doing: selection.Doing,
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
        selection.act_on(jobs, verb, lambda ids: _noting(doing(ids, None), done), {"ids": list(map(str, ids))}, [ids])
        for job_id in sorted(set(ids) - done):
            job = jobs.job(job_id)
            from pgjobs.handle import LEFT, was_for_one

            why = LEFT if verb == "retry" and was_for_one(job) else ""
            raise JobStateError(f"job {job_id} is {job.status.value} and cannot be {PAST[verb]}{why}")
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


COMMANDS: Final = (cancel, retry, delete, hold, unhold, move, prioritize, run_now)
