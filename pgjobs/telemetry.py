"""Words what happens in a worker as log lines that a person likes to read; nobody else logs."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Sequence
from logging import DEBUG, INFO, WARNING
from typing import Final
from uuid import UUID

from pgjobs import events
from pgjobs.run import CURRENT, MAX_CRASHES, Outcome, storable
from pgjobs.wording import duration, plural

EACH_UP_TO: Final = 20
"""In a second with more successes than this they are summed up in one line."""


class Log:
    """Writes events to the logger ``pgjobs.worker``."""

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._logger = logger or logging.getLogger("pgjobs.worker")
        self._lock = threading.Lock()
        self._second = 0
        self._said = 0
        self._more = 0

    def __call__(self, event: events.Event) -> None:
        match event:
            case events.Recorded():
                self._recorded(event.outcomes)
            case events.Reaped():
                self._reaped(event)
            case events.Trouble():
                self._logger.error("%s: %s", event.service, event.error, exc_info=event.error)
            case _:
                if isinstance(event, events.WorkerStopped):
                    self._flush()
                level, text = _line(event)
                self._logger.log(level, "%s", text)

    def _reaped(self, event: events.Reaped) -> None:
        if event.workers:
            self._logger.warning("dead: %s", ", ".join(event.workers))
        if event.jobs:
            poison = f", {event.poison} of them given up as poison" if event.poison else ""
            self._logger.warning("%s of dead workers requeued%s", plural(event.jobs, "job"), poison)

    def _recorded(self, outcomes: Sequence[Outcome]) -> None:
        good = 0
        for outcome in outcomes:
            if outcome.ending == "succeeded":
                good += 1
            else:
                self._ended_otherwise(outcome)
        if good and self._logger.isEnabledFor(INFO):
            self._succeeded(outcomes, good)

    def _succeeded(self, outcomes: Sequence[Outcome], good: int) -> None:
        with self._lock:
            now = int(time.monotonic())
            if now != self._second:
                self._flush()
                self._second = now
                self._said = 0
            if self._said + good > EACH_UP_TO:
                self._more += good
                return
            self._said += good
        for outcome in outcomes:
            if outcome.ending == "succeeded":
                run = outcome.run
                self._logger.info("succeeded  %s  %s  in %s", run.task_name, run.id, duration(outcome.seconds))

    def _flush(self) -> None:
        more, self._more = self._more, 0
        if more:
            self._logger.info("succeeded  %s more", plural(more, "job"))

    def _ended_otherwise(self, outcome: Outcome) -> None:
        run, failure = outcome.run, outcome.failure
        if failure is None:
            if outcome.ending != "scheduled" or outcome.reason == "snoozed":
                self._logger.info("%s  %s  %s: %s", outcome.ending, run.task_name, run.id, outcome.reason)
            return
        what = f"{failure.exception}: {failure.message.splitlines()[0] if failure.message else ''}".rstrip(": ")
        tries = f"attempt {run.attempt} of {run.max_attempts}"
        if failure.expected:
            again = f"again in {duration(outcome.delay_s or 0)}, " if outcome.ending == "scheduled" else ""
            self._logger.info("threw      %s  %s  (%s%s): %s", run.task_name, run.id, again, tries, what)
        elif outcome.crash and outcome.ending == "scheduled":
            crashes = f"crash {run.crashes + 1} of {MAX_CRASHES}"
            self._logger.warning("crashed    %s  %s  (%s): %s", run.task_name, run.id, crashes, what)
        elif outcome.ending == "scheduled":
            self._logger.warning(
                "retry      %s  %s  in %s (%s): %s", run.task_name, run.id, duration(outcome.delay_s or 0), tries, what
            )
        else:
            tries = f"poison, {MAX_CRASHES} crashes" if outcome.crash else tries
            trace = f"\n{failure.traceback}" if failure.traceback.startswith("Traceback") else ""
            self._logger.error("failed     %s  %s  (%s): %s%s", run.task_name, run.id, tries, what, trace)


def _line(event: events.Event) -> tuple[int, str]:
    match event:
        case events.WorkerStarted():
            return INFO, (
                f"worker {event.name} ready: queues {event.queues}, {event.slots} slots, {event.tasks} tasks, "
                f"database {event.where}"
            )
        case events.WorkerStopping():
            wait = (
                f", waiting up to {event.grace_s:g} s for {event.running} running; ask once more to stop them now"
                if event.running
                else ""
            )
            return INFO, f"worker {event.name} stopping{wait}"
        case events.WorkerStopped():
            back = f", gave {event.released} back" if event.released else ""
            return INFO, f"worker {event.name} stopped: {plural(event.done, 'job')} done{back}"
        case events.ClaimLost():
            return WARNING, f"claim lost: {event.run.task_name} {event.run.id}; its outcome was not recorded"
        case events.Unrunnable():
            return WARNING, f"{event.task}: {event.reason}; its jobs wait until a worker has it"
        case events.Released():
            return INFO, f"{plural(event.jobs, 'job')} given back: {event.why}"
        case events.DatabaseAway():
            return WARNING, f"database away, trying again: {event.error}"
        case events.DatabaseBack():
            return INFO, f"database back after {event.after_s:.1f} s"
        case events.Unheard():
            return WARNING, (
                f"a pooler before {event.where} passes no notifications on, so idle workers look once a second; set "
                "PGJOBS_LISTEN_URL to the server itself and jobs start at once"
            )
        case events.TimedOut():
            return WARNING, f"over the timeout, ended from outside: {_some(event.jobs)}"
        case events.Recycling():
            return WARNING, f"worker {event.name} makes room for a fresh process: {event.why}"
        case events.DeclaredDead():
            return WARNING, f"worker {event.name} was believed dead; it drops what it held and starts anew"
        case _:
            return DEBUG, str(event)


def _some(ids: Sequence[UUID]) -> str:
    more = f" and {len(ids) - 5:,} more" if len(ids) > 5 else ""
    return ", ".join(str(job_id) for job_id in ids[:5]) + more


def set_up_logging(level: str) -> None:
    """Sends log lines to standard error, short and aligned; in colour on a terminal, unless NO_COLOR is set."""
    colours = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    handler = logging.StreamHandler()
    handler.addFilter(JobLogFilter())
    handler.setFormatter(_Lines(colours))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    logging.getLogger("psycopg").setLevel(logging.ERROR)  # it warns of connections that break, which we tell ourselves


class JobLogFilter(logging.Filter):
    """Gives every log record the job that runs where it was logged: ``job_id``, ``task`` and ``attempt``.

    Add it to a handler, and name them in its format: ``%(job_id)s %(task)s %(attempt)s``. Outside of a job they are
    empty. The handler of ``pgjobs worker`` has it already.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        run = CURRENT.get(None)
        record.job_id = "" if run is None else str(run.id)
        record.task = "" if run is None else run.task_name
        record.attempt = "" if run is None else run.attempt
        return True


class JobLogHandler(logging.Handler):
    """Keeps with each job what its code logs, from the level on that its task or PgJobs says (``capture_logs``).

    Workers add it to the root logger themselves. What this package logs of the job is not the job's.
    """

    def __init__(self, default: int | None = None) -> None:
        super().__init__()
        self._default = default

    def emit(self, record: logging.LogRecord) -> None:
        run = CURRENT.get(None)
        if run is None or record.name.startswith("pgjobs."):
            return
        level = self._default if run.task.capture_level is None else run.task.capture_level
        if level is not None and record.levelno >= level:
            run.claim.desk.line(run, record.levelname.lower(), storable(self.format(record)))


class _Lines(logging.Formatter):
    _COLOURS: Final = {"WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[31m", "DEBUG": "\x1b[2m"}

    def __init__(self, colours: bool) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")
        self._coloured = colours

    def formatMessage(self, record: logging.LogRecord) -> str:
        line = super().formatMessage(record)
        job_id = getattr(record, "job_id", "")
        return f"{line}  [{vars(record)['task']} {job_id} attempt {vars(record)['attempt']}]" if job_id else line

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        colour = self._COLOURS.get(record.levelname) if self._coloured else None
        return f"{colour}{line}\x1b[0m" if colour else line
