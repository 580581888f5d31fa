"""The ``pgjobs`` command. Each subcommand is a module of its own, imported when it is called."""

from __future__ import annotations

import gc
import sys
from importlib import import_module
from typing import Final, NoReturn

import click

from pgjobs import __version__
from pgjobs.cli import codes
from pgjobs.wording import harmless

COMMANDS: Final = {
    "alerts": "Show how the alerts stand, or test one.",
    "bench": "Measure the queue on this machine.",
    "check": "Check the queue for a monitor such as Nagios.",
    "completion": "Write the completion script for bash, zsh or fish.",
    "demo": "Watch a queue at work, on a PostgreSQL of its own.",
    "dev": "Develop: a worker that follows the code, on a migrated database.",
    "doctor": "Find what is wrong with the database, and how to mend it.",
    "enqueue": "Enqueue one job.",
    "enqueue-shell": "Enqueue a command, for workers that allow it.",
    "failures": "Show failures by what they have in common.",
    "info": "Show queues, workers and what they have handled.",
    "keys": "Make keys for encrypted jobs, or change them.",
    "jobs": "List, show, export and steer jobs: cancel, retry, hold, and more.",
    "mark": "Mark a moment, such as a deploy, or list the marks.",
    "migrate": "Bring the database up to this release.",
    "queues": "List, pause, resume, drain or clear queues.",
    "tasks": "List, pause or resume tasks.",
    "purge": "Delete the jobs that wait in a queue.",
    "roles": "Make or check PostgreSQL roles with least privilege.",
    "tail": "Show what happens to jobs, as it happens.",
    "top": "Watch and steer queues, tasks, workers, jobs and failures, full-screen.",
    "worker": "Run jobs until told to stop.",
    "workers": "List, quiet, stop or look into workers, or have each of them run a job.",
}

YOUNG: Final = 50_000
"""New objects after which the collector looks through them; a command's start makes as many, which all stay."""


class Commands(click.Group):
    """Knows its commands by name and line, so that ``--help`` imports none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"pgjobs.cli.{cmd_name.replace('-', '_')}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            known = ", ".join(sorted(COMMANDS))
            raise click.UsageError(f"{error.message} There is: {known}.", ctx) from None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="pgjobs %(version)s")
def cli() -> None:
    """A durable job queue for Python that needs nothing but PostgreSQL.

    The database is the one that PGJOBS_URL, DATABASE_URL or PG* name, or the application's own where -A names it.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 database out of reach, 5 schema out of date.
    """


def main() -> NoReturn:
    """Runs the command line, and ends the process with its exit code; an error is one line that says the remedy."""
    gc.set_threshold(YOUNG)
    try:
        cli(prog_name="pgjobs")
    except Exception as error:
        code = codes.of(error)
        if code is None:
            raise
        click.secho(f"pgjobs: {harmless(codes.said(error))}", fg="red", err=True)
        sys.exit(code)
    sys.exit(0)
