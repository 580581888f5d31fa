"""``pgjobs dev``."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import threading

import click

from pgjobs.cli import options


@click.command()
@options.app
@click.option("-Q", "--queues", default="*", show_default=True, help="As for pgjobs worker.")
@click.option("-c", "--concurrency", default=4, show_default=True, help="Slots.")
@click.option(
    "--watch", "paths", multiple=True, type=click.Path(exists=True), help="Instead of this folder; repeatable."
)
@options.url
@options.schema
def command(
    app: str | None, queues: str, concurrency: int, paths: tuple[str, ...], url: str | None, schema: str | None
) -> None:
    """Develop: a worker that follows the code, on a migrated database.

    The database is the application's or the environment's; where neither names one, an embedded PostgreSQL that is kept
    for the next time. The worker starts anew whenever a Python file changes.
    """
    if not app:
        raise click.UsageError("say which application, as in: pgjobs dev -A app.tasks (or set PGJOBS_APP)")
    try:
        import watchfiles
    except ImportError:
        raise click.UsageError("pgjobs dev needs watchfiles; install the extra dev: pgjobs-queue[dev]") from None
    from pgjobs.supervisor.process import Settings
    from pgjobs.supervisor.supervisor import Supervisor
    from pgjobs.telemetry import set_up_logging

    _name_database(url, schema)
    set_up_logging("info")
    logging.getLogger("watchfiles").setLevel(logging.WARNING)
    settings = Settings(
        app, queues, concurrency, shutdown_timeout=3.0, migrate=True, reload=True, log_level="info", wait_for_db=True
    )
    supervisor = Supervisor(settings, _say_where)
    stop = threading.Event()

    def follow() -> None:
        for changes in watchfiles.watch(
            *(paths or ["."]), watch_filter=watchfiles.PythonFilter(), stop_event=stop, raise_interrupt=False
        ):
            names = sorted({os.path.relpath(path) for _, path in changes})
            click.secho(f"changed: {', '.join(names[:3])}{' …' if len(names) > 3 else ''}", dim=True, err=True)
            supervisor.reload()

    follower = threading.Thread(target=follow, name="pgjobs-watch", daemon=True)
    follower.start()
    code = supervisor.run()
    stop.set()
    follower.join(2.0)
    sys.exit(code)


def _name_database(url: str | None, schema: str | None) -> None:
    from pgjobs.config import find_url
    from pgjobs.errors import ConfigurationError

    if schema:
        os.environ["PGJOBS_SCHEMA"] = schema
    if url:
        os.environ["PGJOBS_URL"] = url
        return
    try:
        find_url()
    except ConfigurationError:
        os.environ["PGJOBS_URL"] = "embedded:"


def _say_where(url: str, schema: str) -> None:
    """Says how to look at the tables, and keeps an embedded server while the worker starts anew."""
    from psycopg.conninfo import conninfo_to_dict, make_conninfo

    from pgjobs import embedded

    if (named := os.environ.get("PGJOBS_URL", "")).startswith("embedded:"):
        embedded.resolve(named)
    psql = "psql" if shutil.which("psql") else embedded.binaries() / "psql"
    known = {name: value for name, value in conninfo_to_dict(url).items() if name != "password"}
    click.secho(
        f'look around:  {psql} "{make_conninfo("", **known)}" -c "SELECT * FROM {schema}.jobs"', bold=True, err=True
    )
