"""A task: a function under a name, with the options and the signature that its jobs are checked against."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Generic, Literal, ParamSpec, TypedDict, TypeVar, Unpack, cast
from uuid import UUID

from pgjobs import codec
from pgjobs.cipher import Cipher
from pgjobs.codec import Json
from pgjobs.config import (
    DEFAULT_QUEUE,
    DEFAULT_RESULT_TTL_S,
    DEFAULT_TIMEOUT_S,
    MAX_PRIORITY,
    Duration,
    queue_name,
    seconds,
)
from pgjobs.errors import ArgumentsError, EncodingError, OptionError, TaskError
from pgjobs.handle import Job
from pgjobs.job import Template, as_id
from pgjobs.privacy import POSITIONALS
from pgjobs.producer import Producer
from pgjobs.retry import Retry
from pgjobs.signature import Signature

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C")
Executor = Literal["async", "thread", "process"]


class Options(TypedDict, total=False):
    """What can be said of a job, on the task or with ``using``; a key that is absent is unset.

    queue: its name. priority: -100…100, larger first. delay or run_at (aware): the earliest start. ttl: how long it may
    wait
    before it expires. timeout: how long one attempt may run, None for no limit. retry: a policy, or the number of
    attempts. result_ttl: how long the ended job is kept. job_id: an id of the caller's own.
    """

    queue: str
    priority: int
    delay: Duration
    run_at: datetime
    ttl: Duration
    timeout: Duration | None
    retry: Retry | int
    result_ttl: Duration
    job_id: UUID | str


def template(task: str, options: Options, *, stored_retry: bool, private: Collection[str] = ()) -> Template:
    """Merges options into what the rows will say.

    Args:
        stored_retry: keep the policy with the job, since its task does not have it.
        private: names of arguments that whoever shows the row is to leave out.

    Raises:
        OptionError: a value that cannot be meant.
    """
    retry = _retry(options.get("retry", Retry()))
    document: dict[str, Json] = {}
    if stored_retry:
        document["retry"] = retry.document()
    if (keep := options.get("result_ttl")) is not None and (
        keep_s := seconds(keep, what="result_ttl")
    ) != DEFAULT_RESULT_TTL_S:
        document["keep"] = keep_s
    if private:
        document["private"] = sorted(private)
    timeout = options.get("timeout", DEFAULT_TIMEOUT_S)
    if timeout is not None and seconds(timeout, what="timeout") == 0:
        raise OptionError("timeout is 0; give the seconds that an attempt may run, or None for no limit")
    return Template(
        task=task,
        queue=queue_name(options.get("queue", DEFAULT_QUEUE)),
        priority=_priority(options.get("priority", 0)),
        max_attempts=retry.attempts,
        timeout=_timedelta(timeout, "timeout"),
        delay=_timedelta(options.get("delay"), "delay"),
        run_at=_run_at(options),
        ttl=_timedelta(options.get("ttl"), "ttl"),
        options=codec.dumps(document, what="options") if document else None,
    )


def known_options(options: Mapping[str, object]) -> None:
    """Raises OptionError where an option is not known."""
    unknown = options.keys() - Options.__annotations__.keys()
    if unknown:
        raise OptionError(f"option {min(unknown)!r} is not known; arguments of the task go to enqueue(…)")


def _retry(value: Retry | int) -> Retry:
    return value if isinstance(value, Retry) else Retry(value)


def _timedelta(value: Duration | None, what: str) -> timedelta | None:
    return None if value is None else timedelta(seconds=seconds(value, what=what))


def _priority(value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > MAX_PRIORITY:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise OptionError(f"priority is {value!r}; give a whole number from -100 to 100, larger runs first")
    return value


def _run_at(options: Options) -> datetime | None:
    run_at = options.get("run_at")
    if run_at is None:
        return None
    if options.get("delay") is not None:
        raise OptionError("delay and run_at are both given; give one of them")
    if not isinstance(run_at, datetime) or run_at.utcoffset() is None:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise OptionError(
            f"run_at is {run_at!r}, without a time zone; pass an aware datetime, such as datetime.now(UTC)"
        )
    return run_at


class Task(Generic[P, C, R]):
    """A function under a name. Calling it runs it here and now; its ``enqueue`` makes a job of the same call.

    Of its type parameters, C is what a call returns (a coroutine, for an async function) and R what a job results in.

    Attributes:
        name: the dotted name that rows carry.
        aliases: former names, under which old rows still run.
        function: the function itself.
        executor: where it runs.
        retry: its policy.

    Args:
        cipher: seals the arguments and results of its jobs; None where they are stored open.
        private: parameters whose values are to be shown nowhere.
    """

    def __init__(
        self,
        producer: Producer,
        function: Callable[P, C],
        *,
        name: str,
        executor: Executor | None = None,
        aliases: Iterable[str] = (),
        cipher: Cipher | None = None,
        private: Collection[str] = (),
        **options: Unpack[Options],
    ) -> None:
        self.name = name
        self.function = function
        self.aliases = tuple(aliases)
        self.options = options
        self.executor: Executor = _executor(function, executor)
        self.retry = _retry(options.get("retry", Retry()))
        self.signature = Signature(function, name, cipher=cipher, private=private)
        if "job_id" in options:
            raise OptionError("job_id belongs to one job; pass it with using(job_id=…)")
        self._producer = producer
        self._template = template(name, options, stored_retry=False, private=self.signature.private)
        functools.update_wrapper(cast("Callable[..., Any]", self), function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> C:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<Task {self.name}>"

    def using(self, conn: object = None, /, **options: Unpack[Options]) -> Call[P, R]:
        """Says how the next jobs are enqueued: in whose transaction, and with which options.

        Args:
            conn: a psycopg connection or cursor, a SQLAlchemy Connection or Session, the async ones of both, or an
                asyncpg connection. Nothing is committed on it.
            **options: see Options; they go before the task's own.

        Raises:
            OptionError: a value that cannot be meant.
        """
        known_options(options)
        if not options:
            return Call(self._producer, self.signature, self._template, conn, None)
        merged = cast("Options", {**self.options, **options})
        if "delay" in options and "run_at" not in options:
            merged.pop("run_at", None)
        if "run_at" in options and "delay" not in options:
            merged.pop("delay", None)
        stored_retry = "retry" in options and not isinstance(options["retry"], int)
        row = template(self.name, merged, stored_retry=stored_retry, private=self.signature.private)
        job_id = options.get("job_id")
        return Call(self._producer, self.signature, row, conn, None if job_id is None else as_id(job_id))

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Enqueues one job, in a transaction of its own.

        Raises:
            ArgumentsError: the arguments do not fit the signature.
            EncodingError: they cannot be stored as JSON.
        """
        return self._producer.insert(self._template, _encode(self.signature, args, kwargs), None, None)

    async def aenqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """The async twin of ``enqueue``."""
        return await self._producer.ainsert(self._template, _encode(self.signature, args, kwargs), None, None)

    def enqueue_many(self, calls: Iterable[tuple[Any, ...] | Mapping[str, Any]]) -> list[UUID]:
        """Enqueues a job for each tuple of positional or dict of keyword arguments, all or none; returns their ids."""
        return self.using().enqueue_many(calls)

    async def aenqueue_many(self, calls: Iterable[tuple[Any, ...] | Mapping[str, Any]]) -> list[UUID]:
        """The async twin of ``enqueue_many``."""
        return await self.using().aenqueue_many(calls)

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """``enqueue`` under the name that Celery's users know."""
        return self.enqueue(*args, **kwargs)


class Call(Generic[P, R]):
    """A task with the options and the connection of its next jobs; ``task.using(…)`` makes it."""

    __slots__ = ("_conn", "_job_id", "_producer", "_signature", "_template")

    def __init__(
        self, producer: Producer, signature: Signature | None, row: Template, conn: object, job_id: UUID | None
    ) -> None:
        self._producer = producer
        self._signature = signature
        self._template = row
        self._conn = conn
        self._job_id = job_id

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Enqueues one job; see ``Task.enqueue``."""
        return self._producer.insert(self._template, _encode(self._signature, args, kwargs), self._conn, self._job_id)

    async def aenqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """The async twin of ``enqueue``."""
        document = _encode(self._signature, args, kwargs)
        return await self._producer.ainsert(self._template, document, self._conn, self._job_id)

    def enqueue_many(self, calls: Iterable[tuple[Any, ...] | Mapping[str, Any]]) -> list[UUID]:
        """Enqueues many jobs; see ``Task.enqueue_many``."""
        return self._producer.insert_many(self._template, self._documents(calls), self._conn)

    async def aenqueue_many(self, calls: Iterable[tuple[Any, ...] | Mapping[str, Any]]) -> list[UUID]:
        """The async twin of ``enqueue_many``."""
        return await self._producer.ainsert_many(self._template, self._documents(calls), self._conn)

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """``enqueue`` under the name that Celery's users know."""
        return self.enqueue(*args, **kwargs)

    def _documents(self, calls: Iterable[tuple[Any, ...] | Mapping[str, Any]]) -> Iterable[str]:
        if self._job_id is not None:
            raise OptionError("job_id belongs to one job; enqueue_many makes ids of its own")
        for index, call in enumerate(calls):
            try:
                if isinstance(call, Mapping):
                    yield _encode(self._signature, (), call)
                elif isinstance(call, tuple):  # pyright: ignore[reportUnnecessaryIsInstance] - a bare 42 is the usual slip
                    yield _encode(self._signature, call, {})
                else:
                    kind = type(call).__name__  # not the value, which may be private
                    raise ArgumentsError(f"a {kind} is neither a tuple nor a dict; write (value,) for one argument")
            except (ArgumentsError, EncodingError) as error:
                error.add_note(f"in call {index} of enqueue_many; no job was enqueued")
                raise


def _encode(signature: Signature | None, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    if signature is not None:
        return signature.encode(args, kwargs)
    return codec.dumps({**kwargs, POSITIONALS: list(args)} if args else dict(kwargs), what="arguments")


def _executor(function: Callable[..., Any], chosen: Executor | None) -> Executor:
    is_async = inspect.iscoroutinefunction(function)
    if chosen is None:
        return "async" if is_async else "thread"
    if chosen not in ("async", "thread", "process"):
        raise OptionError(f"executor {chosen!r} is not known; choose 'async', 'thread' or 'process'")
    if chosen != "process" and is_async != (chosen == "async"):
        kind = "an async function" if is_async else "a plain function"
        raise OptionError(f"{function.__qualname__} is {kind}, so its executor cannot be {chosen!r}")
    return chosen


def task_name(function: Callable[..., Any]) -> str:
    """The dotted name of a decorated function; a script run as ``__main__`` goes by the name it is imported under."""
    module = function.__module__
    if module == "__main__":
        main = sys.modules["__main__"]
        spec = getattr(main, "__spec__", None)
        file = getattr(main, "__file__", None)
        module = spec.name.removesuffix(".__main__") if spec else Path(file).stem if file else module
    return f"{module}.{function.__qualname__}".replace(".<locals>", "")


def reference(function: Callable[..., Any]) -> str:
    """The name ``module:function`` under which a worker finds an undecorated function.

    Raises:
        TaskError: a worker could not find it.
    """
    why: str | None = None
    name = getattr(function, "__qualname__", "")
    if not callable(function) or not inspect.isfunction(function):
        why = "is not a plain function"
    elif "<lambda>" in name:
        why = "is a lambda, which has no name to import"
    elif "<locals>" in name:
        why = "is defined inside a function, where a worker cannot import it from"
    elif function.__module__ == "__main__":
        why = "stands in the script that is running, which a worker cannot import"
    elif "." in name:
        why = "is a method; a worker could not find its object"
    if why:
        raise TaskError(
            f"{name or function!r} {why}; move it to a module that the worker loads with -A, or decorate it"
        )
    return f"{function.__module__}:{name}"
