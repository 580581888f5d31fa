"""Classes with a method ``perform`` as tasks, for those who come from Sidekiq or Resque."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, Unpack

from pgjobs.app import PgJobs
from pgjobs.config import Duration
from pgjobs.errors import TaskError
from pgjobs.handle import Job
from pgjobs.options import Options
from pgjobs.registered import Executor, executor_of
from pgjobs.task import Task
from pgjobs.wording import given

K = TypeVar("K", bound=type[Any])


def job_class(
    jobs: PgJobs, *, name: str | None = None, executor: Executor | None = None, **options: Unpack[Options]
) -> Callable[[K], K]:
    """Makes a class a task: each job makes an object of it, without arguments, and calls ``perform`` with its own.

    The class gets ``task``, with all that tasks have, ``perform_async(…)`` and ``perform_in(delay, …)``.

    ::

        @job_class(jobs, queue="archive")
        class Archive:
            def perform(self, repository: int) -> None: ...

        Archive.perform_async(17)

    Raises:
        TaskError: the class has no method ``perform``, or no object of it can be made without arguments.
        OptionError: perform yields.
    """
    if not isinstance(jobs, PgJobs):  # pyright: ignore[reportUnnecessaryIsInstance] - the bare decorator has the class here
        raise TaskError(f"{given(jobs)} is no PgJobs; write @job_class(jobs) above the class")

    def register(cls: K) -> K:
        made: Task[..., Any, Any] = jobs.task(
            name=name or f"{cls.__module__}.{cls.__qualname__}", executor=executor, **options
        )(_function(cls))

        def perform_in(delay: Duration, *args: Any, **kwargs: Any) -> Job[Any]:
            return made.using(delay=delay).enqueue(*args, **kwargs)

        cls.task = made
        cls.perform_async = staticmethod(made.enqueue)
        cls.perform_in = staticmethod(perform_in)
        return cls

    return register


def _function(cls: type[Any]) -> Callable[..., Any]:
    perform = inspect.getattr_static(cls, "perform", None)
    plain = inspect.isfunction(perform)
    if not (plain or isinstance(perform, classmethod | staticmethod)):
        raise TaskError(f"{cls.__qualname__} has no method perform; define one, or decorate a function")
    if plain:
        _check_made(cls)
    executor_of(cls.perform, None)

    def run(*args: Any, **kwargs: Any) -> Any:
        return cls().perform(*args, **kwargs) if plain else cls.perform(*args, **kwargs)

    async def arun(*args: Any, **kwargs: Any) -> Any:
        return await run(*args, **kwargs)

    function: Any = arun if inspect.iscoroutinefunction(cls.perform) else run
    functools.update_wrapper(function, cls.perform)
    signature = inspect.signature(cls.perform)
    if plain:
        signature = signature.replace(parameters=list(signature.parameters.values())[1:])
    function.__signature__ = signature
    function.__module__ = cls.__module__
    function.__qualname__ = f"{cls.__qualname__}.task"  # under which a process of the pool finds it
    made: Callable[..., Any] = function
    return made


def _check_made(cls: type[Any]) -> None:
    try:
        inspect.signature(cls).bind()
    except TypeError as error:
        raise TaskError(
            f"no {cls.__qualname__} can be made without arguments ({error}); give what it needs to perform, or defaults"
        ) from None
    except ValueError:  # it does not say what it takes
        return
