"""``pgjobs keys``: keys for tasks that encrypt, and what is stored under older ones."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

import click

from pgjobs.cli import codes, options

if TYPE_CHECKING:
    from pgjobs.app import PgJobs
    from pgjobs.arguments.cipher import Cipher
    from pgjobs.statements import Resealed

CHUNK = 500


@click.group()
def command() -> None:
    """Make keys for encrypted jobs, or change them.

    A new key goes in two steps, so that no process meets what it cannot open: give it to all of them as the last of
    PGJOBS_KEYS; then put it first. When `pgjobs keys rotate` has left nothing under the old one, take that away.
    """


@command.command()
def generate() -> None:
    """Print a new key."""
    from pgjobs.arguments import cipher

    click.echo(cipher.generate())


@dataclass(slots=True)
class Counts:
    """What became of the jobs that are stored encrypted."""

    current: int = 0
    changed: int = 0
    held: int = 0
    closed: int = 0

    def lines(self, *, dry: bool) -> Iterator[str]:
        """As the command prints it; what is 0 is left out, but for what it has done."""
        yield f"{self.changed:,} {'would be encrypted' if dry else 'encrypted'} with the first key"
        if self.current:
            yield f"{self.current:,} under it before"
        if self.held:
            yield f"{self.held:,} left, since something else held or changed them: run it again"
        if self.closed:
            yield f"{self.closed:,} left, since no key opens them: add the key that they were written with"


@command.command()
@click.option("--dry-run", is_flag=True, help="Count only.")
@options.database
def rotate(dry_run: bool, app: str | None, url: str | None, schema: str | None) -> None:
    """Encrypt with the first key what is stored under older ones: arguments and results, of jobs in any status.

    It may run beside the workers, be broken off, and be repeated. Exits with 1 if something is left.
    """
    from pgjobs import statements

    jobs = options.jobs_of(app, url, schema)
    jobs.cipher.check()
    counts = Counts()
    for chunk in _stale(jobs, counts):
        done = len(chunk) if dry_run else len(jobs.database.run(statements.reseal(chunk)))
        counts.changed += done
        counts.held += len(chunk) - done
    for line in counts.lines(dry=dry_run):
        click.echo(line)
    if counts.held or counts.closed:
        sys.exit(codes.FAILURE)


def _stale(jobs: PgJobs, counts: Counts) -> Iterator[list[Resealed]]:
    """What is to be written, some jobs at a time; those that are as they should be are counted."""
    from pgjobs import statements

    after = UUID(int=0)
    while rows := jobs.database.run(statements.sealed_jobs(after, CHUNK)):
        after = rows[-1][0]
        if chunk := [new for row in rows if (new := _resealed(jobs.cipher, *row, counts))]:
            yield chunk


def _resealed(cipher: Cipher, job_id: UUID, args: str | None, result: str | None, counts: Counts) -> Resealed | None:
    from pgjobs.errors import DecryptionError
    from pgjobs.statements import Resealed

    try:
        new_args, new_result = (token and cipher.rotate(token) for token in (args, result))
    except DecryptionError:
        counts.closed += 1
        return None
    if not (new_args or new_result):
        counts.current += 1
        return None
    return Resealed(job_id, args, new_args or None, result, new_result or None)
