"""How the code of a job is told that it takes long: SoftTimeoutError, raised where it runs."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Final

from pgjobs.errors import SoftTimeoutError

_GROUPS: Final = ("asyncio.taskgroups", "anyio._backends._asyncio")
"""Modules whose code, while it waits for its children, understands a cancellation and nothing else."""


class Softly:
    """Awaits a coroutine, and after a while raises SoftTimeoutError in it, once.

    Only a cancellation reaches whatever the coroutine awaits, so its task is cancelled, and what arrives of that is
    changed into SoftTimeoutError on its way in. A task group has to see the cancellation itself, for its children to
    be stopped; where it then comes out of the coroutine, it is changed there.

    Args:
        gives_way: whether somebody else wants to stop the task, who needs the cancellation as it is.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, Any], limit_s: float, gives_way: Callable[[], bool]) -> None:
        self._coroutine = coroutine
        self._limit_s = limit_s
        self._gives_way = gives_way
        self._pending = False
        self._told_plainly = False

    def __await__(self) -> Generator[Any, Any, Any]:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - it is awaited
        timer = asyncio.get_running_loop().call_later(self._limit_s, self._ring, task)
        try:
            return (yield from self._drive(task))
        except asyncio.CancelledError as error:
            if self._told_plainly and not self._gives_way():
                raise SoftTimeoutError(self._limit_s) from error
            raise
        finally:
            timer.cancel()

    def _ring(self, task: asyncio.Task[Any]) -> None:
        self._pending = True
        task.cancel()

    def _drive(self, task: asyncio.Task[Any]) -> Generator[Any, Any, Any]:
        step: Callable[[Any], Any] = self._coroutine.send
        value: Any = None
        while True:
            try:
                awaited = step(value)
            except StopIteration as end:
                return end.value
            try:
                step, value = self._coroutine.send, (yield awaited)
            except GeneratorExit:
                self._coroutine.close()
                raise
            except asyncio.CancelledError as error:
                step, value = self._coroutine.throw, self._arrived(error, task)
            except BaseException as error:
                step, value = self._coroutine.throw, error

    def _arrived(self, error: asyncio.CancelledError, task: asyncio.Task[Any]) -> BaseException:
        if not self._pending:
            return error
        self._pending = False
        task.uncancel()
        if self._gives_way():
            return error
        if _innermost(self._coroutine) in _GROUPS:
            self._told_plainly = True
            return error
        return SoftTimeoutError(self._limit_s)


def _innermost(coroutine: Any) -> str:
    """The module of the code that a coroutine waits in."""
    while hasattr(inner := coroutine.cr_await, "cr_await"):
        coroutine = inner
    return str(coroutine.cr_frame.f_globals.get("__name__"))


async def softly(coroutine: Coroutine[Any, Any, Any], limit_s: float) -> Any:
    """Awaits a coroutine that nobody else stops."""
    return await Softly(coroutine, limit_s, lambda: False)


@contextlib.contextmanager
def alarm(limit_s: float) -> Generator[None]:
    """Raises SoftTimeoutError in the block once it has run for so long. For the main thread of a process."""
    armed = True

    def ring(number: int, frame: object) -> None:
        if armed:
            raise SoftTimeoutError(limit_s)

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        yield
    finally:
        armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
