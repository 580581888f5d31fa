"""Which options there are, and what somebody may have meant by another name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Final

from pgjobs.errors import OptionError
from pgjobs.options import Options, TaskOptions

_SETTINGS: Final = ("name", "aliases", "executor", "encrypt", "private", "capture", "nice", "throws")
OF_A_TASK: Final = {*_SETTINGS, *TaskOptions.__annotations__} - {*Options.__annotations__}
"""Options that say how code is to be run, which no row can."""

ELSEWHERE: Final = {
    "actor_name": "name", "at_front": "lifo", "autoretry_for": "retry=Retry(on=…)", "bind": "current_job()",
    "countdown": "delay", "default_retry_delay": "retry=Retry(backoff=…)", "eta": "run_at", "expires": "ttl",
    "failure_ttl": "keep=Keep(failed=…)", "job_timeout": "timeout", "max_age": "ttl", "max_attempts": "retry",
    "max_retries": "retry", "queue_name": "queue", "retries": "retry", "retry_backoff": "retry=Retry(backoff=…)",
    "schedule_in": "delay", "scheduled_at": "run_at", "soft_time_limit": "soft_timeout", "task_id": "job_id",
    "time_limit": "timeout", "unique_for": "unique=Unique(period=…)",
}  # fmt: skip
"""What other queues call these options."""

NOT_YET: Final = {
    "acks_late": "a job is always completed after its run; leave it out",
    "cron": "pgjobs has no schedules yet; let cron or a systemd timer call `pgjobs enqueue`",
    "periodic": "pgjobs has no schedules yet; let cron or a systemd timer call `pgjobs enqueue`",
    "rate_limit": "pgjobs has no rate limits yet; `pgjobs worker -Q … -c …` bounds how many run at once",
    "schedule": "pgjobs has no schedules yet; for one later start there are delay and run_at",
}  # fmt: skip
"""What other queues have, and pgjobs has not."""


def known_options(options: Mapping[str, object]) -> None:
    """Raises OptionError where an option is not known."""
    unknown = options.keys() - Options.__annotations__.keys()
    if of_task := sorted(unknown & OF_A_TASK):
        name = of_task[0]
        raise OptionError(
            f"{name} is a task's and not a job's; give it to @jobs.task({name}=…), or register the function a second "
            "time, under another name"
        )
    if unknown:
        name = min(unknown)
        raise OptionError(f"option {name!r} is not known; {_meant(name) or 'arguments of the task go to enqueue(…)'}")


def known_settings(options: Mapping[str, object]) -> None:
    """Raises OptionError where a task is given an option that is not known."""
    if unknown := options.keys() - TaskOptions.__annotations__.keys():
        name = min(unknown)
        raise OptionError(f"option {name!r} is not known; {_meant(name) or 'see pgjobs.options.TaskOptions'}")


def _meant(name: str) -> str | None:
    """What somebody may have meant by a name: another queue's word, or a slip."""
    if name in NOT_YET:
        return NOT_YET[name]
    close = difflib.get_close_matches(name, TaskOptions.__annotations__.keys() | OF_A_TASK, 1)
    word = ELSEWHERE.get(name) or (close[0] if close else None)
    return word and f"is it {word}?"
