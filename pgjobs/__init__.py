"""pgjobs: a durable job queue for Python that needs nothing but PostgreSQL."""

from pgjobs.app import PgJobs, Queue
from pgjobs.current import CurrentJob, current_job
from pgjobs.errors import (
    ArgumentsError,
    ClaimLostError,
    CompletionRolledBackError,
    ConfigurationError,
    EncodingError,
    JobExistsError,
    JobFailedError,
    JobNotFoundError,
    JobStateError,
    NoCurrentJobError,
    OptionError,
    PgJobsError,
    ResultTimeoutError,
    SchemaError,
    TaskError,
    TaskNotFoundError,
)
from pgjobs.handle import Job
from pgjobs.job import Status
from pgjobs.retry import Cancel, Retry, RetryLater, Snooze
from pgjobs.task import Task

__version__ = "0.1.0"

__all__ = [
    "ArgumentsError",
    "Cancel",
    "ClaimLostError",
    "CompletionRolledBackError",
    "ConfigurationError",
    "CurrentJob",
    "EncodingError",
    "Job",
    "JobExistsError",
    "JobFailedError",
    "JobNotFoundError",
    "JobStateError",
    "NoCurrentJobError",
    "OptionError",
    "PgJobs",
    "PgJobsError",
    "Queue",
    "ResultTimeoutError",
    "Retry",
    "RetryLater",
    "SchemaError",
    "Snooze",
    "Status",
    "Task",
    "TaskError",
    "TaskNotFoundError",
    "current_job",
]
