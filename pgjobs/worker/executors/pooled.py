"""A process of the pool: runs the jobs that its worker hands it, one at a time, and says how each ended.

Started as ``python -m pgjobs.worker.executors.pooled PIPE LIFELINE OUTPUT SETTINGS``; it ends with its worker, and
when the socket closes. Of the kind ``fork`` it runs none itself, but forks a process for each.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import importlib
import inspect
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Generator, Iterable
from typing import Any, NoReturn, cast

from pgjobs.app import PgJobs
from pgjobs.arguments.reference import resolve
from pgjobs.errors import ArgumentsError, ConfigurationError, DecryptionError, OptionError
from pgjobs.options import log_level
from pgjobs.report import Desk
from pgjobs.running.bodies import body_of
from pgjobs.running.loading import load
from pgjobs.running.outcome import Outcome, Usage, raised, returned, untold
from pgjobs.running.registry import Registry
from pgjobs.running.run import CURRENT, Run
from pgjobs.task import Task
from pgjobs.telemetry import JobLogHandler, set_up_logging
from pgjobs.wording import describe_exit
from pgjobs.worker import identity
from pgjobs.worker.executors.crossing import Handed, exit_line, handed, outcome_line, said_line
from pgjobs.worker.executors.eventloop import new_loop
from pgjobs.worker.executors.meter import RSS_UNIT, Meter
from pgjobs.worker.executors.soft import alarm, softly
from pgjobs.worker.lifespan import Lifespan

SAID_S = 0.1


class Tasks:
    """Finds the tasks of an application, or, without one, imports each function from its module."""

    def __init__(self, app: str | None, *, allow_shell: bool) -> None:
        self.jobs: PgJobs | None = None
        self._registry: Registry | None = None
        if app:
            application = load(app)
            self.jobs = application.jobs
            self._registry = Registry(application.jobs, application.modules, allow_shell=allow_shell)
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
            task.body, task.compiled = body_of(task), True
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


class Pipe:
    """The socket to the worker, on which a thread of its own hands over what the run says, ten times a second."""

    def __init__(self, pipe: socket.socket) -> None:
        self.desk = Desk(self._wake, lambda run: self.send(b"", run), SAID_S)
        self._pipe = pipe
        self._lock = threading.Lock()
        self._woken = threading.Event()
        self._thread: threading.Thread | None = None

    def send(self, line: bytes, run: Run | None = None) -> None:
        """Sends a line, and before it all that the run has said."""
        with self._lock:
            said = self.desk.take([] if run is None else [run], ended=False)
            self._pipe.sendall(b"".join([*map(said_line, said), line]))

    def _wake(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._main, name="pgjobs-said", daemon=True)
            self._thread.start()
        self._woken.set()

    def _main(self) -> None:
        with contextlib.suppress(OSError):  # nobody wants to hear it any more
            while self._woken.wait():
                self._woken.clear()
                while (rest_s := self.desk.due_in_s) < SAID_S * 10:
                    time.sleep(max(0.0, rest_s))
                    self.send(b"")


def _execute(given: Handed, tasks: Tasks, runner: asyncio.Runner, desk: Desk) -> Outcome:
    run = given.run(desk)
    run.begun = time.perf_counter()
    try:
        run.task = tasks.find(run.task_name, *given.function)
        run.positional, run.named = run.task.signature.unbind(run.args)
    except (LookupError, ArgumentsError, DecryptionError, ConfigurationError, ImportError) as error:
        return Outcome(run, "scheduled", 0.0, reason=str(error), delay_s=60.0, refund=1)
    try:
        return contextvars.copy_context().run(_attempt, run, runner)  # what a run binds, the next one does not see
    except BaseException as error:  # no outcome could be made of what the code has raised
        return untold(run, error, time.perf_counter() - run.begun)


def _attempt(run: Run, runner: asyncio.Runner) -> Outcome:
    CURRENT.set(run)
    try:
        value = _call(run, runner)
    except BaseException as error:
        return raised(run, error, time.perf_counter() - run.begun)
    return returned(run, value, time.perf_counter() - run.begun)


def _call(run: Run, runner: asyncio.Runner) -> Any:
    with contextlib.nullcontext() if run.soft_s is None else alarm(run.soft_s):
        value: Any = run.task.body(*run.positional, **run.named)
    if not inspect.iscoroutine(value):
        return value
    coroutine = cast("Any", value)
    if run.soft_s is not None:
        coroutine = softly(coroutine, run.soft_s)
    return runner.run(coroutine, context=contextvars.copy_context())


def _serve(pipe: socket.socket, output: int, tasks: Tasks) -> None:
    with pipe.makefile("rb") as lines:
        _work(lines, pipe, output, tasks)


def _work(lines: Iterable[bytes], pipe: socket.socket, output: int, tasks: Tasks) -> None:
    """Runs jobs with one lifespan and one loop, since connections belong to theirs."""
    out, meter = Pipe(pipe), Meter()
    out.desk.jobs = tasks.jobs
    if tasks.jobs is not None:
        out.desk.max_file_bytes = tasks.jobs.max_file_bytes
    with asyncio.Runner(loop_factory=new_loop) as runner:
        lifespan = Lifespan(tasks.jobs.lifespan if tasks.jobs else None, runner.run)
        with contextlib.closing(lifespan):
            out.desk.resources = lifespan.open()
            for line in lines:
                _one(handed(line), output, tasks, runner, out, meter)


def _one(given: Handed, output: int, tasks: Tasks, runner: asyncio.Runner, out: Pipe, meter: Meter) -> None:
    """Runs one job, and says what has become of it."""
    meter.begin()
    with _captured(output) if given.capture else contextlib.nullcontext():
        outcome = _execute(given, tasks, runner, out.desk)
    _flush()
    usage = meter.read()
    out.send(outcome_line(outcome, meter.max_rss_bytes, usage), outcome.run)


@contextlib.contextmanager
def _captured(output: int) -> Generator[None]:
    """Sends what is written to stdout and stderr, by programs that are started too, to the worker."""
    _flush()
    before = [os.dup(1), os.dup(2)]
    os.dup2(output, 1)
    os.dup2(output, 2)
    try:
        yield
    finally:
        _flush()
        for number, kept in enumerate(before, 1):
            os.dup2(kept, number)
            os.close(kept)


def _flush() -> None:
    """Writes out what is kept back; a job may have closed what it is written to."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(ValueError, OSError, AttributeError):
            stream.flush()


# -- one process a run


def _serve_forked(pipe: socket.socket, output: int, tasks: Tasks) -> None:
    """Forks a process for each run, from this one, which has no threads and runs nothing itself."""
    gc.freeze()  # so that collecting garbage writes to no page that both have
    with pipe.makefile("rb") as lines:
        for line in lines:
            go, ready = os.pipe()
            _flush()
            if (pid := os.fork()) == 0:
                os.close(ready)
                _run_forked(go, pipe, output, tasks, line)
            with contextlib.suppress(OSError):
                os.setpgid(pid, pid)
            pipe.sendall(json.dumps({"forked": pid}).encode() + b"\n")
            os.close(go)
            os.close(ready)  # from here on the pipe is the run's, until it has ended
            pipe.sendall(_await_end(pid))


def _await_end(pid: int) -> bytes:
    """Waits for a forked process, and ends what it has left behind; returns what is to be said of it."""
    _, status, used = os.wait4(pid, 0)
    with contextlib.suppress(OSError):
        os.killpg(pid, signal.SIGKILL)
    usage: Usage = {"cpu_s": used.ru_utime + used.ru_stime, "max_rss_bytes": used.ru_maxrss * RSS_UNIT}
    return exit_line(describe_exit(os.waitstatus_to_exitcode(status)), usage)


def _run_forked(go: int, pipe: socket.socket, output: int, tasks: Tasks, line: bytes) -> NoReturn:
    """Runs one job, with a lifespan of its own: what a fork shares with its parent cannot be used by both."""
    code = 1
    try:
        identity.die_with_parent()
        os.setpgid(0, 0)
        os.read(go, 1)
        _work([line], pipe, output, tasks)
        logging.shutdown()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        _flush()
        os._exit(code)


def _end_with(lifeline: int) -> None:
    """Waits for the other end to close, which nobody does while the worker lives."""
    os.read(lifeline, 1)
    os._exit(1)


def _ignore(number: int, frame: object) -> None:
    """The worker decides when we end; unlike SIG_IGN, this is not passed on to the programs that a job starts."""


def main() -> None:
    """Runs the process that the command line describes."""
    pipe, lifeline, output = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3])
    settings = json.loads(sys.argv[4])
    identity.die_with_parent()
    identity.set_title(f"pgjobs worker: process of {settings['app']}" if settings["app"] else "pgjobs worker: process")
    if not settings["fork"]:
        threading.Thread(target=_end_with, args=(lifeline,), name="pgjobs-lifeline", daemon=True).start()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _ignore)
    os.nice(settings["nice"])
    set_up_logging(settings["log_level"], settings["worker"])
    sys.path[:] = settings["path"]
    try:
        tasks = Tasks(settings["app"], allow_shell=settings["allow_shell"])
        if settings["fork"]:
            _refuse_threads()
    except BaseException:
        pipe.sendall(json.dumps({"error": traceback.format_exc()}).encode() + b"\n")
        return
    logging.getLogger().addHandler(JobLogHandler(log_level(tasks.jobs.capture_logs if tasks.jobs else None)))
    with contextlib.suppress(BrokenPipeError):  # nobody wants to hear it any more
        pipe.sendall(b'{"ready": true}\n')
        (_serve_forked if settings["fork"] else _serve)(pipe, output, tasks)


def _refuse_threads() -> None:
    """Raises OptionError where the application has started threads: what they hold is held for ever after a fork."""
    if others := [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]:
        raise OptionError(
            f"the application starts threads when it is imported ({', '.join(others)}), so it cannot be forked; start "
            "them later, or choose executor='process'"
        )


if __name__ == "__main__":
    main()
    logging.shutdown()
