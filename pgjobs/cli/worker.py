"""``pgjobs worker``."""

from __future__ import annotations

import os
import socket
import sys
from typing import Any

import click

from pgjobs.cli import options
from pgjobs.config import SYNCHRONOUS_COMMIT, seconds


@click.command()
@options.app
@click.option(
    "-Q", "--queues", default="*", show_default=True, help="Queues in order of preference; a:3,b:1 by weight; globs."
)
@click.option("-c", "--concurrency", default=16, show_default=True, help="Slots: jobs that run at once in a process.")
@click.option("--processes", type=click.IntRange(1, 512), help="Worker processes.  [default: 1]")
@click.option("--min", "least", type=click.IntRange(1, 512), help="Instead: at least so many processes,  [default: 1]")
@click.option("--max", "most", type=click.IntRange(1, 512), help="and at most so many, as jobs wait or slots are idle.")
@click.option(
    "--scale-wait",
    default=5.0,
    show_default=True,
    type=options.Seconds(0.1),
    metavar="SECONDS",
    help="With --max: one more when a job has waited for so long and every slot is taken.",
)
@click.option(
    "--scale-idle",
    default=30.0,
    show_default=True,
    type=options.Seconds(0.1),
    metavar="SECONDS",
    help="With --max: one fewer when the slots of one were not needed for so long.",
)
@click.option("--burst", is_flag=True, help="Leave when nothing is left to claim.")
@click.option("--max-jobs", type=click.IntRange(1), help="Leave after so many jobs.")
@click.option(
    "--shutdown-timeout", default=30.0, show_default=True, metavar="SECONDS", help="How long running jobs may finish."
)
@click.option(
    "--max-rss", type=options.memory, metavar="SIZE", help="Replace a process that takes more memory, as in 500M or 2G."
)
@click.option(
    "--pool-max-jobs", type=click.IntRange(1), help="Replace a process of the process executor after so many jobs."
)
@click.option(
    "--allow-shell",
    is_flag=True,
    help="Run the commands of `pgjobs enqueue-shell`: whoever may enqueue can then run anything here.",
)
@click.option(
    "--stall-timeout",
    default=300.0,
    show_default=True,
    type=options.Seconds(2.0),
    metavar="SECONDS",
    help="Replace a process in which no Python code has run for so long.",
)
@click.option(
    "--aging", metavar="DURATION", help="A job counts a point of priority more for each such time that it has waited."
)
@click.option(
    "--synchronous-commit",
    type=click.Choice(SYNCHRONOUS_COMMIT),
    help="PostgreSQL's, for claims and completions. off: faster; what ended just before a crash may run again.",
)
@click.option(
    "--log-level",
    default="info",
    show_default=True,
    type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
)
@click.option(
    "--log-format",
    envvar="PGJOBS_LOG_FORMAT",
    default="text",
    show_default=True,
    type=click.Choice(["text", "json"]),
    help="Lines for people, or a JSON object each. [PGJOBS_LOG_FORMAT]",
)
@click.option(
    "--http",
    metavar="[HOST:]PORT",
    help="Answer /live, /ready and /metrics (Prometheus) there; without a host, to this machine alone.",
)
@click.option(
    "--statsd",
    envvar="PGJOBS_STATSD",
    metavar="HOST:PORT",
    help="Send metrics there once a second, by UDP. [PGJOBS_STATSD]",
)
@click.option(
    "--statsd-format",
    envvar="PGJOBS_STATSD_FORMAT",
    default="statsd",
    show_default=True,
    type=click.Choice(["statsd", "dogstatsd"]),
    help="Task, queue and status in the names of metrics, or as tags. [PGJOBS_STATSD_FORMAT]",
)
@click.option("--wait-for-db", is_flag=True, help="Wait for a database that is not there yet.")
@options.url
@options.schema
def command(
    *,
    app: str | None,
    url: str | None,
    schema: str | None,
    processes: int | None,
    least: int | None,
    most: int | None,
    log_format: str,
    **told: Any,
) -> None:
    """Run jobs until told to stop.

    SIGTERM or SIGINT: claim no more, finish what runs, give the rest back. A second signal, or the shutdown timeout:
    stop the running jobs and give them back too, no attempt burnt.

    SIGHUP: a fresh process, which loads the code anew, starts beside each of the present ones; when it claims jobs, the
    old one leaves as with a first signal. One after the other, so that no slot is missing. Where a fresh one does not
    start, the old ones go on.

        pgjobs worker -A app.tasks -Q mail,default -c 16
    """
    if not app:
        raise click.UsageError("say which application, as in: pgjobs worker -A app.tasks (or set PGJOBS_APP)")
    count, most = _how_many(processes, least, most, counted=told["burst"] or told["max_jobs"] is not None)
    if told["aging"] is not None and seconds(told["aging"], what="--aging") == 0:
        raise click.UsageError("--aging is 0; write how long a job waits for a point of priority, as in 60s")
    if schema:
        os.environ["PGJOBS_SCHEMA"] = schema
    if url:
        os.environ["PGJOBS_URL"] = url
    os.environ["PGJOBS_LOG_FORMAT"] = log_format  # for the processes of the pool, too
    from pgjobs.supervisor.process import Settings
    from pgjobs.supervisor.supervisor import Supervisor
    from pgjobs.telemetry import set_up_logging

    set_up_logging(told["log_level"], f"{socket.gethostname()}:{os.getpid()}")
    sys.exit(Supervisor(Settings(app=app, processes=count, max_processes=most, **told)).run())


def _how_many(processes: int | None, least: int | None, most: int | None, *, counted: bool) -> tuple[int, int | None]:
    """How many processes there are at first, and at most; None where that does not change."""
    if least is None and most is None:
        return processes or 1, None
    if processes is not None:
        raise click.UsageError("--processes is a fixed number; leave it out, or --min and --max")
    if most is None:
        raise click.UsageError(f"--min {least} has no --max; say how many processes there may be at most")
    if (least or 1) > most:
        raise click.UsageError(f"--min {least} is more than --max {most}; let --max be as many at least")
    if counted:
        raise click.UsageError("--burst and --max-jobs are for a fixed number of processes; give --processes")
    return least or 1, most
