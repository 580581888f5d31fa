"""The demonstration: real pages, two workers, one of them killed, and what SQL says afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Final, LiteralString

import psycopg
from rich.console import Console
from rich.table import Table

from pgjobs import migrations
from pgjobs.connections.database import Database
from pgjobs.demo import site
from pgjobs.demo.tasks import SCHEMA, count_words_at_url
from pgjobs.statements import QUERIES

DEAD_LINKS: Final = ("asyncio.nothing", "click.missing", "rich.gone")
PATIENCE_S: Final = 75.0
"""By then every job must have ended, the killed worker's included."""


def run(url: str, *, workers: int = 2) -> bool:
    """Runs the demonstration on a database, in a schema of its own; returns whether no job was lost."""
    out = Console(highlight=False)
    with Database(url, SCHEMA).connect("pgjobs demo") as conn:
        conn.execute("DROP SCHEMA IF EXISTS pgjobs_demo CASCADE")
        migrations.migrate(url, schema=SCHEMA)
        names = site.pages()
        flaky = frozenset(names[:: site.FLAKY_EVERY])
        with site.serve(flaky) as address:
            pages = [(f"{address}/{name}.html",) for name in (*names, *DEAD_LINKS)]
            ids = count_words_at_url.using(conn).enqueue_many(pages)
            out.print(
                f"Enqueued [bold]{len(ids)}[/bold] jobs: count the words at the URLs of a documentation tree.\n"
                f"{len(flaky)} of its pages answer 503 when first asked; a few links are dead.\n"
            )
            with _workers(url, workers) as processes:
                _kill_one(conn, processes[0], len(ids), out)
                _await_end(conn, len(ids), out)
        return _report(conn, ids, out)


@contextmanager
def _workers(url: str, count: int) -> Generator[list[subprocess.Popen[bytes]]]:
    """Starts workers, each in a session of its own, and sees that they are gone at the end."""
    environment = os.environ | {"PGJOBS_URL": url}
    command = [sys.executable, "-m", "pgjobs", "worker", "-A", "pgjobs.demo.tasks:jobs"]
    processes = [
        subprocess.Popen(command, env=environment, start_new_session=True, stderr=subprocess.DEVNULL)
        for _ in range(count)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def _kill_one(conn: psycopg.Connection[Any], process: subprocess.Popen[bytes], total: int, out: Console) -> None:
    """Waits until a third has ended and the victim holds jobs; then kills it, parent and child, without a word."""
    deadline = time.monotonic() + 60
    theirs = f"%:{process.pid}.%"
    while not (held := _count(conn, "demo_held", worker=theirs)) or _count(conn, "demo_ended") < total // 3:
        if time.monotonic() > deadline:
            raise TimeoutError("the workers did not start; run `pgjobs worker -A pgjobs.demo.tasks` to see why")
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    ended = _count(conn, "demo_ended")
    out.print(
        f"Two workers have ended {ended} jobs. [red]kill -9[/red] to one of them, which holds {held}.\n"
        "The other goes on, and takes these over when the dead one has missed its beats …"
    )


def _await_end(conn: psycopg.Connection[Any], total: int, out: Console) -> None:
    started = time.monotonic()
    deadline = started + PATIENCE_S
    while (ended := _count(conn, "demo_ended")) < total and time.monotonic() < deadline:
        time.sleep(0.05)
    out.print(f"… and {time.monotonic() - started:.1f} s later {ended} of the {total} jobs have ended.\n")


def _report(conn: psycopg.Connection[Any], ids: list[Any], out: Console) -> bool:
    for name in ("demo_results", "demo_statuses", "demo_troubles"):
        query = _text(name)
        out.print(f"[dim]{query}[/dim]", soft_wrap=True)
        out.print(_table(conn, query), "")
    known = {row[0] for row in conn.execute(_text("demo_ended"))}
    lost = [job_id for job_id in ids if job_id not in known]
    if lost:
        out.print(f"[bold red]{len(lost)} of {len(ids)} jobs did not end, such as {lost[0]}.[/bold red]")
    else:
        out.print(f"[bold green]{len(ids)} jobs enqueued, {len(ids)} ended: no job was lost.[/bold green]")
    return not lost


def _table(conn: psycopg.Connection[Any], query: LiteralString) -> Table:
    cursor = conn.execute(query)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in cursor.description or ():
        is_number = column.type_display in ("int2", "int4", "int8", "numeric")
        table.add_column(column.name, overflow="fold", justify="right" if is_number else "left")
    for row in cursor:
        table.add_row(*("" if value is None else str(value) for value in row))
    return table


def _count(conn: psycopg.Connection[Any], name: str, **params: str) -> int:
    return len(conn.execute(_text(name), params).fetchall())


def _text(name: str) -> LiteralString:
    return QUERIES[name].text(SCHEMA)
