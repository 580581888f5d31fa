"""Methods of SQLAlchemy's rows as jobs: ``later(user).welcome("hello")``.

What is stored is the class's name, the primary key, the method's name and its arguments; never the object.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any, Unpack

import msgspec
from sqlalchemy import inspect as inspected
from sqlalchemy.orm import DeclarativeBase, InstanceState, Session, class_mapper

from pgjobs.app import PgJobs
from pgjobs.arguments.codec import Json
from pgjobs.arguments.signature import Signature
from pgjobs.errors import OptionError
from pgjobs.handle import Job
from pgjobs.options import Options
from pgjobs.registered import executor_of
from pgjobs.running.current import current_job
from pgjobs.terms.retry import Cancel, Steer
from pgjobs.wording import given


class RowMethods:
    """Makes jobs of public methods of mapped objects; the worker's module makes the same object.

    The worker reads the row anew, calls the method, and completes the job in the same transaction: what the method
    changes on that session and the completion commit together. A row that is gone cancels the job.

    Args:
        session: makes a session: a sessionmaker, or a function.
        base: the declarative base whose models may be called; no other class is looked up.
        name: of the task that calls them.
        **options: the options of its jobs.
    """

    def __init__(
        self,
        jobs: PgJobs,
        session: Callable[[], Session],
        base: type[DeclarativeBase],
        *,
        name: str = "row_method",
        **options: Unpack[Options],
    ) -> None:
        self._session = session
        self._base = base
        self._task = jobs.task(name=name, **options)(self._call)

    def __call__(self, row: DeclarativeBase, conn: object = None, /, **options: Unpack[Options]) -> Later:
        """Says whose method is to be called, in whose transaction that is enqueued, and with which options.

        Raises:
            OptionError: what is given is no row, has no primary key yet, or is none of this base.
        """
        state: Any = inspected(row, raiseerr=False)
        if not isinstance(state, InstanceState):
            raise OptionError(f"{given(row)} is no row; give an object of a model of {self._base.__name__}")
        identity: Any = inspected(row).identity
        if identity is None:
            raise OptionError(f"the {type(row).__name__} has no primary key yet; flush its session first")
        if _path(type(row)) not in dict(self._models()):
            raise OptionError(f"{type(row).__name__} is no model of {self._base.__name__}; give its own base")
        key: list[Json] = [msgspec.to_builtins(part) for part in identity]
        target = self._task.using(conn, **options)

        def enqueue(method: str, bound: dict[str, Json]) -> Job[Any]:
            return target.enqueue(_path(type(row)), key, method, [], bound)

        return Later(type(row), enqueue)

    def _models(self) -> Iterator[tuple[str, type[Any]]]:
        for mapper in self._base.registry.mappers:
            yield _path(mapper.class_), mapper.class_

    def _call(self, model: str, key: list[Any], method: str, args: list[Any], kwargs: dict[str, Any]) -> None:
        found = dict(self._models()).get(model)
        if found is None:
            raise LookupError(f"no model {model!r} is loaded here; import its module where the worker's tasks are")
        function = _public_method(found, method)
        if not args:
            args, kwargs = _signature(found, method).unbind(kwargs)  # type: ignore[assignment]
        types: list[type[Any]] = [column.type.python_type for column in class_mapper(found).primary_key]
        with self._session() as session, session.begin():
            row = session.get(found, tuple(map(msgspec.convert, key, types)))
            if row is None:
                raise Cancel(f"{found.__name__} {key} is not there any more")
            value = function(row, *args, **kwargs)
            if isinstance(value, Steer):
                raise value
            current_job().complete(session, value)


class Later:
    """A row whose methods, when they are called, become jobs."""

    def __init__(self, model: type[Any], enqueue: Callable[[str, dict[str, Json]], Job[Any]]) -> None:
        self._model = model
        self._enqueue = enqueue

    def __getattr__(self, method: str) -> Callable[..., Job[Any]]:
        signature = _signature(self._model, method)

        def later(*args: Any, **kwargs: Any) -> Job[Any]:
            return self._enqueue(method, signature.bind(args, kwargs))

        return later


def _signature(model: type[Any], method: str) -> Signature:
    """What the arguments of a method must fit, without the row itself.

    Raises:
        AttributeError: it has no such method.
        OptionError: the method is none that could run as a job of rows.
    """
    function = _public_method(model, method)
    if inspect.iscoroutinefunction(function):
        raise OptionError(f"{model.__name__}.{method} is async, and a row's session is not; write a task that calls it")
    executor_of(function, None)
    first = next(iter(inspect.signature(function).parameters), "")
    return Signature(function, f"{model.__name__}.{method}", given={first})


def _path(model: type[Any]) -> str:
    return f"{model.__module__}.{model.__qualname__}"


def _public_method(model: type[Any], name: str) -> Callable[..., Any]:
    function = inspect.getattr_static(model, name, None)
    if name.startswith("_") or not inspect.isfunction(function):
        raise AttributeError(f"{model.__name__} has no public method {name!r}")
    return function
