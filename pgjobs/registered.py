"""What a task is registered with, checked: its names, where it runs, and the parameter of its session."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any, Final, Literal, cast

from pgjobs.arguments.annotations import hints_of
from pgjobs.arguments.codec import text_of
from pgjobs.connections import borrowed
from pgjobs.errors import OptionError, TaskError
from pgjobs.wording import given

Executor = Literal["async", "thread", "process", "fork"]
MAX_NAME: Final = 500
"""Characters of a task's name, which stands in every row and message."""


def check_process(executor: Executor, capture: bool, nice: int) -> None:
    """Raises OptionError where a setting of a process is asked of what has none of its own."""
    if not isinstance(capture, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise OptionError(f"capture is {given(capture)}; give True or False")
    if isinstance(nice, bool) or not isinstance(nice, int) or not 0 <= nice <= 19:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise OptionError(f"nice is {given(nice)}; give 0 to 19, where 19 gives way the most")
    if (capture or nice) and executor not in ("process", "fork"):
        raise OptionError(f"capture and nice are for executor='process' or 'fork', not for {executor!r}")


def executor_of(function: Callable[..., Any], chosen: Executor | None) -> Executor:
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise OptionError(f"{function.__qualname__} yields, and a job has one result; return a list, or a count")
    is_async = inspect.iscoroutinefunction(function)
    if chosen is None:
        return "async" if is_async else "thread"
    if chosen not in ("async", "thread", "process", "fork"):
        raise OptionError(f"executor {given(chosen)} is not known; choose 'async', 'thread', 'process' or 'fork'")
    if chosen not in ("process", "fork") and is_async != (chosen == "async"):
        kind = "an async function" if is_async else "a plain function"
        raise OptionError(f"{function.__qualname__} is {kind}, so its executor cannot be {chosen!r}")
    return chosen


def named(name: str) -> str:
    """Returns a task's name.

    Raises:
        TaskError: no row could carry it.
    """
    try:
        length = len(text_of(name, "the task's name").strip())
    except OptionError as error:
        raise TaskError(str(error)) from None
    if length > MAX_NAME:
        raise TaskError(f"the task's name has {length:,} characters; give it {MAX_NAME} at most")
    if length:
        return name
    raise TaskError("the task's name is empty; pass a task, a function, or a name such as 'app.tasks:send'")


def names_of(aliases: Iterable[str]) -> tuple[str, ...]:
    if isinstance(aliases, str) or not isinstance(aliases, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise OptionError(f"aliases is {given(aliases)}; give a list of former names")
    return tuple(map(named, aliases))


def opener_of(transaction: Any) -> Callable[[], Any] | None:
    if transaction is not None and not callable(transaction):
        raise OptionError(f"transaction is {given(transaction)}; give what opens a session, such as a sessionmaker")
    return cast("Callable[[], Any] | None", transaction)


def session_of(function: Callable[..., Any], name: str) -> str:
    """The parameter that a session or connection is passed in as."""
    parameters = list(inspect.signature(function).parameters)
    if "session" in parameters:
        return "session"
    hints = hints_of(function, include_extras=False)
    for parameter in parameters:
        if isinstance(hint := hints.get(parameter), type) and borrowed.is_connection_type(hint):
            return parameter
    raise OptionError(f"task {name!r} has a transaction, and no parameter for it; add one, such as session: Session")
