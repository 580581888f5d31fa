"""``pgjobs completion``: the script for a shell; and names from the database, for whoever types one."""

from __future__ import annotations

import threading
from typing import Final

import click
from click.shell_completion import CompletionItem, get_completion_class

SHELLS: Final = ("bash", "zsh", "fish")
PATIENCE_S: Final = 1.5
"""A database that has not answered by then is asked no further."""


@click.command(
    epilog='Examples: eval "$(pgjobs completion bash)" in ~/.bashrc; the same with zsh in ~/.zshrc; '
    "pgjobs completion fish > ~/.config/fish/completions/pgjobs.fish"
)
@click.argument("shell", type=click.Choice(SHELLS))
def command(shell: str) -> None:
    """Write the script that completes commands, options, and names of queues and tasks in a shell.

    Names come from the database that the environment or --url names, where it answers within a moment.
    """
    from pgjobs.cli import cli

    if made := get_completion_class(shell):
        click.echo(made(cli, {}, "pgjobs", "_PGJOBS_COMPLETE").source())


def queues(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Queues that begin so."""
    return _known(ctx, "queue", incomplete)


def tasks(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Tasks that begin so."""
    return _known(ctx, "task", incomplete)


def _known(ctx: click.Context, kind: str, incomplete: str) -> list[CompletionItem]:
    """Names from the database; none where there is none, or it does not answer in time. Says nothing in any case."""
    found: list[str] = []
    url, schema = ctx.params.get("url"), ctx.params.get("schema")
    asking = threading.Thread(target=lambda: found.extend(_ask(url, schema, kind)), daemon=True)
    asking.start()
    asking.join(PATIENCE_S)
    return [CompletionItem(name) for name in found if name.startswith(incomplete)]


def _ask(url: str | None, schema: str | None, kind: str) -> list[str]:
    import contextlib
    import os

    from pgjobs import statements
    from pgjobs.config import DEFAULT_SCHEMA, find_url, schema_name
    from pgjobs.connections.database import Database

    try:
        where = url or find_url()
        if where.startswith("embedded:"):
            return []  # it would have to be started first
        name = schema_name(schema or os.environ.get("PGJOBS_SCHEMA") or DEFAULT_SCHEMA)
        database = Database(url, name)
        with contextlib.closing(database.connect("pgjobs completion")) as conn:
            return [name for name in database.run(statements.names(), conn)[kind] if name.isprintable()]
    except Exception:  # whatever is wrong: nobody has asked for it yet
        return []
