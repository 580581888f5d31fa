"""Where functions run that need a process of their own: on a pool of processes, killed hard where a job must stop."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from typing import Any, Final

import msgspec

from pgjobs.errors import OptionError, ProcessDiedError
from pgjobs.run import Outcome, Run, cancelled, crashed, failed, released, timed_out, too_late
from pgjobs.task import Task
from pgjobs.worker import identity
from pgjobs.worker.crossing import outcome_of, run_line, said_of
from pgjobs.worker.process import describe_exit
from pgjobs.worker.slots import Slots

KIND: Final = "process"

START_S: Final = 60.0
"""How long a fresh process may take to import the application."""

_STARTING: Final = max(2, os.cpu_count() or 1)
"""So many processes start at once: each keeps a core busy, and the first ones may be done with all that waits."""

IDLE_S: Final = 300.0
"""A process that has had no job for so long ends."""

LOOK_S: Final = 0.5
"""How often a process that runs a job is looked at: whether it lives, what memory it takes."""


def check(task: Task[..., Any, Any]) -> None:
    """Makes sure that a fresh process can import a task.

    Raises:
        OptionError: it cannot.
    """
    function = task.function
    where = None
    if function.__module__ == "__main__":
        where = "the script that is running"
    elif "<" in function.__qualname__:
        where = "inside of a function"
    if where:
        raise OptionError(
            f"task {task.name} runs in a process of its own, which cannot import it from {where}; "
            "move it to the top level of a module"
        )


class _Process:
    """A process of the pool: starting, then idle or busy with a run."""

    def __init__(self, settings: str) -> None:
        self.run: Run | None = None
        self.ready = False
        self.jobs = 0
        self.since = time.perf_counter()
        self._unread = b""
        self.pipe, theirs = socket.socketpair()
        their_life, self._life = os.pipe()
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "pgjobs.worker.pooled", str(theirs.fileno()), str(their_life), settings],
            pass_fds=(theirs.fileno(), their_life),
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # a job's own processes end with it, and a Ctrl-C is ours to pass on
        )
        theirs.close()
        os.close(their_life)

    @property
    def deadline(self) -> float:
        """When somebody must look: the start or the run takes too long, or nothing has been asked of it for long."""
        if not self.ready:
            return self.since + START_S
        if self.run is None:
            return self.since + IDLE_S
        return float("inf") if self.run.timeout_s is None else self.run.begun + self.run.timeout_s

    def begin(self, line: bytes) -> None:
        """Hands its run to the process."""
        assert self.run is not None  # noqa: S101 - it was just given one
        self.run.begun = self.since = time.perf_counter()
        with contextlib.suppress(OSError):  # it has died, which the next look shows
            self.pipe.sendall(line)

    def messages(self) -> list[dict[str, Any]] | None:
        """Reads what the process has said; None if it will say no more."""
        try:
            data = self.pipe.recv(1 << 20, socket.MSG_DONTWAIT)
        except OSError:  # also where nothing comes and a process that the job has left behind holds the other end
            data = b""
        if not data:
            return None
        *lines, self._unread = (self._unread + data).split(b"\n")
        try:
            return [dict(json.loads(line)) for line in lines]
        except (ValueError, TypeError, RecursionError):  # a job's code has written to the socket
            return None

    def kill(self) -> str:
        """Ends the process and all that it has started; says how it ended."""
        with contextlib.suppress(OSError):
            os.killpg(self.popen.pid, signal.SIGKILL)  # also where it has ended by itself, and left others behind
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.popen.wait(5.0)
        code = self.popen.returncode
        self.pipe.close()
        os.close(self._life)
        return describe_exit(-signal.SIGKILL if code is None else code)

    def dismiss(self) -> None:
        """Lets an idle process end by itself."""
        self.pipe.shutdown(socket.SHUT_WR)


class ProcessExecutor:
    """Runs jobs on processes, as many as there are slots at most; one thread looks after them all.

    Tasks of other executors come here too, where a job was in a death before: if it was to blame, it dies alone.

    A process is kept for the next job. It is killed when its run is over its timeout, cancelled or must go back, or
    takes more than max_rss; when it dies, its run alone has failed. It is replaced after max_jobs, or when it has taken
    more than max_rss.

    Args:
        app: what ``-A`` named; None to import each task's module.
        max_rss: bytes.
    """

    def __init__(
        self, slots: Slots, app: str | None = None, max_jobs: int | None = None, max_rss: int | None = None
    ) -> None:
        self._slots = slots
        self._settings = {"app": app, "path": sys.path}
        self._max_jobs = max_jobs
        self._max_rss = max_rss
        self._inbox: deque[Run] = deque()
        self._processes: set[_Process] = set()
        self._leaving: set[_Process] = set()
        self._thread: threading.Thread | None = None
        self._selector: selectors.BaseSelector
        self._bell: socket.socket
        self._ear: socket.socket
        self._stopping = False
        self._closed = False

    # -- asked from other threads

    def start(self, run: Run) -> None:
        """Runs a job."""
        self._inbox.append(run)
        if self._thread is None:
            self._open()
        self._ring()

    def cancel(self, run: Run) -> None:
        """Stops one run, because its job was cancelled."""
        run.cancelled = True
        self._ring()

    def interrupt(self) -> None:
        """Stops what runs; the jobs go back."""
        self._stopping = True
        self._ring()

    def close(self) -> None:
        """Ends the processes."""
        self._closed = True
        self._ring()
        if self._thread is not None:
            self._thread.join(5.0)

    def _open(self) -> None:
        """Called under the lock of the slots, so once."""
        self._bell, self._ear = socket.socketpair()
        self._bell.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._ear, selectors.EVENT_READ, None)
        self._thread = threading.Thread(target=self._main, name="pgjobs-pool", daemon=True)
        self._thread.start()

    def _ring(self) -> None:
        if self._thread is not None:
            with contextlib.suppress(OSError):  # the bell is ringing
                self._bell.send(b"\0")

    # -- the thread that looks after the processes

    def _main(self) -> None:
        try:
            while not self._closed:
                for key, _ in self._selector.select(self._rest_s()):
                    if key.data is None:
                        self._ear.recv(4096)
                    else:
                        self._hear(key.data)
                self._look()
                self._assign()
        finally:
            for process in (*self._processes, *self._leaving):
                process.kill()
            self._selector.close()
            self._bell.close()
            self._ear.close()

    def _rest_s(self) -> float | None:
        nearest = min((process.deadline for process in self._processes), default=float("inf"))
        busy = self._inbox or self._leaving or any(process.run for process in self._processes)
        rest_s = min(LOOK_S if busy else float("inf"), nearest - time.perf_counter())
        return None if rest_s == float("inf") else max(0.0, rest_s)

    def _assign(self) -> None:
        """Hands waiting runs to idle processes, and starts further ones: few at a time, for that takes a core each."""
        while self._inbox and (outcome := self._stopped(self._inbox[0])) is not None:
            self._inbox.popleft()
            self._finish(outcome)
        idle = [process for process in self._processes if process.ready and process.run is None]
        while self._inbox and idle:
            self._give(idle.pop(), self._inbox.popleft())
        starting = sum(not process.ready for process in self._processes)
        for _ in range(min(len(self._inbox), _STARTING) - starting):
            level = logging.getLevelName(logging.getLogger().getEffectiveLevel())
            process = _Process(json.dumps({**self._settings, "log_level": level}))
            self._processes.add(process)
            self._selector.register(process.pipe, selectors.EVENT_READ, process)

    def _give(self, process: _Process, run: Run) -> None:
        if run.options is not None and (late := too_late(run)) is not None:
            self._finish(late, process)
            return
        try:
            line = run_line(run)
        except RecursionError as error:  # SQL has nested its arguments deeper than they can be written here
            self._finish(failed(run, error, 0.0), process)
            return
        process.run = run
        process.begin(line)
        self._slots.began(run)

    def _hear(self, process: _Process) -> None:
        messages = process.messages()
        if messages is None:
            self._bury(process, "")
            return
        for message in messages:
            if "ready" in message:
                process.ready = True
                process.since = time.perf_counter()
            elif "error" in message:
                self._bury(process, f"it could not import the application:\n{message['error']}")
                return
            elif "said" in message:
                self._said(process, message)
            elif process in self._processes:
                self._ended(process, message)

    def _said(self, process: _Process, message: dict[str, Any]) -> None:
        """Takes what a run says of itself."""
        run = process.run
        if run is None or str(run.id) != message["said"]:
            return
        try:
            run.claim.desk.hear(said_of(run, message))
        except msgspec.ValidationError:
            self._bury(process, "killed: it said what nobody understands")

    def _ended(self, process: _Process, message: dict[str, Any]) -> None:
        """Takes a run's outcome, and keeps the process at work."""
        run = process.run
        if run is None:
            return
        try:
            outcome, rss_bytes = outcome_of(run, message)
        except msgspec.ValidationError:
            self._bury(process, "killed: it said what is no outcome")
            return
        process.run = None
        process.jobs += 1
        process.since = time.perf_counter()
        worn = self._max_jobs is not None and process.jobs >= self._max_jobs
        if worn or (self._max_rss is not None and rss_bytes > self._max_rss):
            self._processes.remove(process)
            self._selector.unregister(process.pipe)
            self._leaving.add(process)
            process.dismiss()
        self._finish(outcome, process if process in self._processes else None)

    def _finish(self, outcome: Outcome, process: _Process | None = None) -> None:
        following = self._slots.finish(outcome, KIND)
        if following is None:
            return
        if process is None or self._inbox:
            self._inbox.append(following)
        else:
            self._give(process, following)

    # -- what must end

    def _look(self) -> None:
        """Ends what must not go on, and finds out what has ended by itself."""
        now = time.perf_counter()
        for process in list(self._processes):
            if process.run is None:
                if process.deadline <= now:
                    self._bury(process, "" if process.ready else f"it did not get ready within {START_S:g} s")
            elif (outcome := self._stopped(process.run)) is not None:
                self._remove(process)
                self._finish(outcome)
            elif process.popen.poll() is not None:
                self._hear_out(process)
            elif process.deadline <= now:
                self._late(process, process.run)
            elif (rss := self._fat(process)) is not None:
                self._bury(process, f"killed: it takes {rss >> 20} MB, max_rss is {(self._max_rss or 0) >> 20} MB")
        for process in [process for process in self._leaving if process.popen.poll() is not None]:
            self._leaving.remove(process)
            process.kill()

    def _stopped(self, run: Run) -> Outcome | None:
        """The outcome of a run that somebody wants to stop."""
        if run.cancelled:
            return cancelled(run, _seconds(run))
        return released(run) if self._stopping else None

    def _late(self, process: _Process, run: Run) -> None:
        self._remove(process)
        self._finish(timed_out(run, _seconds(run)))

    def _hear_out(self, process: _Process) -> None:
        """Reads the last words of a process that has ended, if there are any, and buries it."""
        while process in self._processes:
            self._hear(process)

    def _fat(self, process: _Process) -> int | None:
        if self._max_rss is None:
            return None
        rss = identity.rss_bytes(process.popen.pid)
        return rss if rss is not None and rss > self._max_rss else None

    def _bury(self, process: _Process, why: str) -> None:
        """Takes leave of a process that has died, or has to; its run has failed, or the one that waited for it."""
        run = process.run
        if not process.ready and self._inbox:
            run = self._inbox.popleft()
        how = self._remove(process)
        if run is None:
            return
        error = ProcessDiedError(why or how)
        if run.task.executor == KIND:
            self._finish(failed(run, error, _seconds(run), reason="crash"))
        else:
            self._finish(crashed(run, error, _seconds(run)))

    def _remove(self, process: _Process) -> str:
        self._processes.remove(process)
        self._selector.unregister(process.pipe)
        return process.kill()


def _seconds(run: Run) -> float:
    return time.perf_counter() - run.begun if run.begun else 0.0
