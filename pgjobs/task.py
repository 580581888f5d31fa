"""A task: a function under a name, with the options and the signature that its jobs are checked against."""

from __future__ import annotations

import copy
import functools
import itertools
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar, Unpack, cast
from uuid import UUID

from pgjobs.arguments import codec
from pgjobs.arguments.cipher import Cipher
from pgjobs.arguments.privacy import POSITIONALS
from pgjobs.arguments.signature import Signature
from pgjobs.connections.database import Database
from pgjobs.errors import ArgumentsError, EncodingError, OptionError
from pgjobs.handle import Job
from pgjobs.job import Draft, Template, as_id, new_id
from pgjobs.known import known_options, known_settings
from pgjobs.newjob import NewJob, Prepared, copied
from pgjobs.options import (
    OF_ONE_JOB,
    Options,
    TaskOptions,
    keeps_retry,
    log_level,
    merged,
    of_one_job,
    own_key,
    retry_of,
    template,
)
from pgjobs.producer import Group, Producer
from pgjobs.registered import Executor, check_process, executor_of, named, names_of, opener_of, session_of
from pgjobs.terms.callbacks import Notifying
from pgjobs.terms.resources import wants_of
from pgjobs.terms.results import RESULTS_OVER, over_of, storage_of
from pgjobs.terms.retry import exceptions

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C")
M = TypeVar("M")


class Task(Notifying, Generic[P, C, R]):
    """A function under a name. Calling it runs it here and now; its ``enqueue`` makes a job of the same call.

    Of its type parameters, C is what a call returns (a coroutine, for an async function) and R what a job results in.

    Attributes:
        name: the dotted name that rows carry.
        aliases: former names, under which old rows still run.
        function: the function itself.
        executor: where it runs.
        capture: whether what its runs write to stdout and stderr is kept.
        nice: how much its runs give way to other processes.
        retry: its policy.
        throws: exceptions that it is expected to raise now and then.
        body: what executors call; compiled by the worker, when it first meets the task.
        wants: the parameters that a worker fills.
        session: the parameter that gets the session of its transaction.
        results, results_over: where larger results are kept.
        capture_level: from which level on what its code logs is kept; None for nothing.

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
        capture: bool = False,
        nice: int = 0,
        throws: tuple[type[BaseException], ...] = (),
        **options: Unpack[TaskOptions],
    ) -> None:
        super().__init__()
        self.name = named(name)
        self.function = function
        self.aliases = names_of(aliases)
        self.options = options
        self.executor: Executor = executor_of(function, executor)
        self.capture = capture
        self.nice = nice
        known_settings(options)
        of_one_job(options)
        check_process(self.executor, capture, nice)
        self.retry = retry_of(options)
        self.throws = exceptions(throws, "throws")
        self.capture_level = log_level(options.get("capture_logs"))
        self.body: Callable[..., Any] = function
        self.compiled = False
        self.results = storage_of(options.get("results"))
        self.results_over = over_of(options.get("results_over", RESULTS_OVER))
        self.transaction = opener_of(options.get("transaction"))
        self.session = "" if self.transaction is None else session_of(function, name)
        self.wants = [want for want in wants_of(function) if want.name != self.session]
        given = {self.session, *(want.name for want in self.wants)}
        self.signature = Signature(function, name, cipher=cipher, private=private, given=given)
        self._producer = producer
        self._template = template(name, options, stored_retry=False, private=self.signature.private)
        if self._template.unique is not None:
            self._template.unique.check(self.signature.names, name)
        functools.update_wrapper(cast("Callable[..., Any]", self), function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> C:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<Task {self.name}>"

    @property
    def row(self) -> Template:
        """What the rows of its jobs say, where nothing else is asked for."""
        return self._template

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
            return Call(self._producer, self.signature, self._template, conn, own=self.options)
        own = merged(self.options, options)
        row = template(self.name, own, stored_retry=keeps_retry(options), private=self.signature.private)
        if row.unique is not None:
            row.unique.check(self.signature.names, self.name)
        return Call(self._producer, self.signature, row, conn, options, own=own)

    def around(self, body: Callable[..., Any]) -> Callable[..., Any]:
        """Puts the application's middleware around what is to run; the first one is the outermost."""
        for each in reversed(self._producer.middleware):
            body = each.wrap_run(body)
        return body

    @property
    def database(self) -> Database:
        """Where its jobs are."""
        return self._producer.database

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Enqueues one job, in a transaction of its own.

        Raises:
            ArgumentsError: the arguments do not fit the signature.
            EncodingError: they cannot be stored as JSON.
        """
        if self._producer.attended:
            return self.using().enqueue(*args, **kwargs)
        return self._producer.insert(self._template, _draft(self.signature, self._template, args, kwargs), None)

    async def aenqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """The async twin of ``enqueue``."""
        if self._producer.attended:
            return await self.using().aenqueue(*args, **kwargs)
        return await self._producer.ainsert(self._template, _draft(self.signature, self._template, args, kwargs), None)

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

    __slots__ = ("_conn", "_job_id", "_key", "_own", "_producer", "_signature", "_stored_retry", "_template")

    def __init__(
        self,
        producer: Producer,
        signature: Signature | None,
        row: Template,
        conn: object,
        options: Options | None = None,
        *,
        own: Options,
    ) -> None:
        job_id = options.get("job_id") if options else None
        self._producer = producer
        self._signature = signature
        self._template = row
        self._conn = conn
        self._own = own
        self._stored_retry = options is not None and keeps_retry(options)
        self._job_id = None if job_id is None else as_id(job_id)
        self._key = own_key(options, row.task) if options else None

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Enqueues one job; see ``Task.enqueue``."""
        if self._producer.attended:
            row, draft = self._prepared(args, kwargs)
            job = self._producer.insert(row, draft, self._conn)
            self._producer.tell(row, [job.id] if job.is_new else [])
            return job
        return self._producer.insert(self._template, self._draft(args, kwargs), self._conn)

    async def aenqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """The async twin of ``enqueue``."""
        if self._producer.attended:
            row, draft = self._prepared(args, kwargs)
            job = await self._producer.ainsert(row, draft, self._conn)
            self._producer.tell(row, [job.id] if job.is_new else [])
            return job
        return await self._producer.ainsert(self._template, self._draft(args, kwargs), self._conn)

    def enqueue_many(self, calls: Iterable[tuple[Any, ...] | Mapping[str, Any]]) -> list[UUID]:
        """Enqueues many jobs; see ``Task.enqueue_many``."""
        return self._producer.insert_many(self._groups(calls), self._conn)

    async def aenqueue_many(self, calls: Iterable[tuple[Any, ...] | Mapping[str, Any]]) -> list[UUID]:
        """The async twin of ``enqueue_many``."""
        return await self._producer.ainsert_many(self._groups(calls), self._conn)

    def broadcast(self, *args: P.args, **kwargs: P.kwargs) -> list[Job[R]]:
        """Enqueues a job for every worker process; see ``PgJobs.broadcast``."""
        row, draft = self._made(args, kwargs)
        jobs = self._producer.broadcast(row, draft, self._conn)
        self._producer.tell(row, [job.id for job in jobs])
        return jobs

    async def abroadcast(self, *args: P.args, **kwargs: P.kwargs) -> list[Job[R]]:
        """The async twin of ``broadcast``."""
        row, draft = self._made(args, kwargs)
        jobs = await self._producer.abroadcast(row, draft, self._conn)
        self._producer.tell(row, [job.id for job in jobs])
        return jobs

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """``enqueue`` under the name that Celery's users know."""
        return self.enqueue(*args, **kwargs)

    def hiding(self, names: Collection[str]) -> Call[P, R]:
        """The same call, whose rows say of these arguments that they are private: of a task that is not known here."""
        call = copy.copy(self)
        call._template = template(self._template.task, self._own, stored_retry=self._stored_retry, private=names)
        return call

    def prepare(self, *args: P.args, **kwargs: P.kwargs) -> tuple[Template, Draft, Job[R]]:
        """What ``enqueue`` would write, for somebody else to write, and the job's handle."""
        row, draft = self._made(args, kwargs)
        return row, draft, self._producer.handle(row, draft.job_id or new_id())

    def _made(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Prepared:
        if self._producer.attended:
            return self._prepared(args, kwargs)
        return Prepared(self._template, self._draft(args, kwargs))

    def _draft(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Draft:
        return _draft(self._signature, self._template, args, kwargs, self._job_id, self._key)

    def _prepared(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Prepared:
        """What a call makes, with middleware around it."""
        job = NewJob(self._template.task, args, dict(kwargs), copied(self._own))
        return self._producer.prepare(job, self._finish)

    def _finish(self, job: NewJob) -> Prepared:
        if job.options == self._own:
            row, job_id, key = self._template, self._job_id, self._key
        else:
            row, job_id, key = self._changed(job.options)
        return Prepared(row, _draft(self._signature, row, job.args, job.kwargs, job_id, key))

    def _changed(self, options: Options) -> tuple[Template, UUID | None, str | None]:
        """What options make that middleware has changed."""
        known_options(options)
        own_retry = self._stored_retry or options.get("retry") != self._own.get("retry")
        task = self._template.task
        private = () if self._signature is None else self._signature.private
        row = template(task, options, stored_retry=own_retry and keeps_retry(options), private=private)
        if row.unique is not None and self._signature is not None:
            row.unique.check(self._signature.names, task)
        job_id = options.get("job_id")
        return row, None if job_id is None else as_id(job_id), own_key(options, task)

    def _groups(self, calls: Iterable[tuple[Any, ...] | Mapping[str, Any]]) -> Iterable[Group]:
        """The calls by the templates that they share, in their order: one group, unless middleware makes more."""
        if not self._producer.gates:
            return [(self._template, self._drafts(calls, self._draft))]
        prepared = self._drafts(calls, self._prepared)
        return ((row, (each.draft for each in group)) for row, group in itertools.groupby(prepared, lambda e: e.row))

    def _drafts(
        self,
        calls: Iterable[tuple[Any, ...] | Mapping[str, Any]],
        make: Callable[[tuple[Any, ...], Mapping[str, Any]], M],
    ) -> Iterable[M]:
        for name, value in zip(OF_ONE_JOB, (self._job_id, self._key), strict=True):
            if value is not None:
                raise OptionError(f"{name} belongs to one job; leave it out of enqueue_many")
        for index, call in enumerate(calls):
            try:
                if isinstance(call, Mapping):
                    yield make((), call)
                elif isinstance(call, tuple):  # pyright: ignore[reportUnnecessaryIsInstance] - a bare 42 is the usual slip
                    yield make(call, {})
                else:
                    kind = type(call).__name__  # not the value, which may be private
                    raise ArgumentsError(f"a {kind} is neither a tuple nor a dict; write (value,) for one argument")
            except (ArgumentsError, EncodingError, OptionError) as error:
                error.args = (f"{error} (call {index} of enqueue_many, from 0; no job was enqueued)",)
                raise


def _draft(
    signature: Signature | None,
    row: Template,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    job_id: UUID | None = None,
    key: str | None = None,
) -> Draft:
    """Checks the arguments of a call, and makes of them what the row needs."""
    if signature is not None:
        bound = signature.bind(args, kwargs)
    else:
        bound = {**kwargs, POSITIONALS: list(args)} if args else dict(kwargs)
    if row.unique is not None and key is None:
        if row.unique.on_conflict == "debounce" and row.delay is None:
            raise OptionError("unique with on_conflict='debounce' moves the start by the delay; add using(delay=…)")
        whole = bound if signature is None else {**signature.defaults, **bound}
        key = row.unique.key(row.task, row.queue, whole, args, kwargs)
    text = codec.dumps(bound, what="arguments") if signature is None else signature.encode(bound)
    return Draft(text, job_id, key)


def task_name(function: Callable[..., Any]) -> str:
    """The dotted name of a decorated function; a script run as ``__main__`` goes by the name it is imported under."""
    module = function.__module__
    if module == "__main__":
        main = sys.modules["__main__"]
        spec = getattr(main, "__spec__", None)
        file = getattr(main, "__file__", None)
        module = spec.name.removesuffix(".__main__") if spec else Path(file).stem if file else module
    return f"{module}.{function.__qualname__}".replace(".<locals>", "")
