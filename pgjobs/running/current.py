"""The job that runs here, as its own code sees it."""

from __future__ import annotations

import asyncio
import math
import mimetypes
import os
import time
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar, Unpack, cast, overload
from uuid import UUID

from pgjobs import statements
from pgjobs.arguments import codec
from pgjobs.arguments.codec import Json
from pgjobs.config import Duration, seconds
from pgjobs.connections import borrowed
from pgjobs.errors import NoCurrentJobError, OptionError
from pgjobs.handle import Job
from pgjobs.options import Options, level_name, words_of
from pgjobs.report import MAX_LINE, Child, Desk
from pgjobs.running.following import Following
from pgjobs.running.outcome import result_text, storable, stored
from pgjobs.running.run import CURRENT, Run, lost
from pgjobs.statements import Statement
from pgjobs.task import P, Task
from pgjobs.wording import given

R = TypeVar("R")

MAX_FILE_NAME: Final = 255


def current_job() -> CurrentJob:
    """Returns the job that this thread or coroutine runs.

    Raises:
        NoCurrentJobError: none does.
    """
    try:
        return CurrentJob(CURRENT.get())
    except LookupError:
        raise NoCurrentJobError from None


class CurrentJob:
    """The running job: who it is, and how it completes within the application's transaction."""

    __slots__ = ("_run",)

    def __init__(self, run: Run) -> None:
        self._run = run

    def __repr__(self) -> str:
        return f"<CurrentJob {self.id} {self.task} attempt {self.attempt}>"

    @property
    def id(self) -> UUID:
        """The job's id: the same in every attempt."""
        return self._run.id

    @property
    def task(self) -> str:
        """The name under which it was enqueued."""
        return self._run.task_name

    @property
    def queue(self) -> str:
        """Its queue."""
        return self._run.queue

    @property
    def priority(self) -> int:
        """Its priority."""
        return self._run.priority

    @property
    def attempt(self) -> int:
        """Which attempt this is; 1 is the first."""
        return self._run.attempt

    @property
    def max_attempts(self) -> int:
        """How many it has."""
        return self._run.max_attempts

    @property
    def crashes(self) -> int:
        """How many times a process has died while it ran this job."""
        return self._run.crashes

    @property
    def is_cancelled(self) -> bool:
        """Whether somebody has cancelled the job: a thread looks now and then, and raises Cancel or returns."""
        return self._run.cancelled

    @property
    def args(self) -> dict[str, Json]:
        """Its arguments as stored; decrypted where the task encrypts them."""
        return self._run.task.signature.opened(self._run.args)

    @property
    def context(self) -> dict[str, Json]:
        """What has travelled with the job for the application's carriers."""
        return (self._run.options or {}).get("context") or {}

    @property
    def created_at(self) -> datetime:
        """When it was enqueued, by the database's clock."""
        return self._run.created_at

    @property
    def deadline(self) -> datetime | None:
        """When all of its attempts must be over, by the database's clock; None without a deadline."""
        after_s = (self._run.options or {}).get("deadline")
        return None if after_s is None else self._run.created_at + timedelta(seconds=after_s)

    @property
    def is_late(self) -> bool:
        """Whether it runs although its ttl has passed: ``on_expiry="run"``."""
        ttl_s = (self._run.options or {}).get("late")
        return ttl_s is not None and self._run.since_s("age") > ttl_s

    @property
    def claim_id(self) -> UUID:
        """The claim that this run works under."""
        return self._run.claim.id

    @property
    def remaining_s(self) -> float | None:
        """Seconds until its timeout, or its deadline if that is sooner; None without either."""
        if self._run.timeout_s is None:
            return None
        return self._run.begun + self._run.timeout_s - time.perf_counter()

    def extend(self, more: Duration) -> None:
        """Gives this attempt more time: its timeout ends so much later, though never after the job's deadline.

        Without a timeout it has all the time there is.
        """
        run, more_s = self._run, seconds(more, what="extend")
        if run.timeout_s is not None:
            longest_s = run.left_s + time.perf_counter() - run.begun
            self._desk.extend(run, max(0.0, min(more_s, longest_s - run.timeout_s)))

    # -- what it says while it runs

    def progress(self, done: float, total: float | None = None, note: str | None = None) -> None:
        """Says how far the job has come: column ``progress``, ``job.progress``.

        It is kept in memory and written about twice a second, so it may be called as often as one likes; the last one
        is there when the job has ended.

        Raises:
            OptionError: done or total is no number.
        """
        for name, number in (("done", done), ("total", 0 if total is None else total)):
            if not _is_number(number):
                raise OptionError(f"{name} is {given(number)}; give a number")
        value: dict[str, Json] = {"done": done}
        if total is not None:
            value["total"] = total
        if note is not None:
            value["note"] = storable(str(note))[:MAX_LINE]
        self._desk.progress(self._run, value)

    def log(self, line: object, level: str | int = "info") -> None:
        """Keeps a line with the job: table ``pgjobs.logs``, ``job.logs()``, ``pgjobs jobs logs``.

        Written in batches, about twice a second; at once when the job ends.

        Raises:
            OptionError: the level is none of logging's.
        """
        self._desk.line(self._run, level_name(level), storable(str(line)))

    @property
    def meta(self) -> dict[str, Json]:
        """What was given with ``using(meta=…)``, with what ``set_meta`` has changed."""
        return dict(self._run.meta or {}) if _is_object(self._run.meta) else {}

    @property
    def tags(self) -> list[str]:
        """The words that the job is found by."""
        tags = self.meta.get("tags")
        return [str(word) for word in cast("list[object]", tags)] if isinstance(tags, list) else []

    def set_meta(self, **changes: Json) -> None:
        """Changes some keys of the job's meta, in column ``meta`` within half a second; the others stay.

        The values are taken as they are now: what becomes of a list later changes nothing.

        Raises:
            EncodingError: a value that JSON cannot hold, or meta has become too large.
            OptionError: tags are no list of words, or SQL has given the job a meta that is no JSON object.
        """
        if self._run.meta is not None and not _is_object(self._run.meta):
            raise OptionError(
                f"the job's meta is {given(self._run.meta)}, which has no keys; enqueue it with an object"
            )
        if "tags" in changes:
            changes["tags"] = words_of(changes["tags"])
        taken = codec.loads(codec.dumps(changes, what="meta"))
        codec.dumps({**self.meta, **taken}, what="meta")
        self._desk.meta(self._run, taken)

    # -- files

    def attach(
        self,
        name: str,
        data: bytes | str | os.PathLike[str],
        content_type: str | None = None,
        *,
        conn: object = None,
    ) -> None:
        """Stores a file with the job, in place of one with the same name: table ``pgjobs.files``, ``job.file(name)``.

        Args:
            data: bytes, a text, or the path of a file.
            content_type: by the name's ending if not given.
            conn: the connection or session of the application's transaction, for the file to commit with it.

        Raises:
            OptionError: it is too large or no contents, or the name is empty or too long.
            OSError: the path cannot be read.
            ClaimLostError: the job is no longer this run's.
        """
        statement = self._attaching(name, _bytes_of(data, self._desk.max_file_bytes), content_type)
        if self._kept_inline(statement):
            return
        if not self._run.task.database.run(statement, conn):
            raise lost(self._run)

    async def aattach(
        self,
        name: str,
        data: bytes | str | os.PathLike[str],
        content_type: str | None = None,
        *,
        conn: object = None,
    ) -> None:
        """The async twin of ``attach``."""
        contents = await asyncio.to_thread(_bytes_of, data, self._desk.max_file_bytes)
        statement = self._attaching(name, contents, content_type)
        if self._kept_inline(statement):
            return
        if not await self._run.task.database.arun(statement, conn):
            raise lost(self._run)

    def _kept_inline(self, attaching: Statement[bool]) -> bool:
        """Keeps the file in memory, where the job has no row that it could stand with; returns whether that is so."""
        if self._run.is_inline:
            self._run.files[attaching.params["name"]] = attaching.params["content_type"], attaching.params["data"]
        return self._run.is_inline

    def _attaching(self, name: str, data: bytes, content_type: str | None) -> Statement[bool]:
        limit = self._desk.max_file_bytes
        if not 0 < len(codec.text_of(name, "file name")) <= MAX_FILE_NAME:
            raise OptionError(f"file name {name!r:.80} cannot be stored; give one to {MAX_FILE_NAME} characters")
        if len(data) > limit:
            raise OptionError(
                f"file {name!r} takes over {limit:,} bytes; store it elsewhere and keep its address, or raise "
                "PgJobs(max_file_size=…)"
            )
        kind = codec.text_of(content_type, "content_type") if content_type else mimetypes.guess_type(name)[0]
        return statements.attach(self._run.id, self._run.claim.id, name, data, kind)

    # -- jobs that follow

    def using(self, **options: Unpack[Options]) -> Following:
        """Says how the next jobs are enqueued that are there when this one has succeeded; see ``Task.using``."""
        return Following(self._run, options)

    @overload
    def enqueue(self, function: Task[P, Any, R], /, *args: P.args, **kwargs: P.kwargs) -> Job[R]: ...
    @overload
    def enqueue(
        self, function: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Job[R]: ...
    @overload
    def enqueue(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Job[R]: ...
    @overload
    def enqueue(self, function: str, /, *args: Any, **kwargs: Any) -> Job[Any]: ...
    def enqueue(self, function: object, /, *args: Any, **kwargs: Any) -> Job[Any]:
        """Has a job enqueued when this one succeeds, in the transaction that records that; see ``Following``."""
        return Following(self._run, {}).enqueue(function, *args, **kwargs)

    @property
    def _desk(self) -> Desk:
        return self._run.claim.desk

    # -- completion

    def complete(self, conn: object, result: Json = None) -> None:
        """Records success in the caller's transaction: its effects and the completion commit or roll back together.

        Commit before the task returns. What the task returns after this is ignored.

        Args:
            conn: the connection or session of that transaction.
            result: what ``job.get()`` returns.

        Raises:
            ClaimLostError: the job is no longer this run's; let it roll the transaction back.
            EncodingError: the result cannot be stored.
        """
        if self._run.is_inline:
            self._run.completion = self._completion(result).params["result"]
            self._note(held=True)
            return
        if (said := self._desk.state(self._run)) is not None:
            borrowed.run(conn, statements.report([said]), self._run.schema)
        held = borrowed.run(conn, self._completion(stored(self._run, result)), self._run.schema)
        self._note(held)
        if children := self._children():
            borrowed.run(conn, statements.enqueue_children(children), self._run.schema)

    async def acomplete(self, conn: object, result: Json = None) -> None:
        """The async twin of ``complete``."""
        if self._run.is_inline:
            self._run.completion = self._completion(result).params["result"]
            self._note(held=True)
            return
        if (said := self._desk.state(self._run)) is not None:
            await borrowed.arun(conn, statements.report([said]), self._run.schema)
        if self._run.task.results is None:
            kept = stored(self._run, result)
        else:
            kept = await asyncio.to_thread(stored, self._run, result)
        held = await borrowed.arun(conn, self._completion(kept), self._run.schema)
        self._note(held)
        if children := self._children():
            await borrowed.arun(conn, statements.enqueue_children(children), self._run.schema)

    def _completion(self, result: Json) -> Any:
        run = self._run
        text = result_text(run, result)
        return statements.complete_within(run.id, run.claim.id, text, time.perf_counter() - run.begun)

    def _children(self) -> list[tuple[None, Child]]:
        """Those that are enqueued with the completion, here and not again."""
        if self._run.report is None:
            return []
        children, self._run.report.children = self._run.report.children, []
        return [(None, child) for child in children]

    def _note(self, held: bool) -> None:
        if not held:
            raise lost(self._run)
        self._run.completed = True


def _bytes_of(data: object, limit: int) -> bytes:
    """The contents of a file; of one on the disk no more than a byte over the limit."""
    if isinstance(data, str) and codec.is_encodable(data):
        return data.encode()
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(cast("bytes", data))
    if not isinstance(data, os.PathLike):
        raise OptionError(f"a file's contents are {given(data)}; give bytes, a text without lone surrogates, or a Path")
    with open(cast("os.PathLike[str]", data), "rb") as file:
        return file.read(limit + 1)


def _is_number(value: object) -> bool:
    """Whether it is a finite number that a float holds, as whoever reads it may want to have it."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _is_object(value: object) -> bool:
    return isinstance(value, dict) and not isinstance(value, codec.Unreadable)
