"""What is run of a task: its function, or that with all that it wants around it.

From the inside to the outside: its transaction, its resources, the application's middleware, the storage of its result.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
from collections.abc import AsyncGenerator, Callable
from typing import Any

from pgjobs.connections import borrowed
from pgjobs.running.current import current_job
from pgjobs.running.outcome import stored
from pgjobs.running.run import CURRENT
from pgjobs.task import Task
from pgjobs.terms import resources
from pgjobs.terms.resources import Want
from pgjobs.terms.retry import Steer

Body = Callable[..., Any]


def body_of(task: Task[..., Any, Any]) -> Body:
    """Compiles what executors call for a task; for a plain one the function itself."""
    body: Body = task.function
    is_async = inspect.iscoroutinefunction(task.function)
    if task.transaction is not None:
        body = (_awithin if is_async else _within)(task, body)
    if task.wants:
        body = (_agiven if is_async else _given)(task, body)
    body = task.around(body)
    if task.transaction is None and (task.results is not None or task.options.get("ignore_result")):
        body = (_astored if is_async else _stored)(task, body)
    return body


# -- resources


def _given(task: Task[..., Any, Any], body: Body) -> Body:
    @functools.wraps(body)
    def given(*args: Any, **kwargs: Any) -> Any:
        with contextlib.ExitStack() as stack:
            return body(*args, **kwargs, **{want.name: _open(want, stack) for want in task.wants})

    return given


def _open(want: Want, stack: contextlib.ExitStack) -> Any:
    factory = want.wanted.factory
    if factory is None:
        return resources.look_up(want, CURRENT.get().claim.desk.resources)
    inner = {each.name: _open(each, stack) for each in resources.wants_of(factory)}
    if inspect.isgeneratorfunction(factory):
        return stack.enter_context(contextlib.contextmanager(factory)(**inner))
    return factory(**inner)


def _agiven(task: Task[..., Any, Any], body: Body) -> Body:
    @functools.wraps(body)
    async def given(*args: Any, **kwargs: Any) -> Any:
        async with contextlib.AsyncExitStack() as stack:
            return await body(*args, **kwargs, **{want.name: await _aopen(want, stack) for want in task.wants})

    return given


async def _aopen(want: Want, stack: contextlib.AsyncExitStack) -> Any:
    factory = want.wanted.factory
    if factory is None:
        return resources.look_up(want, CURRENT.get().claim.desk.resources)
    inner = {each.name: await _aopen(each, stack) for each in resources.wants_of(factory)}
    if inspect.isasyncgenfunction(factory):
        return await stack.enter_async_context(contextlib.asynccontextmanager(factory)(**inner))
    if inspect.isgeneratorfunction(factory):
        return stack.enter_context(contextlib.contextmanager(factory)(**inner))
    value = factory(**inner)
    return await value if inspect.isawaitable(value) else value


# -- the transaction


def _within(task: Task[..., Any, Any], body: Body) -> Body:
    @functools.wraps(body)
    def within(*args: Any, **kwargs: Any) -> None:
        assert task.transaction is not None  # noqa: S101 - that is why we are here
        with task.transaction() as session:
            try:
                _complete(session, body(*args, **kwargs, **{task.session: session}))
            except BaseException:
                session.rollback()
                raise

    return within


def _complete(session: Any, value: Any) -> None:
    if isinstance(value, Steer):
        raise value
    current_job().complete(session, value)
    session.commit()


def _awithin(task: Task[..., Any, Any], body: Body) -> Body:
    @functools.wraps(body)
    async def within(*args: Any, **kwargs: Any) -> None:
        assert task.transaction is not None  # noqa: S101 - that is why we are here
        opened = task.transaction()
        opened = await opened if inspect.isawaitable(opened) else opened
        async with _async(opened) as session:
            try:
                await _acomplete(session, await body(*args, **kwargs, **{task.session: session}))
            except BaseException:
                await _maybe(session.rollback())
                raise

    return within


async def _acomplete(session: Any, value: Any) -> None:
    if isinstance(value, Steer):
        raise value
    await current_job().acomplete(session, value)
    await _maybe(session.commit())


@contextlib.asynccontextmanager
async def _async(opened: Any) -> AsyncGenerator[Any]:
    if not borrowed.is_async(opened):
        with opened as session:
            yield session
        return
    async with opened as session:
        yield session


async def _maybe(value: Any) -> None:
    if inspect.isawaitable(value):
        await value


# -- the result


def _stored(task: Task[..., Any, Any], body: Body) -> Body:
    @functools.wraps(body)
    def kept(*args: Any, **kwargs: Any) -> Any:
        return stored(CURRENT.get(), body(*args, **kwargs))

    return kept


def _astored(task: Task[..., Any, Any], body: Body) -> Body:
    @functools.wraps(body)
    async def kept(*args: Any, **kwargs: Any) -> Any:
        value = await body(*args, **kwargs)
        return value if value is None else await asyncio.to_thread(stored, CURRENT.get(), value)

    return kept
