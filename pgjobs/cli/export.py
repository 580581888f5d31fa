"""``pgjobs jobs export``: rows as a file, streamed."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from importlib import import_module
from pathlib import PurePath
from typing import IO, TYPE_CHECKING, Any, Final, TypeAlias

import click

from pgjobs.cli import options, selection
from pgjobs.insight.shown import without_private

if TYPE_CHECKING:
    from pgjobs.app import PgJobs
    from pgjobs.job import JobRow

    Chunks: TypeAlias = Iterable[list[JobRow]]

DOCUMENTS: Final = frozenset({"args", "progress", "result", "meta", "options", "usage"})
"""Columns of JSON, which are texts where a format has no such thing."""

NUMBERS: Final = frozenset({"priority", "attempt", "max_attempts", "crashes"})


@click.command()
@click.argument("job_ids", nargs=-1, metavar="[ID]...")
@click.option("-o", "--output", default="-", type=click.File("wb"), help="Where to; standard output unless given.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["csv", "jsonl", "parquet"]),
    help="How; as the output's name ends, or jsonl. Parquet needs the extra parquet.",
)
@selection.conditions
@options.database
def export(
    job_ids: tuple[str, ...],
    output: IO[bytes],
    form: str | None,
    app: str | None,
    url: str | None,
    schema: str | None,
    **said: Any,
) -> None:
    """Write jobs to a file, by id or by what they have in common, or all of them; the first enqueued first.

    They are streamed, as they stand at one moment. Times are in ISO 8601, durations in seconds. Private arguments are
    left out, and what is stored encrypted stays so.
    """
    name = str(getattr(output, "name", "<stdout>"))
    suffix = PurePath(name).suffix.lstrip(".")
    write = WRITERS[form or (suffix if suffix in WRITERS else "jsonl")]
    if write is write_parquet and name == "<stdout>" and output.isatty():
        raise click.UsageError("parquet is nothing for a terminal; pass -o jobs.parquet")
    jobs = options.jobs_of(app, url, schema)
    count = write(output, _chunks(jobs, job_ids, said))
    output.flush()  # what is not written is not exported
    click.echo(f"{count:,} exported", err=True)


def _chunks(jobs: PgJobs, job_ids: tuple[str, ...], said: Mapping[str, Any]) -> Iterator[list[JobRow]]:
    from pgjobs import statements
    from pgjobs.errors import JobNotFoundError
    from pgjobs.job import as_id

    if job_ids and any(said.values()):
        raise click.UsageError("give ids or filters, not both")
    chosen = selection.chosen(**said)
    ids = [as_id(job_id) for job_id in job_ids] or None
    if ids and (missing := set(ids) - jobs.database.run(statements.statuses(ids)).keys()):
        raise JobNotFoundError(min(missing))
    with selection.reading(jobs, chosen) as conn:
        for rows in jobs.database.stream(statements.export_jobs(chosen, ids), conn):
            yield [without_private(jobs, row) for row in rows]


def write_jsonl(output: IO[bytes], chunks: Chunks) -> int:
    """A JSON object a line, as ``jobs list --json`` has it; returns how many."""
    output.write(b"")  # where there are none, there is a file all the same
    count = 0
    for rows in chunks:
        lines = (json.dumps(dataclasses.asdict(row), default=options.plain, ensure_ascii=False) for row in rows)
        output.write("".join(f"{line}\n" for line in lines).encode())
        count += len(rows)
    return count


def write_csv(output: IO[bytes], chunks: Chunks) -> int:
    """A header and a line a job; returns how many."""
    names = _columns()
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(names)
    count = 0
    for rows in chunks:
        writer.writerows([_text(name, getattr(row, name)) for name in names] for row in rows)
        output.write(text.getvalue().encode())
        text.seek(0)
        text.truncate()
        count += len(rows)
    output.write(text.getvalue().encode())
    return count


def write_parquet(output: IO[bytes], chunks: Chunks) -> int:
    """A row group for each chunk; returns how many rows.

    Raises:
        ConfigurationError: pyarrow is not installed.
    """
    arrow, parquet = _arrow()
    schema = arrow.schema([(name, _arrow_type(arrow, name)) for name in _columns()])
    count = 0
    with parquet.ParquetWriter(output, schema) as writer:
        for rows in chunks:
            columns = [[_arrow_value(name, getattr(row, name)) for row in rows] for name in schema.names]
            arrays = [arrow.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
            writer.write_table(arrow.Table.from_arrays(arrays, schema=schema))
            count += len(rows)
    return count


WRITERS: Final[dict[str, Callable[[IO[bytes], Any], int]]] = {
    "csv": write_csv,
    "jsonl": write_jsonl,
    "parquet": write_parquet,
}


def _columns() -> list[str]:
    from pgjobs.job import JobRow

    return [field.name for field in dataclasses.fields(JobRow)]


def _text(name: str, value: Any) -> str:
    if value is None:
        return ""
    if name in DOCUMENTS:
        return json.dumps(value, ensure_ascii=False)
    return str(options.plain(value)) if isinstance(value, datetime | timedelta) else str(value)


def _arrow() -> tuple[Any, Any]:
    from pgjobs.errors import ConfigurationError

    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        raise ConfigurationError(
            "parquet needs the extra parquet; pip install 'pgjobs-queue[parquet]', or pass --format csv"
        ) from None


def _arrow_type(arrow: Any, name: str) -> Any:
    if name in NUMBERS:
        return arrow.int16()
    if name.endswith("_at"):
        return arrow.timestamp("us", tz="UTC")
    return arrow.float64() if name == "timeout" else arrow.string()


def _arrow_value(name: str, value: Any) -> Any:
    if value is None or name in NUMBERS or name.endswith("_at"):
        return value
    return value.total_seconds() if isinstance(value, timedelta) else _text(name, value)
