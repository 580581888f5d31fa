"""Every error that pgjobs raises, under one root; each message ends with the remedy."""

from __future__ import annotations

from uuid import UUID


class PgJobsError(Exception):
    """The root of all errors of pgjobs."""


class ConfigurationError(PgJobsError):
    """A setting is missing or makes no sense."""


class SchemaError(PgJobsError):
    """The database's schema is absent, older or newer than this release."""


class OptionError(PgJobsError, ValueError):
    """An option of a task or a job has a value that cannot be meant."""


class TaskError(PgJobsError):
    """A function cannot be a task, or its name is taken."""


class TaskNotFoundError(TaskError):
    """No task is registered under a name."""


class ArgumentsError(PgJobsError, TypeError):
    """Arguments do not fit the task's signature; nothing was written."""


class EncodingError(PgJobsError, ValueError):
    """A value cannot be stored as JSON.

    Attributes:
        path: where the value stands, as in ``$.user.tags[3]``.
    """

    def __init__(self, message: str, path: str = "$") -> None:
        super().__init__(message)
        self.path = path


class DecryptionError(PgJobsError):
    """Arguments or a result are stored encrypted, and no key that is known here opens them."""


class JobNotFoundError(PgJobsError, LookupError):
    """There is no job of this id: pruned, deleted, rolled back, or not yet committed."""

    def __init__(self, job_id: UUID) -> None:
        super().__init__(f"job {job_id} does not exist; it was pruned or deleted, or its transaction was not committed")
        self.job_id = job_id


class JobFileNotFoundError(PgJobsError, LookupError):
    """The job has attached no file of this name."""

    def __init__(self, job_id: UUID, name: str) -> None:
        super().__init__(f"job {job_id} has no file {name!r}; job.files() lists what it has")
        self.job_id = job_id
        self.name = name


class JobFailedError(PgJobsError):
    """The job that was waited for ended without a result.

    Attributes:
        job_id: the job.
        status: ``failed``, ``cancelled`` or ``expired``.
        exception: qualified name of the remote exception, or None.
        remote_traceback: the worker's traceback as text, or None.
    """

    def __init__(
        self,
        job_id: UUID,
        status: str,
        reason: str | None = None,
        exception: str | None = None,
        message: str | None = None,
        remote_traceback: str | None = None,
    ) -> None:
        cause = f"{exception}: {message}" if exception else (reason or "no reason recorded")
        text = f"job {job_id} is {status}: {cause}"
        super().__init__(f"{text}\n\n{remote_traceback}" if remote_traceback else text)
        self.job_id = job_id
        self.status = status
        self.reason = reason
        self.exception = exception
        self.message = message
        self.remote_traceback = remote_traceback


class ResultTypeError(PgJobsError, TypeError):
    """The stored result does not fit the task's return annotation."""


class ResultStorageError(PgJobsError):
    """A result could not be stored in, or read from, the storage that the application has named."""


class ResultTimeoutError(PgJobsError, TimeoutError):
    """The job had not ended when the time to wait for it was over; it goes on."""

    def __init__(self, job_id: UUID, status: str, timeout_s: float) -> None:
        super().__init__(f"job {job_id} is still {status} after {timeout_s:g} s; wait longer, or is a worker running?")
        self.job_id = job_id
        self.status = status
        self.timeout_s = timeout_s


class ClaimLostError(PgJobsError):
    """The attempt no longer owns its job: it was believed dead, cancelled or taken by another worker."""

    def __init__(self, job_id: UUID) -> None:
        super().__init__(f"job {job_id} belongs to another claim now; let this exception roll your transaction back")
        self.job_id = job_id


class CompletionRolledBackError(PgJobsError):
    """The transaction that carried ``complete()`` was rolled back, so the attempt counts as failed."""


class TimeoutExceededError(PgJobsError, TimeoutError):
    """The attempt ran longer than its timeout allows; raised in the job's own thread too."""

    def __init__(self, timeout_s: float | None = None) -> None:
        limit = "" if timeout_s is None else f" of {timeout_s:g} s"
        super().__init__(f"the attempt ran longer than its timeout{limit}")


class SoftTimeoutError(PgJobsError, TimeoutError):
    """The attempt has run for its soft timeout; raised once in the job's own code, which may clean up and return."""

    def __init__(self, timeout_s: float | None = None) -> None:
        limit = "" if timeout_s is None else f" of {timeout_s:g} s"
        super().__init__(f"the attempt ran longer than its soft timeout{limit}")


class DeadlinePassedError(PgJobsError, TimeoutError):
    """The job's deadline had passed when an attempt should have begun."""

    def __init__(self) -> None:
        super().__init__("the deadline passed before the job could start")


class ProcessDiedError(PgJobsError):
    """The process that ran the job has ended."""

    def __init__(self, how: str) -> None:
        super().__init__(f"the process that ran the job died ({how})")


class NoCurrentJobError(PgJobsError, RuntimeError):
    """``current_job()`` was called outside a job."""

    def __init__(self) -> None:
        super().__init__("no job runs here; call current_job() from a task's own thread or coroutine")


class BlockingError(PgJobsError, RuntimeError):
    """A coroutine job was about to wait for another job in a way that stops every job of its event loop."""

    def __init__(self) -> None:
        super().__init__(
            "waiting here would stop the event loop, and with it every coroutine of the worker; await job.aget(), "
            "jobs.await_(…), or use async for with jobs.aas_completed(…)"
        )


class JobStateError(PgJobsError):
    """The job is in a status in which this cannot be done to it."""


class JobExistsError(PgJobsError):
    """A job of this id has been enqueued before."""

    def __init__(self, job_id: UUID) -> None:
        super().__init__(f"job {job_id} exists already; leave job_id out, or read it with jobs.job(…)")
        self.job_id = job_id


class QueueFullError(PgJobsError):
    """So many jobs wait in the queue that another one has no room: ``max_depth``."""

    def __init__(self, queue: str, limit: int) -> None:
        super().__init__(
            f"queue {queue!r} has no room: {limit} jobs may wait there; try again later, or raise max_depth"
        )
        self.queue = queue
        self.limit = limit


class DuplicateJobError(PgJobsError):
    """A job with the same unique key is there, and the policy says ``on_conflict="raise"``.

    Attributes:
        job_id: the one that is there.
    """

    def __init__(self, job_id: UUID, task: str) -> None:
        super().__init__(f"a job of {task!r} with the same unique key is there: {job_id}; wait until it has ended")
        self.job_id = job_id


class WebhookError(PgJobsError):
    """A message could not be delivered, or one that came is not what it says it is."""


class AlertError(PgJobsError):
    """A message of an alert was not delivered; it is tried again."""
