"""Words what happens in a worker as log lines that a person likes to read; nobody else logs."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from logging import DEBUG, ERROR, INFO, WARNING
from typing import Any, Final
from uuid import UUID

from pgjobs import events
from pgjobs.errors import ConfigurationError, SoftTimeoutError, TimeoutExceededError
from pgjobs.running.outcome import MAX_CRASHES, Outcome, storable
from pgjobs.running.run import CURRENT, Run
from pgjobs.wording import duration, harmless, one_line, plural, short

FORMATS: Final = ("text", "json")

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
                whose = (
                    whose_of(event.run) if isinstance(event, events.ClaimLost | events.RaisedAfterCompletion) else None
                )
                self._logger.log(level, "%s", text, extra=whose)

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
                took = duration(outcome.seconds)
                self._logger.info("succeeded  %s  %s  in %s", run.task_name, run.id, took, extra=whose_of(run))

    def _flush(self) -> None:
        more, self._more = self._more, 0
        if more:
            self._logger.info("succeeded  %s more", plural(more, "job"))

    def _ended_otherwise(self, outcome: Outcome) -> None:
        level, text = _ending(outcome)
        if text:
            self._logger.log(level, "%s", text, extra=whose_of(outcome.run))


def _ending(outcome: Outcome) -> tuple[int, str]:
    """How an end other than success is worded; empty where the task's own lines say it."""
    run, failure = outcome.run, outcome.failure
    who = f"{run.task_name}  {run.id}"
    if failure is None:
        said_elsewhere = outcome.ending == "scheduled" and outcome.reason != "snoozed"
        return INFO, "" if said_elsewhere else f"{outcome.ending}  {who}: {outcome.reason}"
    what = f"{failure.exception}: {failure.message.splitlines()[0] if failure.message else ''}".rstrip(": ")
    tries = f"attempt {run.attempt} of {run.max_attempts}"
    if failure.expected:
        again = f"again in {duration(outcome.delay_s or 0)}, " if outcome.ending == "scheduled" else ""
        return INFO, f"threw      {who}  ({again}{tries}): {what}"
    if outcome.crash and outcome.ending == "scheduled":
        return WARNING, f"crashed    {who}  (crash {run.crashes + 1} of {MAX_CRASHES}): {what}"
    if outcome.ending == "scheduled":
        return WARNING, f"retry      {who}  in {duration(outcome.delay_s or 0)} ({tries}): {what}"
    tries = f"poison, {MAX_CRASHES} crashes" if outcome.crash else tries
    trace = f"\n{failure.traceback}" if failure.traceback.startswith("Traceback") else ""
    return ERROR, f"failed     {who}  ({tries}): {what}{trace}"


def whose_of(run: Run) -> dict[str, Any]:
    """What a log record says of the job that it is about."""
    return {"job_id": str(run.id), "task": run.task_name, "queue": run.queue, "attempt": run.attempt}


def _line(event: events.Event) -> tuple[int, str]:
    match event:
        case events.WorkerStarted():
            line = (
                f"worker {event.name} ready: queues {event.queues}, {event.slots} slots, {event.tasks} tasks, "
                f"database {event.where}"
            )
            return INFO, line if event.tasks else f"{line}; are there more? import their module where -A points"
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
        case events.RaisedAfterCompletion():
            whose = f"{event.run.task_name} {event.run.id}"
            return WARNING, f"raised after complete(), and its success stands: {whose}\n{event.traceback.rstrip()}"
        case events.Unrunnable():
            return WARNING, f"{short(event.task)}: {one_line(event.reason)}; its jobs wait until a worker has it"
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
        case events.AlertTurned():
            return INFO if event.kind == "recovered" else WARNING, f"alert {event.name} {event.kind}: {event.says}"
        case events.AlertUndelivered():
            what = "given up" if event.given_up else "is tried again"
            level = ERROR if event.given_up else WARNING
            return level, f"alert {event.name}: the message to {event.target} {what}: {event.error}"
        case events.Quieted():
            return INFO, f"worker {event.name} {'claims no more: it is quiet' if event.quiet else 'claims again'}"
        case events.DeclaredDead():
            return WARNING, f"worker {event.name} was believed dead; it drops what it held and starts anew"
        case _:
            return DEBUG, str(event)


def _some(ids: Sequence[UUID]) -> str:
    more = f" and {len(ids) - 5:,} more" if len(ids) > 5 else ""
    return ", ".join(str(job_id) for job_id in ids[:5]) + more


def set_up_logging(level: str, worker: str = "") -> None:
    """Sends log lines to standard error: for people, or as JSON where PGJOBS_LOG_FORMAT says ``json``.

    Args:
        worker: whose lines these are; JSON says so in each.

    Raises:
        ConfigurationError: PGJOBS_LOG_FORMAT is another word.
    """
    form = os.environ.get("PGJOBS_LOG_FORMAT") or FORMATS[0]
    if form not in FORMATS:
        raise ConfigurationError(f"PGJOBS_LOG_FORMAT is {form!r}; write {' or '.join(FORMATS)}")
    colours = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    handler = logging.StreamHandler()
    handler.addFilter(JobLogFilter())
    handler.setFormatter(JsonLines(worker) if form == "json" else _Lines(colours))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    logging.getLogger("psycopg").setLevel(logging.ERROR)  # it warns of connections that break, which we tell ourselves


class JobLogFilter(logging.Filter):
    """Gives every log record the job that runs where it was logged: ``job_id``, ``task``, ``queue`` and ``attempt``.

    Add it to a handler, and name them in its format: ``%(job_id)s %(task)s %(attempt)s``. Outside of a job they are
    empty, but in the lines that the worker itself writes of one. The handler of ``pgjobs worker`` has it already.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        run = CURRENT.get(None)
        for name, value in (_NOBODY if run is None else whose_of(run)).items():
            if name not in vars(record):
                setattr(record, name, value)
        return True


_NOBODY: Final = {"job_id": "", "task": "", "queue": "", "attempt": ""}


class JobLogHandler(logging.Handler):
    """Keeps with each job what its code logs, from the level on that its task or PgJobs says (``capture_logs``).

    Workers add it to the root logger themselves. What this package logs of the job is not the job's.
    """

    def __init__(self, default: int | None = None) -> None:
        super().__init__()
        self._default = default

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._keep(record)
        except (TimeoutExceededError, SoftTimeoutError):  # raised in the job's thread, which happened to be here
            raise
        except Exception:
            self.handleError(record)

    def _keep(self, record: logging.LogRecord) -> None:
        run = CURRENT.get(None)
        if run is None or record.name.startswith("pgjobs."):
            return
        level = self._default if run.task.capture_level is None else run.task.capture_level
        if level is not None and record.levelno >= level:
            run.claim.desk.line(run, record.levelname.lower(), storable(self.format(record)))


_PASSWORD: Final = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^:/@\s]*:)[^/\s]+@|(\bpassword=)\S+", re.IGNORECASE)


def without_passwords(text: str) -> str:
    """A text without the passwords of URLs and connection strings, whoever has written them there."""
    return _PASSWORD.sub(lambda match: f"{match[1]}***@" if match[1] else f"{match[2]}***", text)


class _Lines(logging.Formatter):
    _COLOURS: Final = {"WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[31m", "DEBUG": "\x1b[2m"}

    def __init__(self, colours: bool) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")
        self._coloured = colours

    def formatMessage(self, record: logging.LogRecord) -> str:
        line = super().formatMessage(record)
        job_id = getattr(record, "job_id", "")
        if not job_id or job_id in line:
            return line
        return f"{line}  [{vars(record)['task']} {job_id} attempt {vars(record)['attempt']}]"

    def format(self, record: logging.LogRecord) -> str:
        line = harmless(without_passwords(super().format(record)))
        colour = self._COLOURS.get(record.levelname) if self._coloured else None
        return f"{colour}{line}\x1b[0m" if colour else line


class JsonLines(logging.Formatter):
    """One JSON object a line: ``time`` (UTC), ``level``, ``logger``, ``message``, ``worker``; of a job ``job_id``,
    ``task``, ``queue`` and ``attempt``; then ``exception``, and the texts and numbers that were logged as ``extra``.
    """

    def __init__(self, worker: str = "") -> None:
        super().__init__()
        self._worker = worker

    def format(self, record: logging.LogRecord) -> str:
        known = vars(record)
        more = {name: known[name] for name in known.keys() - _OF_EVERY_RECORD if _is_plain(known[name])}
        exception = self.formatException(record.exc_info) if record.exc_info else record.exc_text
        line = {
            **more,
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "worker": self._worker,
            "exception": exception or "",
        }
        shown = {name: without_passwords(value) if isinstance(value, str) else value for name, value in line.items()}
        first = ("time", "level", "logger", "message", "worker", "job_id", "task", "queue", "attempt")
        ordered = {name: shown.pop(name) for name in first if name in shown} | dict(sorted(shown.items()))
        return json.dumps({name: value for name, value in ordered.items() if value != ""})


_OF_EVERY_RECORD: Final = vars(logging.makeLogRecord({})).keys() | {"message", "asctime", "taskName"}


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, str | int | float | bool)
