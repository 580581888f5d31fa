"""What travels with a job: context variables and the like, read where it is enqueued and set again around its runs."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Any, Final, Protocol

from pgjobs.arguments.codec import Json
from pgjobs.errors import OptionError
from pgjobs.newjob import NewJob, Prepared
from pgjobs.running.current import CurrentJob
from pgjobs.running.middleware import Middleware
from pgjobs.wording import given

TRACEPARENT: Final[ContextVar[str]] = ContextVar("traceparent")
"""The W3C trace context that this code belongs to: ``00-<trace>-<parent>-<flags>``; see TraceContext."""

TRACESTATE: Final[ContextVar[str]] = ContextVar("tracestate")

_TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")


class Carrier(Protocol):
    """Brings something from where a job is enqueued to where it runs. What it carries stands in ``options.context``."""

    def inject(self) -> Mapping[str, Json]:
        """What is to travel: names and JSON values; none where there is nothing."""
        ...

    def extract(self, context: Mapping[str, Json], /) -> AbstractContextManager[object]:
        """Sets around a run what has travelled; names that are not its own are others'."""
        ...


class Variable:
    """Carries one context variable, whose value must be JSON; where it is not set, nothing."""

    def __init__(self, variable: ContextVar[Any]) -> None:
        self._variable = variable

    def inject(self) -> Mapping[str, Json]:
        value = self._variable.get(_UNSET)
        return {} if value is _UNSET else {self._variable.name: value}

    @contextlib.contextmanager
    def extract(self, context: Mapping[str, Json]) -> Generator[None]:
        if self._variable.name not in context:
            yield
            return
        token = self._variable.set(context[self._variable.name])
        try:
            yield
        finally:
            self._variable.reset(token)


class TraceContext:
    """Carries W3C trace context: the variables TRACEPARENT and TRACESTATE, for a tracing library to read and set.

    A traceparent that is none is dropped, and the tracestate with it, as the recommendation asks for.
    """

    def inject(self) -> Mapping[str, Json]:
        if not _TRACEPARENT.fullmatch(TRACEPARENT.get("")):
            return {}
        return {**Variable(TRACEPARENT).inject(), **Variable(TRACESTATE).inject()}

    @contextlib.contextmanager
    def extract(self, context: Mapping[str, Json]) -> Generator[None]:
        parent = context.get("traceparent")
        if not isinstance(parent, str) or not _TRACEPARENT.fullmatch(parent):
            yield
            return
        with Variable(TRACEPARENT).extract(context), Variable(TRACESTATE).extract(context):
            yield


_UNSET: Final = object()


class Propagation(Middleware):
    """Runs the carriers; ``PgJobs(context=[…])`` makes it.

    What the caller gives as ``using(context=…)`` goes before what the carriers find.
    """

    def __init__(self, carriers: Iterable[ContextVar[Any] | Carrier]) -> None:
        if not isinstance(carriers, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise OptionError(f"context is {given(carriers)}; give a list, such as [locale]")
        self._carriers: list[Carrier] = [_carrier(each) for each in carriers]

    def enqueue(self, job: NewJob, call_next: Callable[[NewJob], Prepared]) -> Prepared:
        context = {name: value for carrier in self._carriers for name, value in carrier.inject().items()}
        if context:
            job.options["context"] = {**context, **job.options.get("context", {})}
        return call_next(job)

    def run(self, job: CurrentJob, call_next: Callable[[], Any]) -> Any:
        with self._restored(job):
            return call_next()

    async def arun(self, job: CurrentJob, call_next: Callable[[], Awaitable[Any]]) -> Any:
        with self._restored(job):
            return await call_next()

    @contextlib.contextmanager
    def _restored(self, job: CurrentJob) -> Generator[None]:
        context = job.context
        with contextlib.ExitStack() as stack:
            for carrier in self._carriers if context else ():
                stack.enter_context(carrier.extract(context))
            yield


def _carrier(what: object) -> Any:
    if isinstance(what, ContextVar):
        return Variable(what)  # pyright: ignore[reportUnknownArgumentType] - of whatever it is a variable
    if not (hasattr(what, "inject") and hasattr(what, "extract")):
        raise OptionError(
            f"{given(what)} cannot travel with jobs; give a ContextVar, or an object with inject and extract"
        )
    return what
