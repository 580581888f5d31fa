"""The demonstration: real pages, two workers, one of them killed, and what SQL says afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from rich.console import Console
from rich.table import Table

from pgjobs import migrations
from pgjobs.database import Database
from pgjobs.demo import site
from pgjobs.demo.tasks import SCHEMA, count_words_at_url

DEAD_LINKS: Final = ("asyncio.nothing", "click.missing", "rich.gone")
PATIENCE_S: Final = 75.0
"""By then every job must have ended, the killed worker's included."""

RESULTS: Final = """\
SELECT substring(args->>'url' FROM '[^/]+$') AS page, result::int AS words, attempt,
       round(extract(epoch FROM finished_at - started_at), 2) AS seconds
  FROM pgjobs_demo.jobs
 WHERE status = 'succeeded'
 ORDER BY words DESC
 LIMIT 8"""
STATUSES: Final = "SELECT status, count(*) AS jobs FROM pgjobs_demo.jobs GROUP BY status ORDER BY jobs DESC"
TROUBLES: Final = """\
SELECT reason, exception, count(*) AS attempts, count(DISTINCT job_id) AS jobs
  FROM pgjobs_demo.failures
 GROUP BY reason, exception
 ORDER BY attempts DESC"""
ENDED: Final = "SELECT count(*) FROM pgjobs_demo.jobs WHERE finished_at IS NOT NULL"
HELD: Final = "SELECT count(*) FROM pgjobs_demo.running WHERE worker LIKE %s"


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
    while not (held := _number(conn, HELD, f"%:{process.pid}.%")) or _number(conn, ENDED) < total // 3:
        if time.monotonic() > deadline:
            raise TimeoutError("the workers did not start; run `pgjobs worker -A pgjobs.demo.tasks` to see why")
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    ended = _number(conn, ENDED)
    out.print(
        f"Two workers have ended {ended} jobs. [red]kill -9[/red] to one of them, which holds {held}.\n"
        "The other goes on, and takes these over when the dead one has missed its beats …"
    )


def _await_end(conn: psycopg.Connection[Any], total: int, out: Console) -> None:
    started = time.monotonic()
    deadline = started + PATIENCE_S
    while (ended := _number(conn, ENDED)) < total and time.monotonic() < deadline:
        time.sleep(0.05)
    out.print(f"… and {time.monotonic() - started:.1f} s later {ended} of the {total} jobs have ended.\n")


def _report(conn: psycopg.Connection[Any], ids: list[Any], out: Console) -> bool:
    for query in (RESULTS, STATUSES, TROUBLES):
        out.print(f"[dim]{query}[/dim]", soft_wrap=True)
        out.print(_table(conn, query), "")
    known = {row[0] for row in conn.execute("SELECT id FROM pgjobs_demo.jobs WHERE finished_at IS NOT NULL")}
    lost = [job_id for job_id in ids if job_id not in known]
    if lost:
        out.print(f"[bold red]{len(lost)} of {len(ids)} jobs did not end, such as {lost[0]}.[/bold red]")
    else:
        out.print(f"[bold green]{len(ids)} jobs enqueued, {len(ids)} ended: no job was lost.[/bold green]")
    return not lost


def _table(conn: psycopg.Connection[Any], query: str) -> Table:
    cursor = conn.execute(query.encode())
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in cursor.description or ():
        is_number = column.type_display in ("int2", "int4", "int8", "numeric")
        table.add_column(column.name, overflow="fold", justify="right" if is_number else "left")
    for row in cursor:
        table.add_row(*("" if value is None else str(value) for value in row))
    return table


def _number(conn: psycopg.Connection[Any], query: str, *parameters: str) -> int:
    row = conn.execute(query.encode(), parameters).fetchone()
    assert row is not None  # noqa: S101 - it counts
    return int(row[0])
