"""``pgjobs workers``."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar
from uuid import UUID, uuid4

import click

from pgjobs.cli import options

if TYPE_CHECKING:
    from pgjobs.app import PgJobs
    from pgjobs.insight.overview import WorkerLine

Command = TypeVar("Command", bound=Callable[..., Any])

LOOK_S: Final = 0.1
"""How often is looked whether answers have come."""


@click.group(invoke_without_command=True)
@options.as_json
@options.database
@click.pass_context
def command(ctx: click.Context, /, as_json: bool, app: str | None, url: str | None, schema: str | None) -> None:
    """List the workers that count as alive, and what they hold; or have them do something."""
    if ctx.invoked_subcommand is not None:
        options.refuse_before(ctx)
        return
    from pgjobs import statements
    from pgjobs.insight.overview import WorkerLine

    lines = [WorkerLine(*row) for row in options.database_of(app, url, schema).run(statements.workers())]
    if as_json:
        options.write_json([line.document() for line in lines])
    elif lines:
        from pgjobs.cli.picture import worker_table

        options.console(fits=True).print(worker_table(lines))
    else:
        click.echo("no worker; start one with: pgjobs worker -A app.tasks")


@command.command()
@click.argument("function")
@click.argument("arguments", nargs=-1)
@click.option("--ttl", metavar="DURATION", help="Expire where it has not started within; 60s by default.")
@options.as_json
@options.database
def broadcast(
    function: str,
    arguments: tuple[str, ...],
    ttl: str | None,
    as_json: bool,
    app: str | None,
    url: str | None,
    schema: str | None,
) -> None:
    """Enqueue a job for every worker process, each in a queue that only this one serves.

    Arguments are written as for pgjobs enqueue.
    """
    from pgjobs.cli.enqueue import parse

    positional, named = parse(arguments)
    jobs = options.jobs_of(app, url, schema)
    door = jobs.using() if ttl is None else jobs.using(ttl=ttl)
    made = door.broadcast(function, *positional, **named)
    if as_json:
        options.write_json([{"id": job.id, "task": job.task} for job in made])
    else:
        click.echo("\n".join(str(job.id) for job in made) or "no worker")


# -- control

_names = click.argument("names", nargs=-1, metavar="[NAME-OR-ID]…")
_all = click.option("--all", "everybody", is_flag=True, help="All workers.")


@command.command()
@_names
@_all
@options.as_json
@options.database
def quiet(names: Sequence[str], everybody: bool, as_json: bool, **where: str | None) -> None:
    """Have workers claim no more: they finish what runs, and stay.

    A name is that of one process, host:4711.0, or of all of a supervisor, host:4711.
    """
    from pgjobs import statements

    jobs, chosen = _chosen(names, everybody, where)
    _done("quiet", jobs.database.run(statements.make_quiet(list(chosen), quiet=True)), chosen, as_json)


@command.command()
@_names
@_all
@options.as_json
@options.database
def resume(names: Sequence[str], everybody: bool, as_json: bool, **where: str | None) -> None:
    """Have quiet workers claim again."""
    from pgjobs import statements

    jobs, chosen = _chosen(names, everybody, where)
    _done("resumed", jobs.database.run(statements.make_quiet(list(chosen), quiet=False)), chosen, as_json)


@command.command()
@_names
@_all
@options.as_json
@options.database
def stop(names: Sequence[str], everybody: bool, as_json: bool, **where: str | None) -> None:
    """Have workers leave, as with a first signal: nobody follows them.

    A supervisor whose last process has left leaves too, with exit code 0.
    """
    from pgjobs import statements

    jobs, chosen = _chosen(names, everybody, where)
    _done("stopping", jobs.database.run(statements.dismiss(list(chosen))), chosen, as_json)


def _timeout(what: str) -> Callable[[Command], Command]:
    return click.option(
        "--timeout", default=10.0, show_default=True, type=options.Seconds(0.0), metavar="SECONDS", help=what
    )


@command.command()
@_names
@_all
@_timeout("How long to wait for answers.")
@options.as_json
@options.database
def stacks(names: Sequence[str], everybody: bool, timeout: float, as_json: bool, **where: str | None) -> None:
    """Print where the code of every thread and coroutine stands, and in which job.

    Works on a worker whose slots are all taken, or which is quiet, and on Linux also on one in which C code holds the
    interpreter; coroutines are not shown then. What runs in a process of its own is not seen.
    """
    jobs, chosen = _chosen(names, everybody, where)
    _show(_ask(jobs, chosen, "stacks", 0.0, timeout), chosen, as_json, _stacks_text)


@command.command()
@_names
@_all
@click.option(
    "--seconds", default=5.0, show_default=True, type=options.Seconds(0.1, 300), help="How long to look, in seconds."
)
@click.option("--top", default=20, show_default=True, type=click.IntRange(1), help="So many functions.")
@click.option("--collapsed", is_flag=True, help="Print stacks and counts, for flame graphs.")
@_timeout("How long to wait beyond that.")
@options.as_json
@options.database
def profile(
    names: Sequence[str],
    everybody: bool,
    seconds: float,
    top: int,
    collapsed: bool,
    timeout: float,
    as_json: bool,
    **where: str | None,
) -> None:
    """Look for some seconds where the code of a worker's threads stands, a hundred times a second, and print it.

    The share of its own is that of samples in which the function itself ran, the other one counts what it had called.
    """
    jobs, chosen = _chosen(names, everybody, where)
    text = _collapsed_text if collapsed else partial(_top_text, most=top)
    _show(_ask(jobs, chosen, "profile", seconds, seconds + timeout), chosen, as_json, text)


def _chosen(names: Sequence[str], everybody: bool, where: Mapping[str, str | None]) -> tuple[PgJobs, dict[UUID, str]]:
    """The workers that were named, by id: those of one process, or all of one supervisor."""
    from pgjobs import statements
    from pgjobs.insight.overview import WorkerLine

    if bool(names) == everybody:
        raise click.UsageError("name workers, as `pgjobs workers` lists them, or give --all")
    jobs = options.jobs_of(where["app"], where["url"], where["schema"])
    lines = [WorkerLine(*row) for row in jobs.database.run(statements.workers())]
    chosen: dict[UUID, str] = {}
    for name in names or [""]:
        found = {line.id: line.name for line in lines if everybody or _is_named(line, name)}
        if not found:
            raise click.ClickException(f"no worker {name} lives".replace("  ", " ") + "; see: pgjobs workers")
        chosen |= found
    return jobs, chosen


def _is_named(line: WorkerLine, name: str) -> bool:
    return name in (line.name, str(line.id)) or line.name.startswith(f"{name}.")


def _done(word: str, ids: Sequence[UUID], chosen: Mapping[UUID, str], as_json: bool) -> None:
    if as_json:
        options.write_json([{"id": id_, "name": chosen[id_], "state": word} for id_ in ids])
    else:
        click.echo("\n".join(f"{word}  {chosen[id_]}" for id_ in ids))


def _ask(jobs: PgJobs, chosen: Mapping[UUID, str], what: str, seconds: float, patience_s: float) -> dict[UUID, Any]:
    """Asks workers something, and waits for the answers; what has not come within patience_s is absent."""
    from pgjobs import statements

    awaited = list(chosen)
    question = statements.Question(uuid4().hex, what, seconds)
    run = jobs.database.run
    deadline = time.monotonic() + patience_s
    found: dict[UUID, Any] = {}
    try:
        run(statements.ask(awaited, question))
        while True:
            replies = run(statements.answers(awaited, question.id))
            found |= {id_: reply.answer for id_, reply in replies.items() if reply.stands and reply.answer is not None}
            awaited = [id_ for id_, reply in replies.items() if reply.stands and reply.lives and reply.answer is None]
            if not awaited or time.monotonic() > deadline:
                break
            time.sleep(LOOK_S)
    finally:  # an answer may be large, and would stay in the worker's row
        run(statements.forget_question(list(chosen), question.id))
    return found


def _show(
    answers: Mapping[UUID, Any], chosen: Mapping[UUID, str], as_json: bool, text: Callable[[Any], Iterable[str]]
) -> None:
    if as_json:
        options.write_json([{"id": id_, "name": chosen[id_], **facts} for id_, facts in answers.items()])
    else:
        for id_, facts in answers.items():
            click.echo("\n".join([f"{chosen[id_]}  pid {facts['pid']}  {id_}", *text(facts), ""]))
    if silent := [name for id_, name in chosen.items() if id_ not in answers]:
        raise click.ClickException(
            f"no answer from {', '.join(sorted(silent))}: it has ended, somebody else has asked it meanwhile, or C code"
            " holds its interpreter; try again, or give --timeout"
        )


def _stacks_text(facts: Any) -> Iterator[str]:
    """What runs jobs stands before what serves them."""
    for kind in ("threads", "coroutines"):
        for each in sorted(facts[kind], key=lambda each: each["job"] is None):
            yield f"  {kind[:-1]} {each['name']}" + (f"  runs {each['job']}" if each["job"] else "")
            yield from (f"    {frame}" for frame in each["frames"])


def _collapsed_text(facts: Any) -> Iterator[str]:
    return (f"{stack} {count}" for stack, count in facts["stacks"].items())


def _top_text(facts: Any, most: int) -> Iterator[str]:
    """The functions that were met most, with the share of the samples in which they ran, themselves and with all."""
    own: Counter[str] = Counter()
    with_all: Counter[str] = Counter()
    for stack, count in facts["stacks"].items():
        _, *frames = stack.split(";")
        functions = [frame.rpartition(":")[0] + ")" if ":" in frame else frame for frame in frames]
        own[functions[-1]] += count
        for function in set(functions):
            with_all[function] += count
    samples = facts["samples"] or 1
    yield f"  {facts['samples']} samples in {facts['seconds']:g} s"
    yield "     own     all  function"
    for function, count in sorted(with_all.items(), key=lambda met: (-own[met[0]], -met[1]))[:most]:
        yield f"  {own[function] / samples:6.1%}  {count / samples:6.1%}  {function}"
