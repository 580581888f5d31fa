"""Doors through which any function is enqueued: a task, a plain function, or what a name stands for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, TypeVar, overload
from uuid import UUID

from pgjobs.handle import Job
from pgjobs.options import Options
from pgjobs.task import Call, P, Task

C = TypeVar("C")
R = TypeVar("R")


class Doorway(ABC):
    """What PgJobs, Queue and ``using(…)`` have in common."""

    @abstractmethod
    def call(self, function: object) -> Call[..., Any]:
        """Finds what is to be called, and how its jobs are enqueued."""

    @overload
    def enqueue(self, function: Task[P, C, R], /, *args: P.args, **kwargs: P.kwargs) -> Job[R]: ...
    @overload
    def enqueue(
        self, function: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Job[R]: ...
    @overload
    def enqueue(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Job[R]: ...
    @overload
    def enqueue(self, function: str, /, *args: Any, **kwargs: Any) -> Job[Any]: ...
    def enqueue(self, function: object, /, *args: Any, **kwargs: Any) -> Job[Any]:
        """Enqueues a call of a task, of an importable function, or of what a name stands for.

        Args:
            function: a name is a task's own, or ``module:function``.

        Raises:
            TaskError: a worker could not find the function.
            ArgumentsError, EncodingError: see ``Task.enqueue``.
        """
        return self.call(function).enqueue(*args, **kwargs)

    @overload
    async def aenqueue(self, function: Task[P, C, R], /, *args: P.args, **kwargs: P.kwargs) -> Job[R]: ...
    @overload
    async def aenqueue(
        self, function: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Job[R]: ...
    @overload
    async def aenqueue(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Job[R]: ...
    @overload
    async def aenqueue(self, function: str, /, *args: Any, **kwargs: Any) -> Job[Any]: ...
    async def aenqueue(self, function: object, /, *args: Any, **kwargs: Any) -> Job[Any]:
        """The async twin of ``enqueue``."""
        return await self.call(function).aenqueue(*args, **kwargs)

    @overload
    def broadcast(self, function: Task[P, C, R], /, *args: P.args, **kwargs: P.kwargs) -> list[Job[R]]: ...
    @overload
    def broadcast(self, function: Callable[..., Any] | str, /, *args: Any, **kwargs: Any) -> list[Job[Any]]: ...
    def broadcast(self, function: object, /, *args: Any, **kwargs: Any) -> list[Job[Any]]:
        """Enqueues a job for every worker process that lives, whatever queues it serves; returns their handles.

        Each is for its worker alone, goes before what waits elsewhere, and expires after a minute, or its ttl, if the
        worker is gone by then.
        """
        return self.call(function).broadcast(*args, **kwargs)

    @overload
    async def abroadcast(self, function: Task[P, C, R], /, *args: P.args, **kwargs: P.kwargs) -> list[Job[R]]: ...
    @overload
    async def abroadcast(self, function: Callable[..., Any] | str, /, *args: Any, **kwargs: Any) -> list[Job[Any]]: ...
    async def abroadcast(self, function: object, /, *args: Any, **kwargs: Any) -> list[Job[Any]]:
        """The async twin of ``broadcast``."""
        return await self.call(function).abroadcast(*args, **kwargs)

    def enqueue_many(
        self, function: Callable[..., Any] | str, /, calls: Iterable[tuple[Any, ...] | Mapping[str, Any]]
    ) -> list[UUID]:
        """Enqueues many calls of one function; see ``Task.enqueue_many``."""
        return self.call(function).enqueue_many(calls)

    async def aenqueue_many(
        self, function: Callable[..., Any] | str, /, calls: Iterable[tuple[Any, ...] | Mapping[str, Any]]
    ) -> list[UUID]:
        """The async twin of ``enqueue_many``."""
        return await self.call(function).aenqueue_many(calls)


class Door(Doorway):
    """``jobs.using(…)``: enqueues with the options and the connection given."""

    __slots__ = ("_conn", "_find", "_options")

    def __init__(
        self, find: Callable[[object, object, Options], Call[..., Any]], conn: object, options: Options
    ) -> None:
        self._find = find
        self._conn = conn
        self._options = options

    def call(self, function: object) -> Call[..., Any]:
        return self._find(function, self._conn, self._options)
