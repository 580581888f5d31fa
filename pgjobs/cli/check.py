"""``pgjobs check``: how the queue stands, as monitors want to hear it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NoReturn

import click

from pgjobs.cli import codes, completion, options
from pgjobs.wording import duration, one_line, plural

if TYPE_CHECKING:
    from pgjobs.connections.database import Database


class State(IntEnum):
    """What a monitor makes of an exit code; the worst of several is the largest but for UNKNOWN."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


@dataclass(frozen=True, slots=True)
class Limits:
    """From which value on something is a warning, or critical; None for never."""

    warning: float | None = None
    critical: float | None = None

    def judge(self, value: float) -> State:
        """What a value is; one that is no more than its limit is well."""
        if self.critical is not None and value > self.critical:
            return State.CRITICAL
        if self.warning is not None and value > self.warning:
            return State.WARNING
        return State.OK


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure: its name, value and unit for graphs, and a phrase for people."""

    name: str
    value: float
    unit: str
    state: State
    says: str
    warning: str = ""
    critical: str = ""

    @property
    def perfdata(self) -> str:
        """As the Monitoring Plugins' guidelines have it."""
        return f"{self.name}={self.value:g}{self.unit};{self.warning};{self.critical};0"


def _limits(parse: Callable[[str], float], example: str) -> Callable[[Any, Any, str | None], Limits]:
    """Reads ``CRITICAL``, ``WARNING,CRITICAL`` or ``WARNING,``."""

    def read(ctx: Any, param: click.Parameter, value: str | None) -> Limits:
        if value is None:
            return Limits()
        try:
            warning, critical = (parse(part) if part else None for part in value.rpartition(",")[::2])
        except ValueError:
            raise click.BadParameter(f"{value!r} is no limit; write one value, or two as in {example}") from None
        if warning is not None and critical is not None and warning > critical:
            raise click.BadParameter(
                f"{value!r} warns after it is critical; write the lower one first, as in {example}"
            )
        return Limits(warning, critical)

    return read


def _count(text: str) -> float:
    count = float(text)
    if not 0 <= count < float("inf"):
        raise ValueError
    return count


def _seconds(text: str) -> float:
    from pgjobs.config import seconds

    return seconds(text)


class Monitored(click.Command):
    """A command whose every end is one line, or a document, and a state: what was misspelt is UNKNOWN too."""

    def make_context(self, info_name: str | None, args: list[str], *more: Any, **named: Any) -> click.Context:
        as_json = "--json" in args
        try:
            return super().make_context(info_name, args, *more, **named)
        except click.UsageError as error:
            _end(State.UNKNOWN, error.format_message(), as_json=as_json)

    def invoke(self, ctx: click.Context) -> Any:
        as_json = bool(ctx.params["as_json"])
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            _end(State.UNKNOWN, error.format_message(), as_json=as_json)
        except Exception as error:
            state = State.CRITICAL if codes.of(error) == codes.UNREACHABLE else State.UNKNOWN
            _end(state, codes.said(error), as_json=as_json)


@click.command(cls=Monitored)
@click.option(
    "-Q", "--queue", "queues", multiple=True, shell_complete=completion.queues,
    help="Only this queue, and whether it is served; repeatable.",
)  # fmt: skip
@click.option(
    "--max-age", default="5m,30m", show_default=True, metavar="WARN,CRIT", callback=_limits(_seconds, "5m,30m"),
    help="For how long a job may wait for its first attempt; one value is critical.",
)  # fmt: skip
@click.option(
    "--max-failed", metavar="WARN,CRIT", callback=_limits(_count, "20,200"),
    help="How many jobs may fail within --within; one value is critical.",
)  # fmt: skip
@click.option("--within", default="15m", show_default=True, metavar="DURATION", help="How far to look back.")
@click.option(
    "--min-workers", default=1, show_default=True, type=click.IntRange(0),
    help="How many workers must live, and serve each queue that is named; fewer is critical.",
)  # fmt: skip
@click.option(
    "--max-dead", default="0,", metavar="WARN,CRIT", callback=_limits(_count, "0,5"),
    help="How many workers may have fallen silent within --within; by default one is a warning.",
)  # fmt: skip
@options.as_json
@options.database
def command(
    queues: tuple[str, ...],
    max_age: Limits,
    max_failed: Limits,
    within: str,
    min_workers: int,
    max_dead: Limits,
    as_json: bool,
    app: str | None,
    url: str | None,
    schema: str | None,
) -> None:
    """Check the queue for a monitor: one line with perfdata, and its exit code.

    0 OK, 1 WARNING, 2 CRITICAL (the database is out of reach, too), 3 UNKNOWN. It reads indexes and rollups, so it is
    cheap on a table of any size.
    """
    database = options.database_of(app, url, schema)
    named, within_s = list(queues) or None, _seconds(within)
    measures = list(_measure(database, named, max_age, max_failed, within_s, min_workers, max_dead))
    state = max(measure.state for measure in measures)
    bad = [measure.says for measure in measures if measure.state is not State.OK]
    says = ", ".join(bad or [measure.says for measure in measures])
    _end(state, says, measures, as_json=as_json)


def _measure(
    database: Database,
    queues: Sequence[str] | None,
    max_age: Limits,
    max_failed: Limits,
    within_s: float,
    min_workers: int,
    max_dead: Limits,
) -> Iterator[Measure]:
    from pgjobs import statements

    run = database.run
    ages = run(statements.ages_of_queues(queues))
    yield _age(ages, max_age)
    failed = run(statements.failed_lately(within_s, queues))
    says = f"{failed:,} failed in {duration(within_s)}"
    yield Measure("failed", failed, "", max_failed.judge(failed), says, *_shown(max_failed))
    living = [member for member in run(statements.fleet()) if member.lives]
    serving = {queue: sum(member.serves(queue) for member in living) for queue in queues or ()} or {"": len(living)}
    of, fewest = min(serving.items(), key=lambda each: each[1])
    state = State.CRITICAL if fewest < min_workers else State.OK
    says = f"{plural(fewest, 'worker') if fewest else 'no worker'}{f' for queue {of}' if of else ''}"
    yield Measure("workers", fewest, "", state, says, critical=f"{min_workers}:")
    dead = run(statements.fallen_silent(within_s))
    says = f"{len(dead):,} fell silent" + (f" ({', '.join(dead[:3])})" if dead else "")
    yield Measure("dead", len(dead), "", max_dead.judge(len(dead)), says, *_shown(max_dead))


def _age(ages: dict[str, float], limits: Limits) -> Measure:
    if not ages:
        return Measure("age", 0, "s", State.OK, "nothing waits", *_shown(limits))
    queue, age_s = next(iter(ages.items()))
    age_s = max(0.0, round(age_s, 3))
    says = f"the oldest job waits for {duration(age_s)} in queue {queue}"
    return Measure("age", age_s, "s", limits.judge(age_s), says, *_shown(limits))


def _shown(limits: Limits) -> tuple[str, str]:
    warning, critical = ("" if value is None else f"{value:g}" for value in (limits.warning, limits.critical))
    return warning, critical


def _document(measure: Measure) -> dict[str, Any]:
    return {"name": measure.name, "value": measure.value, "status": measure.state.name, "says": measure.says}


def _end(state: State, says: str, measures: Sequence[Measure] = (), *, as_json: bool) -> NoReturn:
    """Writes the line or the document, and ends the process."""
    says = one_line(" ".join(says.split()))
    if as_json:
        documents = list(map(_document, measures))
        options.write_json({"status": state.name, "code": int(state), "says": says, "measures": documents})
    else:
        figures = " ".join(measure.perfdata for measure in measures)
        click.echo(f"PGJOBS {state.name} - {says}" + (f" | {figures}" if figures else ""))
    sys.exit(state)
