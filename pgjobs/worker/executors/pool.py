"""Where functions run that need a process of their own: on a pool of processes, killed hard where a job must stop."""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import socket
import sys
import threading
import time
from collections import deque
from typing import Any, Final

import msgspec

from pgjobs.errors import OptionError, ProcessDiedError
from pgjobs.running.outcome import Outcome, cancelled, crashed, failed, released, timed_out, too_late, unstarted
from pgjobs.running.run import Run
from pgjobs.task import Task
from pgjobs.wording import given
from pgjobs.worker.claiming.slots import Slots
from pgjobs.worker.executors.apart import START_S, PoolProcess
from pgjobs.worker.executors.crossing import exit_of, outcome_of, run_line, said_of

APART: Final = ("process", "fork")
"""The executors that run jobs in processes of their own."""

_STARTING: Final = max(2, os.cpu_count() or 1)
"""So many processes start at once: each keeps a core busy, and the first ones may be done with all that waits."""

LOOK_S: Final = 0.5
"""How often a process that runs a job is looked at: whether it lives, what memory it takes."""

BREATH_S: Final = 1.0
"""So long no process is started once one could not be."""

LEAVE_S: Final = 10.0
"""How long a dismissed process may take to end: what its jobs have started may keep it for ever."""

BUSY_LOOK_S: Final = 0.05
"""How often at most: between short jobs each look is a system call a process, which lets go of the interpreter."""


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


class ProcessExecutor:
    """Runs jobs on processes, about as many as there are slots; one thread looks after them all.

    Tasks of other executors come here too, where a job was in a death before: if it was to blame, it dies alone.

    A process is kept for the next job. It is killed when its run is over its timeout, cancelled or must go back, or
    takes more than max_rss; when it dies, its run alone has failed. It is replaced after max_jobs, or when it has taken
    more than max_rss. Of the kind ``fork``, a process runs no job itself, but forks one for each.

    Args:
        kind: ``process`` or ``fork``.
        app: what ``-A`` named; None to import each task's module.
        max_rss: bytes.
    """

    def __init__(
        self,
        slots: Slots,
        app: str | None = None,
        max_jobs: int | None = None,
        max_rss: int | None = None,
        *,
        kind: str = "process",
        allow_shell: bool = False,
        worker: str = "",
    ) -> None:
        self._slots = slots
        self._kind = kind
        self._settings = {
            "app": app,
            "fork": kind == "fork",
            "allow_shell": allow_shell,
            "worker": worker,
        }
        self._max_jobs = max_jobs
        self._max_rss = max_rss
        self._inbox: deque[Run] = deque()
        self._processes: set[PoolProcess] = set()
        self._leaving: set[PoolProcess] = set()
        self._thread: threading.Thread | None = None
        self._selector: selectors.BaseSelector
        self._bell: socket.socket
        self._ear: socket.socket
        self._stopping = False
        self._closed = False
        self._look_at = 0.0
        self._breathes_until = 0.0

    # -- asked from other threads

    def start(self, run: Run) -> None:
        """Runs a job.

        Raises:
            OSError: the system has no files for what looks after the processes.
            RuntimeError: it has no thread for that.
        """
        if self._thread is None:
            self._open()
        self._inbox.append(run)
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
        """Called under the lock of the slots, so once, unless it fails."""
        with contextlib.ExitStack() as undo:
            self._bell, self._ear = map(undo.enter_context, socket.socketpair())
            self._bell.setblocking(False)
            self._selector = undo.enter_context(selectors.DefaultSelector())
            self._selector.register(self._ear, selectors.EVENT_READ, self._hear_bell)
            thread = threading.Thread(target=self._main, name="pgjobs-pool", daemon=True)
            thread.start()
            undo.pop_all()
        self._thread = thread

    def _ring(self) -> None:
        if self._thread is not None:
            with contextlib.suppress(OSError):  # the bell is ringing
                self._bell.send(b"\0")

    def _hear_bell(self) -> None:
        self._ear.recv(4096)
        self._look_at = 0.0

    # -- the thread that looks after the processes

    def _main(self) -> None:
        try:
            while not self._closed:
                try:
                    self._turn()
                except Exception as error:
                    self._begin_anew(error)
        finally:
            for process in (*self._processes, *self._leaving):
                process.stop()
                process.close()
            self._selector.close()
            self._bell.close()
            self._ear.close()

    def _turn(self) -> None:
        for key, _ in self._selector.select(self._rest_s()):
            key.data()
        if time.perf_counter() >= self._look_at:
            self._look()
        self._assign()

    def _begin_anew(self, error: Exception) -> None:
        """Ends the processes after an error that nobody expects, and gives back their runs and those that wait."""
        runs = [process.run for process in self._processes if process.run is not None]
        for process in list(self._processes):
            self._remove(process)
        for run in runs:
            self._finish(released(run))
        self._send_back(error)
        time.sleep(BREATH_S)

    def _send_back(self, error: Exception) -> None:
        """Gives back what waits for a process, and starts none for a moment: the next ones would fare no better."""
        self._breathes_until = time.perf_counter() + BREATH_S
        for run in [self._inbox.popleft() for _ in range(len(self._inbox))]:
            self._finish(unstarted(run, error))

    def _rest_s(self) -> float | None:
        nearest = min((process.deadline for process in self._processes), default=float("inf"))
        self._look_at = min(self._look_at, nearest)
        busy = self._inbox or self._leaving or any(process.run for process in self._processes)
        rest_s = min(LOOK_S if busy else float("inf"), nearest - time.perf_counter())
        return None if rest_s == float("inf") else max(0.0, rest_s)

    def _assign(self) -> None:
        """Hands waiting runs to idle processes, and starts further ones: few at a time, for that takes a core each."""
        while self._inbox and (outcome := self._stopped(self._inbox[0])) is not None:
            self._inbox.popleft()
            self._finish(outcome)
        idle = [process for process in self._processes if process.ready and process.run is None]
        left: list[Run] = []
        for _ in range(len(self._inbox)):
            run = self._inbox.popleft()
            process = next((process for process in idle if process.nice == run.task.nice), None)
            if process is None:
                left.append(run)
            else:
                idle.remove(process)
                self._give(process, run)
        self._inbox.extendleft(reversed(left))
        self._start_for(left, idle)

    def _start_for(self, runs: list[Run], idle: list[PoolProcess]) -> None:
        """Starts a process for each of these runs that has none starting; one too many takes an idle one's place."""
        if time.perf_counter() < self._breathes_until:
            return
        starting = [process.nice for process in self._processes if not process.ready]
        spare = list(starting)
        for run in runs:
            if run.task.nice in spare:
                spare.remove(run.task.nice)
            elif len(starting) < _STARTING:
                starting.append(run.task.nice)
                if idle and len(self._processes) >= self._slots.count:
                    self._remove(idle.pop())
                try:
                    self._add(run.task.nice)
                except Exception as error:  # the system has no process or files for it
                    self._send_back(error)
                    return

    def _add(self, nice: int) -> None:
        level = logging.getLevelName(logging.getLogger().getEffectiveLevel())
        path = [str(entry) for entry in sys.path]  # which may hold anything, and only texts are heeded
        process = PoolProcess({**self._settings, "path": path, "log_level": level}, nice)
        self._processes.add(process)
        try:
            self._selector.register(process.pipe, selectors.EVENT_READ, lambda: self._hear(process))
            self._selector.register(process.output, selectors.EVENT_READ, process.read_output)
        except Exception:
            self._remove(process)
            raise

    def _give(self, process: PoolProcess, run: Run) -> None:
        if run.options is not None and (late := too_late(run)) is not None:
            self._finish(late, process)
            return
        try:
            line = run_line(run)
        except Exception as error:  # SQL has nested its arguments deeper than they can be written here
            self._finish(failed(run, error, 0.0), process)
            return
        process.begin(run, line)
        self._slots.began(run)

    def _hear(self, process: PoolProcess) -> None:
        if process not in self._processes:
            return  # it was buried since it was heard
        try:
            self._understand(process)
        except Exception as error:
            if process in self._processes:
                self._bury(process, f"killed: what it said could not be seen to: {given(error)}")

    def _understand(self, process: PoolProcess) -> None:
        messages = process.messages()
        if messages is None:
            self._bury(process, "")
            return
        for message in messages:
            if process not in self._processes:
                return
            if "ready" in message:
                process.ready = True
                process.since = time.perf_counter()
            elif "error" in message:
                self._bury(process, f"it could not import the application:\n{message['error']}")
            else:
                self._take(process, message)

    def _take(self, process: PoolProcess, message: dict[str, Any]) -> None:
        """Takes what a process says while it runs a job."""
        if "said" in message:
            self._said(process, message)
        elif "forked" in message:
            process.forked(message["forked"])
        elif "exited" in message:
            self._exited(process, message)
        elif self._kind == "fork":
            process.said = message
        else:
            self._ended(process, message)

    def _said(self, process: PoolProcess, message: dict[str, Any]) -> None:
        """Takes what a run says of itself."""
        run = process.run
        if run is None or str(run.id) != message["said"]:
            return
        try:
            run.claim.desk.hear(said_of(run, message))
        except msgspec.ValidationError:
            self._bury(process, "killed: it said what nobody understands")

    def _ended(self, process: PoolProcess, message: dict[str, Any]) -> None:
        """Takes a run's outcome, and keeps the process at work."""
        run = process.run
        if run is None:
            return
        try:
            outcome, rss_bytes, usage = outcome_of(run, message)
        except msgspec.ValidationError:
            self._bury(process, "killed: it said what is no outcome")
            return
        outcome.account = process.account(run, usage)
        process.run = None
        process.jobs += 1
        process.since = time.perf_counter()
        if self._kind == "fork":
            self._finish(outcome, process)
            return
        worn = self._max_jobs is not None and process.jobs >= self._max_jobs
        if worn or (self._max_rss is not None and rss_bytes > self._max_rss):
            self._forget(process)
            self._leaving.add(process)
            process.dismiss()
        self._finish(outcome, process if process in self._processes else None)

    def _exited(self, process: PoolProcess, message: dict[str, Any]) -> None:
        """Takes leave of the process that was forked for a run: its outcome counts now, or it has died without one."""
        run = process.run
        if run is None:
            return
        try:
            how, usage = exit_of(message)
        except msgspec.ValidationError:
            self._bury(process, "killed: it said what is no end")
            return
        if process.said is not None:
            self._ended(process, {**process.said, "usage": usage})
            return
        outcome = _died(run, how)
        outcome.account = process.account(run, usage)
        process.run = None
        process.since = time.perf_counter()
        self._finish(outcome, process)

    def _finish(self, outcome: Outcome, process: PoolProcess | None = None) -> None:
        following = self._slots.finish(outcome, self._kind)
        if following is None:
            return
        if process is None or self._inbox or process.nice != following.task.nice:
            self._inbox.append(following)
        else:
            self._give(process, following)

    # -- what must end

    def _look(self) -> None:
        """Ends what must not go on, and finds out what has ended by itself."""
        now = time.perf_counter()
        self._look_at = now + BUSY_LOOK_S
        for process in list(self._processes):
            if process.run is None:
                if process.deadline <= now:
                    self._bury(process, "" if process.ready else f"it did not get ready within {START_S:g} s")
            elif (outcome := self._stopped(process.run)) is not None:
                self._end(process, outcome)
            elif process.popen.poll() is not None:
                self._hear_out(process)
            elif process.deadline <= now:
                self._end(process, timed_out(process.run, _seconds(process.run)))
            elif (rss := self._fat(process)) is not None:
                self._bury(process, f"killed: it takes {rss >> 20} MB, max_rss is {(self._max_rss or 0) >> 20} MB")
        for process in list(self._leaving):
            if process.popen.poll() is None and now < process.since + LEAVE_S:
                continue
            self._leaving.remove(process)
            process.stop()
            process.close()

    def _stopped(self, run: Run) -> Outcome | None:
        """The outcome of a run that somebody wants to stop."""
        if run.cancelled:
            return cancelled(run, _seconds(run))
        return released(run) if self._stopping else None

    def _end(self, process: PoolProcess, outcome: Outcome) -> None:
        """Kills a process whose run has to end, with this outcome."""
        process.stop()
        outcome.account = process.account(outcome.run, None)
        self._remove(process)
        self._finish(outcome)

    def _hear_out(self, process: PoolProcess) -> None:
        """Reads the last words of a process that has ended, if there are any, and buries it."""
        while process in self._processes:
            self._hear(process)

    def _fat(self, process: PoolProcess) -> int | None:
        if self._max_rss is None:
            return None
        rss = process.rss_bytes
        return rss if rss is not None and rss > self._max_rss else None

    def _bury(self, process: PoolProcess, why: str) -> None:
        """Takes leave of a process that has died, or has to; its run has failed, or the one that waited for it."""
        run = process.run
        if not process.ready and self._inbox:
            run = self._inbox.popleft()
        how = process.stop()
        if run is None:
            self._remove(process)
        else:
            self._end(process, _died(run, why or how))

    def _remove(self, process: PoolProcess) -> None:
        self._forget(process)
        process.stop()
        process.close()

    def _forget(self, process: PoolProcess) -> None:
        self._processes.remove(process)
        for end in (process.pipe, process.output):
            with contextlib.suppress(KeyError):  # the system had no room for it
                self._selector.unregister(end)


def _died(run: Run, how: str) -> Outcome:
    """The outcome of a run whose process has died: a task that runs in one by choice has failed, another crashed."""
    error = ProcessDiedError(how)
    if run.task.executor in APART:
        return failed(run, error, _seconds(run), reason="crash")
    return crashed(run, error, _seconds(run))


def _seconds(run: Run) -> float:
    return time.perf_counter() - run.begun if run.begun else 0.0
