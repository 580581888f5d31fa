"""``pgjobs enqueue``, with RQ's syntax for arguments."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from pgjobs.cli import options

if TYPE_CHECKING:
    from pgjobs.connections.database import Database
    from pgjobs.handle import Job


@click.command(context_settings={"ignore_unknown_options": False})
@click.argument("function")
@click.argument("arguments", nargs=-1)
@click.option("-Q", "--queue", help="Its queue, if not the task's own.")
@click.option("--priority", type=click.IntRange(-100, 100), help="Larger runs first.")
@click.option("--delay", metavar="DURATION", help="Start this much later: 90s, 10m, 1h30m.")
@click.option("--run-at", metavar="TIME", help="Start then: 2027-01-31T08:00:00+01:00.")
@click.option("--ttl", metavar="DURATION", help="Expire if not started within.")
@click.option("--timeout", metavar="DURATION", help="How long an attempt may run.")
@click.option("--max-attempts", type=click.IntRange(1), help="Runs in all.")
@click.option("--job-id", metavar="UUID", help="An id of your own.")
@click.option(
    "-o", "--option", "others", multiple=True, metavar="NAME=VALUE", help="Any other option: lifo=true, tags='[\"a\"]'."
)
@options.as_json
@options.database
def command(
    function: str,
    arguments: tuple[str, ...],
    app: str | None,
    url: str | None,
    schema: str | None,
    as_json: bool,
    others: tuple[str, ...],
    **given: Any,
) -> None:
    """Enqueue one job: of a task, by its name, or of a function, as module:function.

    Arguments: a text, key=text, and where JSON is meant :json or key:=json.

        pgjobs enqueue app.tasks:count_words https://example.com limit:=10

    Options have the names that they have in Python; -o takes those without a flag of their own, as JSON or text:
    -o unique=true -o deadline=2h -o meta='{"tenant": 5}' -o retry='{"max_attempts": 3, "backoff": "linear"}'
    """
    positional, named = parse(arguments)
    jobs = options.jobs_of(app, url, schema)
    chosen = {name: value for name, value in given.items() if value is not None}
    if (attempts := chosen.pop("max_attempts", None)) is not None:
        chosen["retry"] = attempts
    if (run_at := chosen.get("run_at")) is not None:
        chosen["run_at"] = _time(run_at)
    chosen |= dict(map(_option, others))
    call = jobs.using(None, **chosen).call(function)
    if (signature := jobs.signature_of(function)) is not None:  # what JSON has as texts, a call may have as numbers
        args, named = signature.unbind(signature.by_name(positional, named))
    else:
        args, named, private = _as_published(jobs.database, function, positional, named)
        call = call.hiding(private)
    job: Job[Any] = call.enqueue(*args, **named)
    if as_json:
        options.write_json({"id": job.id, "task": job.task})
    else:
        click.echo(str(job.id))


def _as_published(
    database: Database, task: str, positional: list[Any], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any], list[str]]:
    """Arguments by name, checked by what workers have published of the task, and the names of those that are private.

    Raises:
        ArgumentsError: they do not fit.
        ConfigurationError: they are to be encrypted, which takes the application's key.
    """
    from pgjobs import statements
    from pgjobs.arguments import codec
    from pgjobs.arguments.privacy import POSITIONALS
    from pgjobs.arguments.signature import OWN
    from pgjobs.errors import ArgumentsError, ConfigurationError

    schema = database.run(statements.published(task))
    about: dict[str, Any] = {} if schema is None else schema.get(OWN, {})
    if about.get("encrypted"):
        raise ConfigurationError(f"task {task!r} is encrypted; give -A, so that its arguments are encrypted")
    names: list[str] = about.get("positional", [POSITIONALS])
    places = [name for name in names if name != POSITIONALS]
    if len(positional) > len(places) and POSITIONALS not in names:
        raise ArgumentsError(f"task {task!r}: it takes {len(places)} arguments by place; give others as name=value")
    by_place = dict(zip(places, positional, strict=False))
    if twice := sorted(by_place.keys() & named.keys()):
        raise ArgumentsError(f"task {task!r}: argument {twice[0]} is given by place and by name; give it once")
    rest, known = positional[len(by_place) :], {**by_place, **named}
    text = codec.dumps({**known, POSITIONALS: rest} if rest else known, what="arguments")
    if problem := database.run(statements.misfit(task, text)):
        raise ArgumentsError(f"task {task!r}: {problem}; a number is written name:=5, or :5 by place")
    return tuple(rest), known, about.get("private", [])


def parse(arguments: tuple[str, ...]) -> tuple[list[Any], dict[str, Any]]:
    """Reads ``text``, ``:json``, ``key=text`` and ``key:=json``."""
    positional: list[Any] = []
    named: dict[str, Any] = {}
    for place, argument in enumerate(arguments, start=1):
        key, equals, value = argument.partition("=")
        if equals and key.removesuffix(":").isidentifier():
            named[key.removesuffix(":")] = _json(value, key.removesuffix(":")) if key.endswith(":") else value
        elif named:
            raise click.UsageError(f"argument {place} stands after one with a name; put it before")
        else:
            positional.append(_json(argument[1:], f"argument {place}") if argument.startswith(":") else argument)
    return positional, named


def _json(text: str, what: str) -> Any:
    """Reads JSON. An error does not quote the value, which may be private."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"{what} is no JSON ({error}); for a text write key=text") from None


def _time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise click.UsageError(f"--run-at {text!r} is no time; write it as 2027-01-31T08:00:00+01:00") from None


def _option(text: str) -> tuple[str, Any]:
    """Reads ``name=value``; what is an object in JSON is that policy's arguments."""
    from pgjobs.terms.keep import Keep
    from pgjobs.terms.retry import Retry
    from pgjobs.terms.unique import Unique
    from pgjobs.webhooks import Webhook

    name, equals, said = text.partition("=")
    if not equals:
        raise click.UsageError(f"--option {text!r} has no value; write it as name=value")
    try:
        value: Any = json.loads(said)
    except ValueError:
        value = said
    policy: Any = {"keep": Keep, "retry": Retry, "unique": Unique, "webhook": Webhook}.get(name)
    if policy is None or not isinstance(value, dict):
        return name, value
    try:
        return name, policy(**value)
    except TypeError as error:
        raise click.UsageError(f"--option {name}: {error}") from None
