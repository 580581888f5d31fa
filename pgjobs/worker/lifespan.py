"""What an application opens when a worker starts and closes when it stops."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Coroutine
from typing import Any, Protocol


class Runs(Protocol):
    """Runs a coroutine on the loop of the worker's coroutines, and waits for it."""

    def __call__(self, coroutine: Coroutine[Any, Any, Any], /) -> Any: ...


class Lifespan:
    """An application's lifespan in one process: ``open`` returns its resources, ``close`` cleans up.

    Args:
        given: a generator function or what returns a context manager, sync or async; None for nothing.
        run: for async ones: connections belong to the loop that opened them.
        run_last: what closes them runs by this one, if given.
    """

    def __init__(self, given: Callable[[], Any] | None, run: Runs, run_last: Runs | None = None) -> None:
        self._given = given
        self._run = run
        self._run_last = run_last or run
        self._close: Callable[[], object] | None = None

    def open(self) -> Any:
        """Opens it; returns what it yields."""
        if self._given is None:
            return None
        manager: Any = _manager(self._given)
        if hasattr(manager, "__aenter__"):
            opened = self._run(manager.__aenter__())
            self._close = lambda: self._run_last(manager.__aexit__(None, None, None))
        else:
            opened = manager.__enter__()
            self._close = lambda: manager.__exit__(None, None, None)
        return opened

    def close(self) -> None:
        """Closes it, once."""
        close, self._close = self._close, None
        if close is not None:
            close()


def _manager(given: Callable[[], Any]) -> Any:
    if inspect.isgeneratorfunction(given):
        return contextlib.contextmanager(given)()
    if inspect.isasyncgenfunction(given):
        return contextlib.asynccontextmanager(given)()
    return given()
