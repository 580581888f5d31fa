"""Which jobs a command acts on: by what they have in common; counted, and asked about, before it acts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import click

if TYPE_CHECKING:
    from pgjobs.app import PgJobs
    from pgjobs.statements import Selection

F = TypeVar("F", bound=Callable[..., Any])

STATUSES = ["scheduled", "blocked", "queued", "running", "succeeded", "failed", "cancelled", "expired"]
WAITING = STATUSES[:3]
UNENDED = STATUSES[:4]
CHUNK = 1_000


def filters(command: F) -> F:
    """Adds the options that say what the jobs have in common."""
    for option in (
        click.option("-y", "--yes", is_flag=True, help="Do not ask."),
        click.option("--older-than", metavar="DURATION", help="Only jobs enqueued longer ago, as in 2h or 7d."),
        click.option("--task", help="Only of this task."),
        click.option("-Q", "--queue", help="Only of this queue."),
        click.option(
            "--status", "statuses", multiple=True, type=click.Choice(STATUSES), help="Only these; repeatable."
        ),
    ):
        command = option(command)
    return command


def selection(
    statuses: Sequence[str],
    queue: str | None,
    task: str | None,
    older_than: str | None,
    *,
    by_default: Sequence[str],
) -> Selection:
    """What the options say.

    Raises:
        click.UsageError: they say nothing.
    """
    from pgjobs.config import seconds
    from pgjobs.statements import Selection

    if not (statuses or queue or task or older_than):
        raise click.UsageError("say which jobs: their ids, or --status, --queue, --task or --older-than")
    age_s = None if older_than is None else seconds(older_than, what="--older-than")
    return Selection(list(statuses or by_default), queue, task, age_s)


def confirm(jobs: PgJobs, chosen: Selection, verb: str, *, yes: bool) -> int:
    """Counts the jobs and asks; returns how many there are, or ends the command."""
    from pgjobs import statements
    from pgjobs.telemetry import plural

    counts = jobs.database.run(statements.count_jobs(chosen))
    total = sum(counts.values())
    if not total:
        click.echo("no such jobs")
        return 0
    what = f"{plural(total, 'job')} ({', '.join(f'{count:,} {status}' for status, count in counts.items())})"
    if yes:
        click.echo(what)
    elif sys.stdin.isatty():
        click.confirm(f"{what}: {verb} them?", abort=True)
    else:
        raise click.UsageError(f"{what}; pass --yes to {verb} them")
    return total


def chunks(jobs: PgJobs, chosen: Selection) -> Iterator[list[UUID]]:
    """The ids of the jobs, some at a time, so that no transaction grows long."""
    from pgjobs import statements

    after = UUID(int=0)
    while ids := jobs.database.run(statements.select_jobs(chosen, after, CHUNK)):
        yield ids
        after = ids[-1]
