"""A process of the pool: runs the jobs that its worker hands it, one at a time, and says how each ended.

Started as ``python -m pgjobs.worker.pooled FD SETTINGS``; it ends with its worker, and when the socket closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import importlib
import inspect
import json
import logging
import os
import resource
import signal
import socket
import sys
import threading
import time
import traceback
from typing import Any, cast

from pgjobs.app import PgJobs
from pgjobs.errors import ArgumentsError, ConfigurationError, DecryptionError
from pgjobs.loading import load
from pgjobs.reference import resolve
from pgjobs.registry import Registry
from pgjobs.run import CURRENT, Outcome, Run, raised, returned
from pgjobs.task import Task
from pgjobs.telemetry import set_up_logging
from pgjobs.worker import identity
from pgjobs.worker.crossing import outcome_line, run_of
from pgjobs.worker.eventloop import new_loop

_RSS_UNIT = 1 if sys.platform == "darwin" else 1024


class Tasks:
    """Finds the tasks of an application, or, without one, imports each function from its module."""

    def __init__(self, app: str | None) -> None:
        application = load(app) if app else None
        self._registry = Registry(application.jobs, application.modules) if application else None
        self._found: dict[str, Task[..., Any, Any]] = {}

    def find(self, name: str, module: str, qualname: str) -> Task[..., Any, Any]:
        """Returns the task of a name.

        Raises:
            LookupError: this process does not find it, though its worker did.
        """
        task = self._found.get(name)
        if task is None:
            task = self._registry.find(name) if self._registry else _imported(name, module, qualname)
            if task is None:
                raise LookupError(f"{name} is not found by a fresh process; define it when its module is imported")
            self._found[name] = task
        return task


def _imported(name: str, module: str, qualname: str) -> Task[..., Any, Any] | None:
    value: Any = importlib.import_module(module)
    if ":" in name:
        value = resolve(*name.split(":", 1))
    else:
        for part in qualname.split("."):
            value = getattr(value, part, None)
    if isinstance(value, Task):
        return cast("Task[..., Any, Any]", value)
    return PgJobs().task_of(value, name) if inspect.isroutine(value) else None


def _execute(document: dict[str, Any], tasks: Tasks, runner: asyncio.Runner) -> Outcome:
    run = run_of(document)
    run.begun = time.perf_counter()
    try:
        run.task = tasks.find(run.task_name, *document["function"])
        run.positional, run.named = run.task.signature.unbind(run.args)
    except (LookupError, ArgumentsError, DecryptionError, ConfigurationError, ImportError) as error:
        return Outcome(run, "scheduled", 0.0, reason=str(error), delay_s=60.0, refund=1)
    return _attempt(run, runner)


def _attempt(run: Run, runner: asyncio.Runner) -> Outcome:
    token = CURRENT.set(run)
    try:
        value = run.task.body(*run.positional, **run.named)
        if inspect.iscoroutine(value):
            value = runner.run(cast("Any", value), context=contextvars.copy_context())
    except BaseException as error:
        return raised(run, error, time.perf_counter() - run.begun)
    finally:
        CURRENT.reset(token)
    return returned(run, value, time.perf_counter() - run.begun)


def _serve(pipe: socket.socket, tasks: Tasks) -> None:
    with (
        asyncio.Runner(loop_factory=new_loop) as runner,
        pipe.makefile("rb") as lines,
    ):  # one loop, since connections belong to theirs
        for line in lines:
            outcome = _execute(json.loads(line), tasks, runner)
            rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT
            sys.stdout.flush()
            pipe.sendall(outcome_line(outcome, rss))


def _end_with(lifeline: int) -> None:
    """Waits for the other end to close, which nobody does while the worker lives."""
    os.read(lifeline, 1)
    os._exit(1)


def _ignore(number: int, frame: object) -> None:
    """The worker decides when we end; unlike SIG_IGN, this is not passed on to the programs that a job starts."""


def main() -> None:
    """Runs the process that the command line describes."""
    pipe, lifeline = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])
    settings = json.loads(sys.argv[3])
    identity.die_with_parent()
    threading.Thread(target=_end_with, args=(lifeline,), name="pgjobs-lifeline", daemon=True).start()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _ignore)
    set_up_logging(settings["log_level"])
    sys.path[:] = settings["path"]
    try:
        tasks = Tasks(settings["app"])
    except BaseException:
        pipe.sendall(json.dumps({"error": traceback.format_exc()}).encode() + b"\n")
        return
    with contextlib.suppress(BrokenPipeError):  # nobody wants to hear it any more
        pipe.sendall(b'{"ready": true}\n')
        _serve(pipe, tasks)


if __name__ == "__main__":
    main()
    logging.shutdown()
