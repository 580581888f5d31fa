"""What crosses between a worker and the processes of its pool, as lines of JSON: runs, what they say, outcomes."""

from __future__ import annotations

import json
import time
from dataclasses import astuple
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import msgspec

from pgjobs.arguments.codec import Json
from pgjobs.report import Child, Desk, Line, Said
from pgjobs.running.outcome import Ending, Failure, Outcome, Usage
from pgjobs.running.run import Claim, Run


class Handed(msgspec.Struct):
    """A run on its way to its process, which still has to find its task."""

    row: tuple[UUID, str, str, int, int, int, int, float | None, datetime, Any, Any, Any]
    claim: UUID
    schema: str
    function: tuple[str, str]
    capture: bool

    def run(self, desk: Desk) -> Run:
        """The run itself; its task is still to be found."""
        return Run(self.row, Claim(self.claim, 1, desk), time.perf_counter(), self.schema)


def _as_it_is(value: Json) -> Json:
    """A value of the row, in JSON; a number that no float holds has become infinite, of which msgspec makes null."""
    data = msgspec.json.encode(value)
    return msgspec.Raw(json.dumps(value).encode() if value is not None and b"null" in data else data)


def _line(document: object) -> bytes:
    try:
        return msgspec.json.encode(document) + b"\n"
    except UnicodeEncodeError:  # half a character, for which the other way of writing JSON has an escape
        return json.dumps(msgspec.to_builtins(document)).encode() + b"\n"


def run_line(run: Run) -> bytes:
    """A run as its process reads it.

    Raises:
        RecursionError: its arguments are nested too deep.
    """
    function = run.task.function
    row = (
        run.id, run.task_name, run.queue, run.priority, run.attempt, run.max_attempts, run.crashes,
        run.timeout_s, run.created_at, _as_it_is(run.args), _as_it_is(run.meta), _as_it_is(_aged(run)),
    )  # fmt: skip
    where = (function.__module__, function.__qualname__)
    return _line(Handed(row, run.claim.id, run.schema, where, run.task.capture))


def _aged(run: Run) -> dict[str, Any] | None:
    """Its options as they are now: where they say how old the job was when it was claimed, it has grown older."""
    if run.options is None or "age" not in run.options:
        return run.options
    return {**run.options, "age": run.since_s("age"), "tried": run.since_s("tried")}


_handed = msgspec.json.Decoder(Handed)


def handed(line: bytes) -> Handed:
    """What a line says of the run that is to begin."""
    try:
        return _handed.decode(line)
    except msgspec.DecodeError:  # an escape of half a character, or a number that no float holds
        return msgspec.convert(json.loads(line), Handed)


class _Said(msgspec.Struct):
    progress: dict[str, Any] | None
    meta: dict[str, Any] | None
    timeout_s: float | None
    lines: list[Line]


def said_line(said: Said) -> bytes:
    """What a run has said of itself, as the worker reads it."""
    document = {
        "said": str(said.run.id),
        "progress": said.progress,
        "meta": said.meta,
        "timeout_s": said.timeout_s,
        "lines": said.lines,
    }
    return _line(document)


def said_of(run: Run, document: dict[str, Any]) -> Said:
    """What a run has said, of a line.

    Raises:
        msgspec.ValidationError: it is none, see ``outcome_of``.
    """
    said = msgspec.convert(document, _Said)
    return Said(run, said.progress, said.meta, said.timeout_s, said.lines)


def outcome_line(outcome: Outcome, rss_bytes: int, usage: Usage | None = None) -> bytes:
    """An outcome as the worker reads it, with the memory that the process has taken so far, and what the run has."""
    failure = outcome.failure
    document = {
        "ending": outcome.ending,
        "seconds": outcome.seconds,
        "result": outcome.result,
        "reason": outcome.reason,
        "failure": None if failure is None else astuple(failure),
        "delay_s": outcome.delay_s,
        "refund": outcome.refund,
        "completed": outcome.run.completed,
        "children": [] if outcome.run.report is None else outcome.run.report.children,
        "rss_bytes": rss_bytes,
        "usage": usage,
    }
    return _line(document)


def exit_line(how: str, usage: Usage) -> bytes:
    """How the process of a run ended that was forked for it, and what it has used."""
    return _line({"exited": how, "usage": usage})


def exit_of(document: dict[str, Any]) -> tuple[str, Usage]:
    """What such a line says.

    Raises:
        msgspec.ValidationError: it is none.
    """
    said = msgspec.convert(document, _Exited)
    return said.exited, said.usage


class _Exited(msgspec.Struct):
    exited: str
    usage: Usage


class _Ended(msgspec.Struct):
    ending: Ending
    seconds: float
    result: str | None
    reason: str | None
    failure: tuple[str, str, str, str, bool] | None
    delay_s: float | None
    refund: Literal[0, 1]
    completed: bool
    children: list[Child]
    rss_bytes: int
    usage: Usage | None = None


def outcome_of(run: Run, document: dict[str, Any]) -> tuple[Outcome, int, Usage | None]:
    """The outcome of a line, the memory that its process has taken so far, and what the run has used.

    Raises:
        msgspec.ValidationError: it is none: the job's code has the socket too, and may have written to it.
    """
    said = msgspec.convert(document, _Ended)
    run.completed = said.completed
    for child in said.children:
        run.claim.desk.follow(run, child)
    outcome = Outcome(
        run,
        said.ending,
        said.seconds,
        result=said.result,
        reason=said.reason,
        failure=None if said.failure is None else Failure(*said.failure),
        delay_s=said.delay_s,
        refund=said.refund,
    )
    return outcome, said.rss_bytes, said.usage
