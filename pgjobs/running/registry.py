"""What may run: the decorated tasks, the public functions of the loaded modules, and our own tasks.

No row's name is imported.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable
from typing import Any, cast

from pgjobs import webhooks
from pgjobs.app import PgJobs
from pgjobs.arguments.reference import resolve
from pgjobs.running import shell
from pgjobs.task import Task


class Registry:
    """Finds the task that a row names.

    Args:
        modules: names of modules whose public functions run under ``module:function``.
        allow_shell: have the task that runs any command.
    """

    def __init__(self, jobs: PgJobs, modules: Iterable[str] = (), *, allow_shell: bool = False) -> None:
        self._jobs = jobs
        self._modules = frozenset(modules)
        self._plain: dict[str, Task[..., Any, Any] | None] = {
            webhooks.TASK: jobs.task_of(
                webhooks.sender(jobs.webhook_secrets, jobs.webhook_hosts), webhooks.TASK, retry=webhooks.RETRY
            ),
        }
        if allow_shell:
            self._plain[shell.TASK] = jobs.task_of(shell.run, shell.TASK, executor="fork", capture=True)

    def __len__(self) -> int:
        return len({id(task) for task in self._jobs.tasks.values()})

    def find(self, name: str) -> Task[..., Any, Any] | None:
        """Returns the task of a name, or None."""
        task = self._jobs.tasks.get(name)
        if task is not None:
            return task
        if name not in self._plain and ":" in name:
            self._plain[name] = self._look_up(name)
        return self._plain.get(name)

    def _look_up(self, name: str) -> Task[..., Any, Any] | None:
        module, _, path = name.partition(":")
        function = self._jobs.functions.get(name)
        if function is None and module in self._modules:
            function = resolve(module, path)
        if isinstance(function, Task):
            return cast("Task[..., Any, Any]", function)
        own = inspect.ismethod(function) or (inspect.isfunction(function) and function.__module__ == module)
        return self._jobs.task_of(cast("Any", function), name) if own else None


def loaded_since(before: Iterable[str], roots: Iterable[str]) -> set[str]:
    """The modules that were loaded since, of the packages that the roots belong to, and the roots themselves."""
    packages = {root.partition(".")[0] for root in roots}
    fresh = set(sys.modules) - set(before)
    return {name for name in fresh if name.partition(".")[0] in packages} | set(roots)
