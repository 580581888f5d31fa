"""The job that runs here, as its own code sees it."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from pgjobs import borrowed, statements
from pgjobs.codec import Json
from pgjobs.errors import NoCurrentJobError
from pgjobs.run import CURRENT, Run, lost


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
        held = borrowed.run(conn, self._completion(result), self._run.schema)
        self._note(held)
        if self._run.announces:
            borrowed.run(conn, statements.announce([self.id]), self._run.schema)

    async def acomplete(self, conn: object, result: Json = None) -> None:
        """The async twin of ``complete``."""
        held = await borrowed.arun(conn, self._completion(result), self._run.schema)
        self._note(held)
        if self._run.announces:
            await borrowed.arun(conn, statements.announce([self.id]), self._run.schema)

    def _completion(self, result: Json) -> Any:
        run = self._run
        text = None if result is None else run.task.signature.dumps(result, what="result")
        return statements.complete_within(run.id, run.claim.id, text, time.perf_counter() - run.begun)

    def _note(self, held: bool) -> None:
        if not held:
            raise lost(self._run)
        self._run.completed = True
