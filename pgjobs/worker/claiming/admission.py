"""Makes claimed jobs ready to run: finds their tasks, fits their arguments, chooses their executors."""

from __future__ import annotations

from collections.abc import Callable

from pgjobs.errors import ArgumentsError, ConfigurationError, DecryptionError, OptionError
from pgjobs.events import Event, Unrunnable
from pgjobs.running.bodies import body_of
from pgjobs.running.outcome import Outcome
from pgjobs.running.registry import Registry
from pgjobs.running.run import Run
from pgjobs.wording import given


class Admission:
    """Called with a run, it makes it ready, or returns the outcome of one that cannot run here.

    Args:
        apart: what may have caused a death can run in a process of its own, which loads the application as this one
            did. One of many suspects does not: it is in good company, and a process takes half a second to start.
    """

    def __init__(self, registry: Registry, emit: Callable[[Event], None], *, apart: bool) -> None:
        self._registry = registry
        self._emit = emit
        self._apart = apart
        self._said: set[tuple[str, str]] = set()

    def __call__(self, run: Run) -> Outcome | None:
        try:
            return self._make_ready(run)
        except (Exception, SystemExit) as error:  # of the application, such as middleware or a module's __getattr__
            return self._send_back(run, f"task cannot be made ready: {given(error)}")

    def _make_ready(self, run: Run) -> Outcome | None:
        task = self._registry.find(run.task_name)
        if task is None:
            return self._send_back(run, "unknown task")
        if not task.compiled:
            task.body, task.compiled = body_of(task), True
        run.task = task
        run.executor = task.executor
        if run.options is not None:
            try:
                run.check_options()
            except OptionError as error:
                return self._send_back(run, f"options do not fit: {error}")
        if run.crashes or run.is_suspect:
            if self._apart and (run.crashes or run.among == 1):
                run.executor = "process"
            run.guarded = run.is_suspect or run.executor != "process"
        try:
            run.positional, run.named = task.signature.unbind(run.args)
        except (ArgumentsError, DecryptionError, ConfigurationError) as error:
            return self._send_back(run, f"arguments do not fit: {error}")
        return None

    def _send_back(self, run: Run, reason: str) -> Outcome:
        """Puts a job that cannot run here back for as long as it has waited, up to a minute; no attempt counts."""
        if (run.task_name, reason) not in self._said:
            self._said.add((run.task_name, reason))
            self._emit(Unrunnable(run.task_name, reason, 1))
        return Outcome(run, "scheduled", 0.0, reason=reason, refund=1)
