"""PgJobs: where tasks are registered, jobs enqueued and handles come from."""

from __future__ import annotations

import asyncio
import functools
import importlib
import itertools
import os
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, Unpack, cast, overload
from uuid import UUID

from psycopg import errors

from pgjobs import borrowed, embedded, statements
from pgjobs.config import DEFAULT_FAILED_TTL_S, DEFAULT_RESULT_TTL_S, DEFAULT_SCHEMA, Duration, find_url, normal_url
from pgjobs.config import schema_name, seconds
from pgjobs.database import Database
from pgjobs.errors import JobExistsError, JobFailedError, JobNotFoundError, JobStateError, OptionError
from pgjobs.errors import ResultTimeoutError, TaskError, TaskNotFoundError
from pgjobs.handle import Job
from pgjobs.job import FailureRow, JobRow, Status, Template, new_id, new_ids
from pgjobs.signature import Signature
from pgjobs.task import Call, Executor, Options, P, Task, reference, task_name, template

if TYPE_CHECKING:
    from pgjobs.worker import Worker

C = TypeVar("C")
R = TypeVar("R")

CHUNK: Final = 1_000
"""Rows in one INSERT of a bulk enqueue; from this many on a psycopg connection takes them by COPY."""

_POLLS_S: Final = (0.002, 0.005, 0.01, 0.02, 0.05)


class TaskDecorator(Protocol):
    """What ``jobs.task(…)`` with options returns."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, Coroutine[Any, Any, R], R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R, R]: ...


class PgJobs:
    """An application's job queue. Assigns only: connections are opened when they are needed.

    Args:
        database: a URL, a SQLAlchemy Engine or AsyncEngine, or a psycopg pool; None for PGJOBS_URL, DATABASE_URL or PG*;
            ``embedded:`` for a server of your own.
        schema: where the tables are; PGJOBS_SCHEMA, else pgjobs, by default.
        result_ttl, failed_ttl: how long ended jobs are kept: succeeded, cancelled and expired ones; failed ones.

    Raises:
        ConfigurationError: no database is named, or the schema's name cannot be one.
    """

    def __init__(
        self,
        database: object = None,
        *,
        schema: str | None = None,
        result_ttl: Duration = DEFAULT_RESULT_TTL_S,
        failed_ttl: Duration = DEFAULT_FAILED_TTL_S,
    ) -> None:
        self._source = database
        self.schema = schema_name(schema or os.environ.get("PGJOBS_SCHEMA") or DEFAULT_SCHEMA)
        self.result_ttl_s = seconds(result_ttl, what="result_ttl")
        self.failed_ttl_s = seconds(failed_ttl, what="failed_ttl")
        self.tasks: dict[str, Task[..., Any, Any]] = {}
        self.functions: dict[str, Callable[..., Any]] = {}
        self._signatures: dict[str, Signature] = {}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<PgJobs {self.database.where} schema={self.schema}>"

    @functools.cached_property
    def database(self) -> Database:
        """The database, found when it is first needed, so that importing an application needs none."""
        return _database(self._source, self.schema)

    # -- tasks

    @overload
    def task(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, Coroutine[Any, Any, R], R]: ...
    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R, R]: ...
    @overload
    def task(
        self,
        *,
        name: str | None = None,
        aliases: Iterable[str] = (),
        executor: Executor | None = None,
        **options: Unpack[Options],
    ) -> TaskDecorator: ...
    def task(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        aliases: Iterable[str] = (),
        executor: Executor | None = None,
        **options: Unpack[Options],
    ) -> Any:
        """Registers a function as a task: ``@jobs.task``, or ``@jobs.task(queue="mail", timeout=30)``.

        Args:
            name: the name that rows carry; the dotted path of the function by default.
            aliases: its former names, so that rows enqueued under them still run.
            executor: ``async`` or ``thread``; by the kind of function by default.
            **options: the options of its jobs, see Options.

        Raises:
            TaskError: the name is taken.
            OptionError: an option that cannot be meant.
        """

        def register(function: Callable[..., Any]) -> Task[..., Any, Any]:
            task: Task[..., Any, Any] = Task(
                self, function, name=name or task_name(function), aliases=aliases, executor=executor, **options
            )
            for known in (task.name, *task.aliases):
                self._register(known, task)
            return task

        return register if function is None else register(function)

    def _register(self, name: str, task: Task[..., Any, Any]) -> None:
        taken = self.tasks.get(name)
        if taken is not None and _identity(taken.function) != _identity(task.function):
            raise TaskError(
                f"task name {name!r} is taken by {taken.function.__module__}.{taken.function.__qualname__}; "
                "give one of them another name="
            )
        self.tasks[name] = task

    # -- enqueue

    def using(self, conn: object = None, /, **options: Unpack[Options]) -> Door:
        """Says how the next jobs are enqueued: in whose transaction, and with which options; see ``Task.using``."""
        return Door(self, conn, options)

    def enqueue(self, function: Callable[..., R] | Task[..., Any, R] | str, /, *args: Any, **kwargs: Any) -> Job[R]:
        """Enqueues a call of a task, of an importable function, or of what a path names (``module:function`` or a task's name).

        Raises:
            TaskError: a worker could not find the function.
            ArgumentsError, EncodingError: see ``Task.enqueue``.
        """
        return self.using().enqueue(function, *args, **kwargs)

    async def aenqueue(
        self, function: Callable[..., R] | Task[..., Any, R] | str, /, *args: Any, **kwargs: Any
    ) -> Job[R]:
        """The async twin of ``enqueue``."""
        return await self.using().aenqueue(function, *args, **kwargs)

    def call(self, function: object, conn: object, options: Options) -> Call[..., Any]:
        """Finds what is to be called, and how its jobs are enqueued."""
        if isinstance(function, str) and function in self.tasks:
            function = self.tasks[function]
        if isinstance(function, Task):
            return cast("Call[..., Any]", function.using(conn, **options))
        if isinstance(function, str):
            name, signature = function, None
            if not name.strip():
                raise TaskError("the task's name is empty; pass a task, a function, or a name such as 'app.tasks:send'")
        else:
            name = reference(cast("Callable[..., Any]", function))
            signature = self._signature(name, cast("Callable[..., Any]", function))
        unknown = options.keys() - Options.__annotations__.keys()
        if unknown:
            raise OptionError(f"option {min(unknown)!r} is not known; arguments of the task go to enqueue(…)")
        row = template(name, options, stored_retry="retry" in options and not isinstance(options["retry"], int))
        return Call(self, signature, row, conn, cast("UUID | None", options.get("job_id")))

    def _signature(self, name: str, function: Callable[..., Any]) -> Signature:
        signature = self._signatures.get(name)
        if signature is None:
            signature = self._signatures[name] = Signature(function, name)
            self.functions[name] = function
        return signature

    def insert(self, row: Template, args: str, conn: object, job_id: UUID | None) -> Job[Any]:
        """Writes one row, and wakes a worker if one is idle."""
        new = job_id or new_id()
        with _AlreadyThere(new, given=job_id is not None, own=conn is None):
            if self.database.run(statements.enqueue(row, new, args), conn):
                self.database.run(statements.notify(f"queued {row.queue}"), conn)
        return Job(self, new, row.task, conn=conn)

    async def ainsert(self, row: Template, args: str, conn: object, job_id: UUID | None) -> Job[Any]:
        """The async twin of ``insert``."""
        new = job_id or new_id()
        with _AlreadyThere(new, given=job_id is not None, own=conn is None):
            if await self.database.arun(statements.enqueue(row, new, args), conn):
                await self.database.arun(statements.notify(f"queued {row.queue}"), conn)
        return Job(self, new, row.task, conn=conn)

    def insert_many(self, row: Template, args: Iterable[str], conn: object) -> list[UUID]:
        """Writes many rows, all or none, and wakes a worker if one is idle; returns their ids in order."""
        ids: list[UUID] = []
        if conn is None:
            with self.database.connection() as own, own.transaction():
                self._fill(row, args, own, ids)
        else:
            self._fill(row, args, conn, ids)
        if ids and not row.waits and self.database.run(statements.somebody_idle(row.queue), conn):
            self.database.run(statements.notify(f"queued {row.queue}"), conn)
        return ids

    def _fill(self, row: Template, args: Iterable[str], conn: object, ids: list[UUID]) -> None:
        rest = iter(args)
        first = list(itertools.islice(rest, CHUNK))
        target = borrowed.copier(conn, borrowed.kind_of(conn))
        if target is not None and len(first) == CHUNK and _can_copy(row):
            with target.cursor() as cursor, cursor.copy(statements.copy().text(self.schema)) as stream:
                for chunk, new in _chunks(first, rest):
                    ids += new
                    stream.write(_copy_lines(row, new, chunk))
            return
        for chunk, new in _chunks(first, rest):
            ids += new
            self.database.run(statements.enqueue_many(row, new, chunk), conn)

    async def ainsert_many(self, row: Template, args: Iterable[str], conn: object) -> list[UUID]:
        """The async twin of ``insert_many``."""
        ids: list[UUID] = []
        if conn is None:
            async with self.database.aconnection() as own, own.transaction():
                await self._afill(row, args, own, ids)
        else:
            await self._afill(row, args, conn, ids)
        if ids and not row.waits and await self.database.arun(statements.somebody_idle(row.queue), conn):
            await self.database.arun(statements.notify(f"queued {row.queue}"), conn)
        return ids

    async def _afill(self, row: Template, args: Iterable[str], conn: object, ids: list[UUID]) -> None:
        rest = iter(args)
        first = list(itertools.islice(rest, CHUNK))
        target = borrowed.copier(conn, borrowed.kind_of(conn))
        if target is not None and len(first) == CHUNK and _can_copy(row):
            async with target.cursor() as cursor, cursor.copy(statements.copy().text(self.schema)) as stream:
                for chunk, new in _chunks(first, rest):
                    ids += new
                    await stream.write(_copy_lines(row, new, chunk))
            return
        for chunk, new in _chunks(first, rest):
            ids += new
            await self.database.arun(statements.enqueue_many(row, new, chunk), conn)

    # -- jobs

    def job(self, job_id: UUID | str) -> Job[Any]:
        """Reads a job.

        Raises:
            JobNotFoundError: it is not there.
        """
        row = self.fetch(_uuid(job_id))
        return Job(self, row.id, row.task, row)

    async def ajob(self, job_id: UUID | str) -> Job[Any]:
        """The async twin of ``job``."""
        row = await self.afetch(_uuid(job_id))
        return Job(self, row.id, row.task, row)

    def fetch(self, job_id: UUID, conn: object = None) -> JobRow:
        """Reads a row."""
        return _found(job_id, self.database.run(statements.job(job_id), _usable(conn)))

    async def afetch(self, job_id: UUID, conn: object = None) -> JobRow:
        """The async twin of ``fetch``."""
        return _found(job_id, await self.database.arun(statements.job(job_id), _usable(conn)))

    def failures_of(self, job_id: UUID) -> list[FailureRow]:
        """Reads the failed attempts of a job."""
        return self.database.run(statements.failures(job_id))

    async def afailures_of(self, job_id: UUID) -> list[FailureRow]:
        """The async twin of ``failures_of``."""
        return await self.database.arun(statements.failures(job_id))

    def await_result(self, job_id: UUID, timeout: Duration | None) -> JobRow:
        """Waits until a job has ended; see ``Job.get``."""
        for row, rest_s in self._polls(job_id, timeout, lambda: self.fetch(job_id)):
            if row.status is Status.SUCCEEDED:
                return row
            if row.status.ended:
                raise _failed(row, self.failures_of(job_id))
            time.sleep(rest_s)
        raise AssertionError("unreachable")

    async def aawait_result(self, job_id: UUID, timeout: Duration | None) -> JobRow:
        """The async twin of ``await_result``."""
        deadline = _deadline(timeout)
        for rest_s in itertools.chain(_POLLS_S, itertools.repeat(_POLLS_S[-1])):
            row = await self.afetch(job_id)
            if row.status is Status.SUCCEEDED:
                return row
            if row.status.ended:
                raise _failed(row, await self.afailures_of(job_id))
            _in_time(row, timeout, deadline)
            await asyncio.sleep(rest_s)
        raise AssertionError("unreachable")

    def _polls(
        self, job_id: UUID, timeout: Duration | None, read: Callable[[], JobRow]
    ) -> Iterator[tuple[JobRow, float]]:
        deadline = _deadline(timeout)
        for rest_s in itertools.chain(_POLLS_S, itertools.repeat(_POLLS_S[-1])):
            row = read()
            if not row.status.ended:
                _in_time(row, timeout, deadline)
            yield row, rest_s

    def retry_job(self, job_id: UUID) -> None:
        """Queues an ended job again; see ``Job.retry``."""
        self._tell(job_id, self.database.run(statements.retry(job_id)))

    async def aretry_job(self, job_id: UUID) -> None:
        """The async twin of ``retry_job``."""
        requeued = await self.database.arun(statements.retry(job_id))
        if requeued is None:
            _not_ended(await self.afetch(job_id))
        elif requeued[1]:
            await self.database.arun(statements.notify(f"queued {requeued[0]}"))

    def _tell(self, job_id: UUID, requeued: tuple[str, bool] | None) -> None:
        if requeued is None:
            _not_ended(self.fetch(job_id))
        elif requeued[1]:
            self.database.run(statements.notify(f"queued {requeued[0]}"))

    # -- life

    def worker(self, **settings: Any) -> Worker:
        """Makes a worker that runs in this process: ``with jobs.worker(queues="mail"):``; see ``pgjobs.worker.Worker``.

        The one call up the layers; bound late, so that producers do not load the worker.
        """
        worker: Worker = importlib.import_module("pgjobs.worker").Worker(self, **settings)
        return worker

    def find_task(self, name: str) -> Task[..., Any, Any]:
        """Returns the task of a name.

        Raises:
            TaskNotFoundError: none is registered under it.
        """
        try:
            return self.tasks[name]
        except KeyError:
            raise TaskNotFoundError(f"task {name!r} is not registered; import its module or pass -A") from None

    def close(self) -> None:
        """Closes the connections of this process; the next use opens new ones."""
        if "database" in self.__dict__:
            self.database.close()

    async def aclose(self) -> None:
        """The async twin of ``close``; closes the running loop's connections too."""
        if "database" in self.__dict__:
            await self.database.aclose()


class Door:
    """``jobs.using(…)``: enqueues any function or path with the options and the connection given."""

    __slots__ = ("_conn", "_jobs", "_options")

    def __init__(self, jobs: PgJobs, conn: object, options: Options) -> None:
        self._jobs = jobs
        self._conn = conn
        self._options = options

    def enqueue(self, function: Callable[..., R] | Task[..., Any, R] | str, /, *args: Any, **kwargs: Any) -> Job[R]:
        """Enqueues one call; see ``PgJobs.enqueue``."""
        return self._jobs.call(function, self._conn, self._options).enqueue(*args, **kwargs)

    async def aenqueue(
        self, function: Callable[..., R] | Task[..., Any, R] | str, /, *args: Any, **kwargs: Any
    ) -> Job[R]:
        """The async twin of ``enqueue``."""
        return await self._jobs.call(function, self._conn, self._options).aenqueue(*args, **kwargs)

    def enqueue_many(
        self,
        function: Callable[..., R] | Task[..., Any, R] | str,
        /,
        calls: Iterable[tuple[Any, ...] | Mapping[str, Any]],
    ) -> list[UUID]:
        """Enqueues many calls of one function; see ``Task.enqueue_many``."""
        return self._jobs.call(function, self._conn, self._options).enqueue_many(calls)

    async def aenqueue_many(
        self,
        function: Callable[..., R] | Task[..., Any, R] | str,
        /,
        calls: Iterable[tuple[Any, ...] | Mapping[str, Any]],
    ) -> list[UUID]:
        """The async twin of ``enqueue_many``."""
        return await self._jobs.call(function, self._conn, self._options).aenqueue_many(calls)


class Queue:
    """A thin door to one queue, for those who come from RQ: ``Queue(connection=…).enqueue(function, 'argument')``.

    Args:
        name: the queue.
        connection: a PgJobs, a URL, or a connection (whose transaction the jobs then share); None for the environment.
    """

    def __init__(self, name: str = "default", connection: object = None) -> None:
        self.name = name
        self._conn: object = None
        if isinstance(connection, PgJobs):
            self.jobs = connection
        elif connection is None or isinstance(connection, str) or _is_source(connection):
            self.jobs = PgJobs(connection)
        else:
            borrowed.kind_of(connection)
            self.jobs = PgJobs()
            self._conn = connection

    def using(self, conn: object = None, /, **options: Unpack[Options]) -> Door:
        """Says how the next jobs are enqueued; see ``Task.using``."""
        merged = cast("Options", {"queue": self.name, **options})
        return Door(self.jobs, self._conn if conn is None else conn, merged)

    def enqueue(self, function: Callable[..., R] | Task[..., Any, R] | str, /, *args: Any, **kwargs: Any) -> Job[R]:
        """Enqueues one call; see ``PgJobs.enqueue``."""
        return self.using().enqueue(function, *args, **kwargs)

    async def aenqueue(
        self, function: Callable[..., R] | Task[..., Any, R] | str, /, *args: Any, **kwargs: Any
    ) -> Job[R]:
        """The async twin of ``enqueue``."""
        return await self.using().aenqueue(function, *args, **kwargs)


class _AlreadyThere:
    """Tells a re-sent INSERT, whose first reply was lost, from an id that the caller has used before."""

    def __init__(self, job_id: UUID, *, given: bool, own: bool) -> None:
        self._job_id = job_id
        self._given = given
        self._own = own

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, errors.UniqueViolation) or error.diag.constraint_name != "jobs_pkey":
            return False
        if self._given:
            raise JobExistsError(self._job_id) from error
        return self._own


def _database(source: object, schema: str) -> Database:
    if source is None:
        return Database(embedded.resolve(find_url()), schema)
    if isinstance(source, str):
        return Database(embedded.resolve(normal_url(source)), schema)
    kind = _is_source(source)
    given = cast("Any", source)
    if kind == "engine":
        return Database(normal_url(given.url.render_as_string(hide_password=False)), schema)
    if kind == "pool":
        return Database(given.conninfo, schema, pool=given)
    if kind == "async-pool":
        return Database(given.conninfo, schema, async_pool=given)
    raise OptionError(f"{type(source).__name__} is no database; pass a URL, an Engine, an AsyncEngine or a psycopg pool")


def _is_source(value: object) -> str | None:
    names = {
        ("sqlalchemy", "Engine"): "engine",
        ("sqlalchemy", "AsyncEngine"): "engine",
        ("psycopg_pool", "ConnectionPool"): "pool",
        ("psycopg_pool", "AsyncConnectionPool"): "async-pool",
    }
    for cls in type(value).__mro__:
        if kind := names.get((cls.__module__.split(".")[0], cls.__name__)):
            return kind
    return None


def _identity(function: Callable[..., Any]) -> tuple[str, str]:
    return function.__module__, function.__qualname__


def _usable(conn: object) -> object:
    """A handle's connection while its transaction may be open; another one once it is closed."""
    if conn is None or getattr(conn, "closed", False) or getattr(conn, "is_active", True) is False:
        return None
    return conn


def _can_copy(row: Template) -> bool:
    return not row.waits and row.ttl is None


def _chunks(first: list[str], rest: Iterator[str]) -> Iterator[tuple[list[str], list[UUID]]]:
    chunk = first
    while chunk:
        yield chunk, new_ids(len(chunk))
        chunk = list(itertools.islice(rest, CHUNK))


def _copy_lines(row: Template, ids: list[UUID], args: list[str]) -> str:
    r"""Rows in COPY's text format: a tab between columns, backslashes doubled, \N for NULL."""
    timeout = r"\N" if row.timeout is None else f"{row.timeout.total_seconds()} seconds"
    options = r"\N" if row.options is None else row.options.replace("\\", "\\\\")
    before = f"\t{_copy_text(row.task)}\t{row.queue}\t{row.priority}\t{row.max_attempts}\t{timeout}\t"
    after = f"\t{options}\n"
    return "".join(
        f"{new}{before}{document.replace(chr(92), chr(92) * 2) if chr(92) in document else document}{after}"
        for new, document in zip(ids, args, strict=True)
    )


def _copy_text(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def _uuid(value: UUID | str) -> UUID:
    try:
        return value if isinstance(value, UUID) else UUID(value)
    except ValueError:
        raise OptionError(f"job id {value!r} is not a UUID") from None


def _found(job_id: UUID, row: JobRow | None) -> JobRow:
    if row is None:
        raise JobNotFoundError(job_id)
    return row


def _not_ended(row: JobRow) -> None:
    raise JobStateError(f"job {row.id} is {row.status.value}; only one that has ended can be retried")


def _deadline(timeout: Duration | None) -> float | None:
    return None if timeout is None else time.monotonic() + seconds(timeout, what="timeout")


def _in_time(row: JobRow, timeout: Duration | None, deadline: float | None) -> None:
    if deadline is not None and timeout is not None and time.monotonic() >= deadline:
        raise ResultTimeoutError(row.id, row.status.value, seconds(timeout))


def _failed(row: JobRow, failures: list[FailureRow]) -> JobFailedError:
    last = failures[-1] if failures and row.status is Status.FAILED else None
    if last is None:
        return JobFailedError(row.id, row.status.value, row.reason)
    return JobFailedError(row.id, row.status.value, row.reason, last.exception, last.message, last.traceback)
