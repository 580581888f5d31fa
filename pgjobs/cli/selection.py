"""Which jobs a command acts on: by what they have in common; counted, and asked about, before it acts."""

from __future__ import annotations

import contextlib
import getpass
import socket
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar
from uuid import UUID

import click

from pgjobs.cli import completion

if TYPE_CHECKING:
    from psycopg import Connection

    from pgjobs.app import PgJobs
    from pgjobs.statements import Selection, Statement

    Doing: TypeAlias = Callable[[list[UUID], Sequence[str] | None], Statement[Any]]
    """What is to be done to jobs: to all that are named, or to those alone that still stand in one of some statuses."""

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

STATUSES = ["scheduled", "blocked", "queued", "running", "succeeded", "failed", "cancelled", "expired"]
WAITING = STATUSES[:3]
UNENDED = STATUSES[:4]
CHUNK = 1_000


def filters(command: F) -> F:
    """Adds the options that say what the jobs have in common, and the one that asks nothing."""
    return conditions(click.option("-y", "--yes", is_flag=True, help="Do not ask.")(command))


def conditions(command: F) -> F:
    """Adds the options that say what the jobs have in common."""
    for option in (
        click.option(
            "--where",
            metavar="SQL",
            help="Only where this condition on pgjobs.jobs holds: \"args->>'user_id' = '42'\". It cannot write.",
        ),
        click.option("--fingerprint", help="Only those of which an attempt failed so; see `pgjobs failures`."),
        click.option("--older-than", metavar="DURATION", help="Only jobs enqueued longer ago, as in 2h or 7d."),
        click.option("--task", shell_complete=completion.tasks, help="Only of this task."),
        click.option("-Q", "--queue", shell_complete=completion.queues, help="Only of this queue."),
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
    fingerprint: str | None,
    where: str | None,
    *,
    by_default: Sequence[str],
) -> Selection:
    """What the options say.

    Raises:
        click.UsageError: they say nothing.
    """
    from pgjobs.config import seconds
    from pgjobs.statements import Selection

    if not (statuses or queue or task or older_than or fingerprint or where):
        raise click.UsageError(
            "say which jobs: their ids, or --status, --queue, --task, --older-than, --fingerprint or --where"
        )
    age_s = None if older_than is None else seconds(older_than, what="--older-than")
    return Selection(list(statuses or by_default), queue, task, age_s, fingerprint, where)


def chosen(**said: Any) -> Selection:
    """What the options say, for a command that only reads: all jobs where they say nothing."""
    from pgjobs.statements import Selection

    return selection(**said, by_default=STATUSES) if any(said.values()) else Selection(STATUSES)


def confirm(jobs: PgJobs, chosen: Selection, verb: str, *, yes: bool) -> int:
    """Counts the jobs and asks; returns how many there are, or ends the command."""
    from pgjobs import statements
    from pgjobs.wording import plural

    counts = _read(jobs, chosen, statements.count_jobs(chosen))
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


def act(jobs: PgJobs, verb: str, doing: Doing, chosen: Selection) -> int:
    """Does it to all of them, some in a transaction, with a line in the audit; returns how many were changed.

    What has another status by then than those that were chosen is left alone. Whoever is interrupted runs the command
    again: what is done is in the audit, and is not chosen any more.
    """
    from dataclasses import asdict

    said = {name: value for name, value in asdict(chosen).items() if value is not None}
    return act_on(jobs, verb, lambda ids: doing(ids, chosen.statuses), said, chunks(jobs, chosen))


def act_on(
    jobs: PgJobs,
    verb: str,
    doing: Callable[[list[UUID]], Statement[Any]],
    said: Mapping[str, Any],
    ids: Iterable[list[UUID]],
) -> int:
    """Does it to jobs, chunk by chunk, with a line in the audit that tells who and what they said."""
    from pgjobs import statements

    database = jobs.database
    line = database.run(statements.note_action(f"{getpass.getuser()}@{socket.gethostname()}", verb, said))
    done = 0
    for chunk in ids:
        with database.connection() as conn, conn.transaction():
            done = database.run(statements.count_action(line, len(database.run(doing(chunk), conn))), conn)
    return done


def _read(jobs: PgJobs, chosen: Selection, statement: Statement[T]) -> T:
    """Runs what may have a condition of the caller's in it, where it can write nothing; see ``reading``."""
    with reading(jobs, chosen) as conn:
        return jobs.database.run(statement, conn)


@contextlib.contextmanager
def reading(jobs: PgJobs, chosen: Selection) -> Generator[Connection[Any]]:
    """A transaction that can write nothing, for what may have a condition of the caller's in it.

    Raises:
        OptionError: the condition is no SQL, fails, or wants to write.
        SchemaError: the tables are not there.
    """
    import psycopg

    from pgjobs import statements
    from pgjobs.connections.database import explained
    from pgjobs.errors import OptionError

    with explained(jobs.schema), jobs.database.connection() as conn, conn.transaction():
        jobs.database.run(statements.read_only(), conn)
        jobs.database.run(statements.schema_revision(), conn)  # where there is none, the condition is not at fault
        try:
            yield conn
        except psycopg.errors.InsufficientPrivilege:
            raise
        except (psycopg.ProgrammingError, psycopg.DataError, psycopg.InternalError) as error:
            if chosen.where is None:
                raise
            raise OptionError(f"the selection cannot be read: {error.diag.message_primary}; see --where") from error


def chunks(jobs: PgJobs, chosen: Selection) -> Iterator[list[UUID]]:
    """The ids of the jobs, some at a time, so that no transaction grows long."""
    from pgjobs import statements

    after = UUID(int=0)
    while ids := _read(jobs, chosen, statements.select_jobs(chosen, after, CHUNK)):
        yield ids
        after = ids[-1]
