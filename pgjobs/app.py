"""PgJobs: where tasks are registered, jobs enqueued and handles come from."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Coroutine,
    Generator,
    Iterable,
    Iterator,
    Sequence,
)
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, Unpack, cast, overload
from uuid import UUID

from pgjobs.arguments.cipher import Cipher
from pgjobs.arguments.reference import reference
from pgjobs.arguments.signature import Signature
from pgjobs.config import (
    DEFAULT_FAILED_TTL_S,
    DEFAULT_RESULT_TTL_S,
    DEFAULT_SCHEMA,
    Duration,
    schema_name,
    seconds,
    switch,
)
from pgjobs.connections.database import Database
from pgjobs.controls import Controls, ids_of
from pgjobs.door import Door, Doorway
from pgjobs.errors import OptionError, TaskError, TaskNotFoundError
from pgjobs.handle import Job
from pgjobs.hooks import Hooks
from pgjobs.job import JobRow, as_id
from pgjobs.known import known_options
from pgjobs.ledger import Ledger
from pgjobs.options import Options, TaskOptions, keeps_retry, log_level, template
from pgjobs.producer import Producer
from pgjobs.registered import Executor, named
from pgjobs.report import MAX_FILE_BYTES
from pgjobs.task import Call, P, Task, task_name
from pgjobs.terms.callbacks import Notifying
from pgjobs.terms.results import RESULTS_OVER, ResultStorage, fetch, is_reference, over_of, storage_of
from pgjobs.webhooks import hosts_of, secrets_of
from pgjobs.wording import given

if TYPE_CHECKING:
    from contextvars import ContextVar

    from pgjobs.alerts import Alert
    from pgjobs.context import Carrier
    from pgjobs.events import Event
    from pgjobs.worker import Worker

R = TypeVar("R")


class TaskDecorator(Protocol):
    """What ``jobs.task(…)`` with options returns."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, Coroutine[Any, Any, R], R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R, R]: ...


class PgJobs(Doorway, Hooks, Notifying, Controls):
    """An application's job queue. Assigns only: connections are opened when they are needed.

    Args:
        database: a URL, a SQLAlchemy Engine or AsyncEngine, or a psycopg pool; None for PGJOBS_URL, DATABASE_URL or
            PG*; ``embedded:`` for a server of your own.
        schema: where the tables are; PGJOBS_SCHEMA, else pgjobs, by default.
        result_ttl, failed_ttl: how long ended jobs are kept: succeeded, cancelled and expired ones; failed ones.
        keys: Fernet keys for tasks that encrypt, the first one encrypts; PGJOBS_KEYS, with commas between, by default.
        max_file_size: bytes of the largest file that a job may attach.
        capture_logs: what the code of jobs logs through ``logging``, from this level on, is kept with the job; None
            for nothing. What loggers do not let through is not captured.
        lifespan: a generator function, or what returns a context manager, sync or async; a worker opens it when it
            starts and closes it when it stops, and tasks have what it yields: a mapping, or an object with attributes.
        results, results_over: where results of more than so many bytes are kept, see ResultStorage.
        inline: as if all stood in ``with jobs.inline():``.
        context: what travels with a job from where it is enqueued to where it runs: context variables, and carriers
            such as ``TraceContext()``; see ``pgjobs.context``.
        webhook_secret: what messages are signed with, or several while one replaces the other; PGJOBS_WEBHOOK_SECRET,
            with commas between, by default.
        webhook_hosts: workers post messages to these hosts alone, such as *.example.com; PGJOBS_WEBHOOK_HOSTS, with
            commas between, by default, else to any.
        alerts: who is told when a queue, the workers or a task are in trouble; see ``pgjobs.alerts``. Its workers judge
            them.

    Raises:
        ConfigurationError: the schema's name cannot be one, or a webhook secret, or hosts that are none.
        OptionError: a setting that cannot be meant, or two alerts have one name.
    """

    def __init__(
        self,
        database: object = None,
        *,
        schema: str | None = None,
        result_ttl: Duration = DEFAULT_RESULT_TTL_S,
        failed_ttl: Duration = DEFAULT_FAILED_TTL_S,
        keys: Sequence[str] | None = None,
        max_file_size: int = MAX_FILE_BYTES,
        capture_logs: str | int | None = None,
        lifespan: Callable[[], Any] | None = None,
        results: ResultStorage | None = None,
        results_over: int = RESULTS_OVER,
        inline: bool = False,
        context: Iterable[ContextVar[Any] | Carrier] = (),
        webhook_secret: str | Sequence[str] | None = None,
        webhook_hosts: str | Sequence[str] | None = None,
        alerts: Sequence[Alert] = (),
    ) -> None:
        super().__init__()
        self.schema = schema_name(schema or os.environ.get("PGJOBS_SCHEMA") or DEFAULT_SCHEMA)
        self.database = Database(database, self.schema)
        self.result_ttl_s = seconds(result_ttl, what="result_ttl")
        self.failed_ttl_s = seconds(failed_ttl, what="failed_ttl")
        self.max_file_bytes = over_of(max_file_size, "max_file_size")
        self.capture_logs = log_level(capture_logs)
        if lifespan is not None and not callable(lifespan):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise OptionError(
                f"lifespan is {given(lifespan)}; give a generator function, or what opens a context manager"
            )
        self.lifespan = lifespan
        self.results = storage_of(results)
        self.results_over = over_of(results_over)
        self.tasks: dict[str, Task[..., Any, Any]] = {}
        self.functions: dict[str, Callable[..., Any]] = {}
        self._signatures: dict[str, Signature] = {}
        self.cipher = Cipher(keys)
        self._ledger = Ledger(self.database, self.cipher, self.result_of, self.signature_of)
        self._producer = Producer(self.database, self._ledger)
        self.hosts = self._producer.hosts
        if switch(inline, "inline"):
            self._run_inline()
        secrets = os.environ.get("PGJOBS_WEBHOOK_SECRET", "") if webhook_secret is None else webhook_secret
        self.webhook_secrets = secrets_of(secrets)
        hosts = os.environ.get("PGJOBS_WEBHOOK_HOSTS") if webhook_hosts is None else webhook_hosts
        self.webhook_hosts = hosts_of(hosts)
        self.alerts: dict[str, Alert] = importlib.import_module("pgjobs.alerts").by_name(alerts) if alerts else {}
        if context:
            self.use(importlib.import_module("pgjobs.context").Propagation(context))

    def __repr__(self) -> str:
        return f"<PgJobs schema={self.schema}, {len(self.tasks)} tasks>"

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
        encrypt: bool = False,
        private: Collection[str] = (),
        capture: bool = False,
        nice: int = 0,
        throws: tuple[type[BaseException], ...] = (),
        **options: Unpack[TaskOptions],
    ) -> TaskDecorator: ...
    def task(
        self,
        function: Callable[..., Any] | None = None,
        *,
        name: str | None = None,
        aliases: Iterable[str] = (),
        executor: Executor | None = None,
        encrypt: bool = False,
        private: Collection[str] = (),
        capture: bool = False,
        nice: int = 0,
        throws: tuple[type[BaseException], ...] = (),
        **options: Unpack[TaskOptions],
    ) -> Any:
        """Registers a function as a task: ``@jobs.task``, or ``@jobs.task(queue="mail", timeout=30)``.

        Args:
            name: the name that rows carry; the dotted path of the function by default.
            aliases: its former names, so that rows enqueued under them still run.
            executor: ``async`` or ``thread``, by the kind of function by default; or ``process``, for what computes for
                long, crashes, or must be killed when it is over its timeout; or ``fork``, for a fresh process each run.
            capture: keep the last 64 kB of what a run writes to stdout and stderr; for processes.
            nice: how much a run gives way to other processes, 0 to 19; for processes.
            encrypt: store arguments and results encrypted, with the keys of this PgJobs.
            private: parameters whose values no message and no command shows; ``Annotated[str, Private]`` says the same.
            throws: exceptions that it is expected to raise now and then: they are logged at INFO, without a traceback,
                and fail or are tried again as any other.
            **options: its own, see TaskOptions, and those of its jobs, see Options.

        Raises:
            TaskError: the name is taken.
            OptionError: an option that cannot be meant.
        """

        def register(function: Callable[..., Any]) -> Task[..., Any, Any]:
            task: Task[..., Any, Any] = Task(
                self._producer,
                function,
                name=name or task_name(function),
                aliases=aliases,
                executor=executor,
                cipher=self.cipher if encrypt else None,
                private=private,
                capture=capture,
                nice=nice,
                throws=throws,
                **options,
            )
            self._wrap(task)
            for known in (task.name, *task.aliases):
                self._register(known, task)
            return self._with_storage(task)

        if function is not None and not callable(function):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TaskError(f"{given(function)} is no function; write @jobs.task(name=…) for a name of your own")
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
        return Door(self._find, conn, options)

    def call(self, function: object) -> Call[..., Any]:
        return self._find(function, None, {})

    def _find(self, function: object, conn: object, options: Options) -> Call[..., Any]:
        if isinstance(function, str) and function in self.tasks:
            function = self.tasks[function]
        if isinstance(function, Task):
            return cast("Call[..., Any]", function.using(conn, **options))
        if isinstance(function, str):
            name, signature = named(function), None
        else:
            name = reference(cast("Callable[..., Any]", function))
            signature = self._signature(name, cast("Callable[..., Any]", function))
        known_options(options)
        private = () if signature is None else signature.private
        row = template(name, options, stored_retry=keeps_retry(options), private=private)
        return Call(self._producer, signature, row, conn, options, own=options)

    def task_of(self, function: Callable[..., Any], name: str, **settings: Any) -> Task[..., Any, Any]:
        """Makes a task of an undecorated function, without registering it; settings are those of Task."""
        task: Task[..., Any, Any] = Task(self._producer, function, name=name, **settings)
        self._wrap(task)
        return self._with_storage(task)

    def _with_storage(self, task: Task[..., Any, Any]) -> Task[..., Any, Any]:
        if "results" not in task.options and self.results is not None:
            task.results = self.results
        if "results_over" not in task.options:
            task.results_over = self.results_over
        return task

    def result_of(self, row: JobRow) -> Any:
        """A job's result, from where it is kept, in the type that its task says, as far as it is known here."""
        task = self.tasks.get(row.task)
        value = self.cipher.loads(row.result)
        if is_reference(value):
            value = self.cipher.loads(fetch(self.results if task is None else task.results, row.id, value))
        signature = self.signature_of(row.task)
        return value if signature is None or value is None else signature.result_from_json(value)

    def signature_of(self, name: str) -> Signature | None:
        """What the arguments and the result of a task must fit, as far as it is known here."""
        task = self.tasks.get(name)
        return self._signatures.get(name) if task is None else task.signature

    def _signature(self, name: str, function: Callable[..., Any]) -> Signature:
        signature = self._signatures.get(name)
        if signature is None:
            signature = self._signatures[name] = Signature(function, name)
            self.functions[name] = function
        return signature

    # -- jobs

    def job(self, job_id: UUID | str) -> Job[Any]:
        """Reads a job.

        Raises:
            JobNotFoundError: it is not there.
        """
        row = self._ledger.fetch(as_id(job_id))
        return Job(self._ledger, row.id, row.task, row)

    async def ajob(self, job_id: UUID | str) -> Job[Any]:
        """The async twin of ``job``."""
        row = await self._ledger.afetch(as_id(job_id))
        return Job(self._ledger, row.id, row.task, row)

    def wait(self, jobs: Iterable[UUID | str | Job[Any]], timeout: Duration | None = None) -> list[Job[Any]]:
        """Waits until all these jobs have ended; returns them as they stand then, in the order given.

        Raises:
            BlockingError: a coroutine job has called it; ``await_`` is for those.
            ResultTimeoutError: one of them had not ended in time.
            JobNotFoundError: one of them is not there.
        """
        return [
            Job(self._ledger, row.id, row.task, row, settled=True)
            for row in self._ledger.await_all(ids_of(jobs), timeout)
        ]

    async def await_(self, jobs: Iterable[UUID | str | Job[Any]], timeout: Duration | None = None) -> list[Job[Any]]:
        """The async twin of ``wait``."""
        rows = await self._ledger.aawait_all(ids_of(jobs), timeout)
        return [Job(self._ledger, row.id, row.task, row, settled=True) for row in rows]

    def as_completed(
        self, jobs: Iterable[UUID | str | Job[Any]], timeout: Duration | None = None
    ) -> Iterator[Job[Any]]:
        """Yields each of these jobs when it has ended, first come, first served; tens of thousands need few questions.

        Raises:
            BlockingError: a coroutine job has called it; ``aas_completed`` is for those.
            ResultTimeoutError: one of them had not ended in time.
            JobNotFoundError: one of them is not there.
        """
        for row in self._ledger.as_completed(ids_of(jobs), timeout):
            yield Job(self._ledger, row.id, row.task, row, settled=True)

    async def aas_completed(
        self, jobs: Iterable[UUID | str | Job[Any]], timeout: Duration | None = None
    ) -> AsyncIterator[Job[Any]]:
        """The async twin of ``as_completed``: ``async for job in jobs.aas_completed(…)``."""
        async for row in self._ledger.aas_completed(ids_of(jobs), timeout):
            yield Job(self._ledger, row.id, row.task, row, settled=True)

    def cancel(self, jobs: Iterable[UUID | str | Job[Any]], reason: str = "cancelled") -> dict[UUID, str]:
        """Cancels many jobs at once; see ``Job.cancel``.

        Returns:
            The statuses of those that were not over: ``cancelled``, or ``running`` until they have stopped.
        """
        return self._ledger.cancel(ids_of(jobs), reason)

    async def acancel(self, jobs: Iterable[UUID | str | Job[Any]], reason: str = "cancelled") -> dict[UUID, str]:
        """The async twin of ``cancel``."""
        return await self._ledger.acancel(ids_of(jobs), reason)

    def retry(self, jobs: Iterable[UUID | str | Job[Any]]) -> list[UUID]:
        """Queues many ended jobs again; see ``Job.retry``. Returns those that had ended."""
        return self._ledger.retry(ids_of(jobs))

    async def aretry(self, jobs: Iterable[UUID | str | Job[Any]]) -> list[UUID]:
        """The async twin of ``retry``."""
        return await self._ledger.aretry(ids_of(jobs))

    def delete(self, jobs: Iterable[UUID | str | Job[Any]]) -> list[UUID]:
        """Deletes many jobs; see ``Job.delete``. Returns those that were there."""
        return self._ledger.delete(ids_of(jobs))

    async def adelete(self, jobs: Iterable[UUID | str | Job[Any]]) -> list[UUID]:
        """The async twin of ``delete``."""
        return await self._ledger.adelete(ids_of(jobs))

    # -- life

    @contextlib.contextmanager
    def inline(self, resources: object = None) -> Generator[None]:
        """While the block lasts, ``enqueue`` runs its job at once, in this process and without a database: for tests.

        Other threads do the same. A failed attempt is followed by the next one without a rest; ``get`` returns the
        result or raises as it does elsewhere. Nothing waits, so delays, unique keys and timeouts mean nothing, and a
        connection that is given is not used.

        Args:
            resources: what tasks are given in place of what the lifespan yields: a mapping, or an object.
        """
        before = self._producer.inline, self._ledger
        self._run_inline(resources)
        try:
            yield
        finally:
            self._producer.inline, self._ledger = before

    def _run_inline(self, resources: object = None) -> None:
        """Bound late, as ``worker`` is."""
        runner = importlib.import_module("pgjobs.running.inline").Inline(self, resources)
        self._producer.inline, self._ledger = runner, runner.memory

    def worker(self, *, emit: Callable[[Event], None] | None = None, **settings: Any) -> Worker:
        """Makes a worker that runs in this process: ``with jobs.worker(queues="mail"):``.

        The one call up the layers; bound late, so that producers do not load the worker.

        Args:
            emit: takes what happens in it, in place of the log.
            **settings: see ``pgjobs.worker.WorkerSettings``.

        Raises:
            OptionError: a setting that cannot be meant.
        """
        room = importlib.import_module("pgjobs.worker")
        worker: Worker = room.Worker(self, room.WorkerSettings(**settings), emit=emit)
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
        self._ledger.close()
        self.database.close()

    async def aclose(self) -> None:
        """The async twin of ``close``; closes the running loop's connections too."""
        self._ledger.close()
        await self.database.aclose()


def _identity(function: Callable[..., Any]) -> tuple[str, str]:
    return function.__module__, function.__qualname__
