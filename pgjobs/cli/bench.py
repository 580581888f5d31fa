"""``pgjobs bench``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pgjobs.cli import options

if TYPE_CHECKING:
    from rich.table import Table

    from pgjobs.bench import Report


@click.command()
@click.option(
    "-n", "--jobs", "count", default=20_000, show_default=True, type=click.IntRange(1_000), help="Of a drain."
)
@click.option("--rounds", default=1, show_default=True, type=click.IntRange(1), help="Medians of so many rounds.")
@click.option("--only", metavar="WORD", help="Only the measures that have this word in their names.")
@options.as_json
@click.option("--url", metavar="URL", default="embedded:", show_default=True, help="Its schema pgjobs_bench goes.")
def command(count: int, rounds: int, only: str | None, as_json: bool, url: str) -> None:
    """Measure the queue on this machine: drains, enqueues, latencies, memory, WAL.

    Everything runs as in production: real workers, durable commits. Takes a minute or two a round.
    """
    from pgjobs import bench, embedded
    from pgjobs.config import normal_url

    chosen = [measure for measure in bench.standard(count) if not only or only in measure.name]
    if not chosen:
        raise click.UsageError(f"no measure has {only!r} in its name")
    where = embedded.resolve(normal_url(url))
    if as_json:
        options.write_json(bench.run(where, chosen, rounds).document())
        return
    report = bench.run(where, chosen, rounds, lambda name: click.secho(f"  {name.strip()} …", dim=True, err=True))
    shape = report.shape
    click.echo(f"{shape['machine']}; Python {shape['python']}; {shape['server']}")
    click.echo(", ".join(f"{name} {value}" for name, value in shape["settings"].items()))
    options.console().print(table(report))


def table(report: Report) -> Table:
    """Draws the figures for a terminal."""
    from rich.table import Table

    drawn = Table(box=None, pad_edge=False, header_style="bold")
    drawn.add_column("measure")
    drawn.add_column("median", justify="right")
    drawn.add_column("")
    for name, values in report.medians().items():
        unit = report.units[name]
        first, *others = values.items()
        head = f"{first[1]:,.0f} {unit}" if unit == "jobs/s" else f"{first[1]:,.1f} {unit}"
        drawn.add_row(name, head, ", ".join(f"{key} {_short(value)}" for key, value in others))
    return drawn


def _short(value: float) -> str:
    return f"{value:,.{0 if value >= 100 else 1 if value >= 1 else 3}f}"
