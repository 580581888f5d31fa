"""Middleware: what an application does around every enqueue and every run."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from pgjobs.newjob import NewJob, Prepared, checked
from pgjobs.running.current import CurrentJob, current_job


class Middleware:
    """Goes around enqueues and runs; add it with ``jobs.use(…)``, the first one is the outermost.

    A subclass overrides what it needs, and calls ``call_next`` once to go on; what it does not override costs nothing.
    """

    def enqueue(self, job: NewJob, call_next: Callable[[NewJob], Prepared]) -> Prepared:
        """Goes around what makes a row of a call: it may change the job before, and raise to refuse it.

        It is called for each job, also of a bulk, before anything is sent: so one method serves sync and async callers.
        """
        return call_next(job)

    def run(self, job: CurrentJob, call_next: Callable[[], Any]) -> Any:
        """Goes around a run of a plain function; what it returns is the result, what it raises is the failure."""
        return call_next()

    async def arun(self, job: CurrentJob, call_next: Callable[[], Awaitable[Any]]) -> Any:
        """Goes around a run of an async function."""
        return await call_next()

    # -- how it is compiled into tasks

    def wrap_enqueue(self, call_next: Callable[[NewJob], Prepared]) -> Callable[[NewJob], Prepared]:
        """Returns call_next with this middleware around it."""
        return lambda job: checked(self.enqueue(job, call_next), self)

    def wrap_run(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Returns a function with this middleware around it; the function itself where there is nothing to do."""
        if inspect.iscoroutinefunction(function):
            return self._wrap_async(function) if self._overrides("arun") else function
        return self._wrap_sync(function) if self._overrides("run") else function

    @property
    def sees_enqueues(self) -> bool:
        """Whether it does anything around an enqueue."""
        return self._overrides("enqueue")

    def _overrides(self, name: str) -> bool:
        return getattr(type(self), name) is not getattr(Middleware, name)

    def _wrap_sync(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            return self.run(current_job(), functools.partial(function, *args, **kwargs))

        return wrapped

    def _wrap_async(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        async def wrapped(*args: Any, **kwargs: Any) -> Any:
            return await self.arun(current_job(), functools.partial(function, *args, **kwargs))

        return wrapped
