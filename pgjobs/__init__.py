"""pgjobs: a durable job queue for Python that needs nothing but PostgreSQL.

Names are imported when they are first used, so that ``pgjobs --help`` and the worker's lean parent load little.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from pgjobs.alerts import Alert
    from pgjobs.app import PgJobs
    from pgjobs.arguments.privacy import Private
    from pgjobs.context import TraceContext
    from pgjobs.errors import (
        AlertError,
        ArgumentsError,
        BlockingError,
        ClaimLostError,
        CompletionRolledBackError,
        ConfigurationError,
        DeadlinePassedError,
        DecryptionError,
        DuplicateJobError,
        EncodingError,
        JobExistsError,
        JobFailedError,
        JobFileNotFoundError,
        JobNotFoundError,
        JobStateError,
        NoCurrentJobError,
        OptionError,
        PgJobsError,
        ProcessDiedError,
        QueueFullError,
        ResultStorageError,
        ResultTimeoutError,
        ResultTypeError,
        SchemaError,
        SoftTimeoutError,
        TaskError,
        TaskNotFoundError,
        TimeoutExceededError,
        WebhookError,
    )
    from pgjobs.events import (
        JobCancelled,
        JobEnqueued,
        JobEvent,
        JobFailed,
        JobRetried,
        JobSnoozed,
        JobStarted,
        JobSucceeded,
    )
    from pgjobs.handle import Job
    from pgjobs.job import Status
    from pgjobs.newjob import NewJob
    from pgjobs.queue import Queue
    from pgjobs.running.current import CurrentJob, current_job
    from pgjobs.running.middleware import Middleware
    from pgjobs.task import Task
    from pgjobs.telemetry import JobLogFilter, JobLogHandler
    from pgjobs.terms.callbacks import Ended
    from pgjobs.terms.keep import Keep
    from pgjobs.terms.resources import Resource
    from pgjobs.terms.retry import Cancel, Retry, RetryLater, Snooze
    from pgjobs.terms.unique import Unique
    from pgjobs.webhooks import Webhook

__all__ = [
    "Alert",
    "AlertError",
    "ArgumentsError",
    "BlockingError",
    "Cancel",
    "ClaimLostError",
    "CompletionRolledBackError",
    "ConfigurationError",
    "CurrentJob",
    "DeadlinePassedError",
    "DecryptionError",
    "DuplicateJobError",
    "EncodingError",
    "Ended",
    "Job",
    "JobCancelled",
    "JobEnqueued",
    "JobEvent",
    "JobExistsError",
    "JobFailed",
    "JobFailedError",
    "JobFileNotFoundError",
    "JobLogFilter",
    "JobLogHandler",
    "JobNotFoundError",
    "JobRetried",
    "JobSnoozed",
    "JobStarted",
    "JobStateError",
    "JobSucceeded",
    "Keep",
    "Middleware",
    "NewJob",
    "NoCurrentJobError",
    "OptionError",
    "PgJobs",
    "PgJobsError",
    "Private",
    "ProcessDiedError",
    "Queue",
    "QueueFullError",
    "Resource",
    "ResultStorageError",
    "ResultTimeoutError",
    "ResultTypeError",
    "Retry",
    "RetryLater",
    "SchemaError",
    "Snooze",
    "SoftTimeoutError",
    "Status",
    "Task",
    "TaskError",
    "TaskNotFoundError",
    "TimeoutExceededError",
    "TraceContext",
    "Unique",
    "Webhook",
    "WebhookError",
    "current_job",
]

_HOMES = {
    "alerts": ("Alert",),
    "app": ("PgJobs",),
    "context": ("TraceContext",),
    "terms.callbacks": ("Ended",),
    "running.current": ("CurrentJob", "current_job"),
    "events": (
        "JobCancelled",
        "JobEnqueued",
        "JobEvent",
        "JobFailed",
        "JobRetried",
        "JobSnoozed",
        "JobStarted",
        "JobSucceeded",
    ),
    "handle": ("Job",),
    "job": ("Status",),
    "terms.keep": ("Keep",),
    "arguments.privacy": ("Private",),
    "running.middleware": ("Middleware",),
    "newjob": ("NewJob",),
    "queue": ("Queue",),
    "terms.resources": ("Resource",),
    "terms.retry": ("Cancel", "Retry", "RetryLater", "Snooze"),
    "task": ("Task",),
    "telemetry": ("JobLogFilter", "JobLogHandler"),
    "terms.unique": ("Unique",),
    "webhooks": ("Webhook",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'pgjobs' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"pgjobs.{_HOME_OF.get(name, 'errors')}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
