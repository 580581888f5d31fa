"""Tells whoever has subscribed what happens in a worker; what nobody wants to know is not even put into words."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from pgjobs.events import (
    Audience,
    Event,
    JobCancelled,
    JobEvent,
    JobFailed,
    JobRetried,
    JobSnoozed,
    JobStarted,
    JobSucceeded,
    Recorded,
    unfailing,
)
from pgjobs.running.outcome import Outcome
from pgjobs.running.run import Run
from pgjobs.worker.claiming.slots import Slots

_ENDINGS = (JobSucceeded, JobRetried, JobSnoozed, JobFailed, JobCancelled)


class Telling:
    """Passes a worker's events on: to its log, and to the application's audience."""

    def __init__(self, log: Callable[[Event], None], audience: Audience) -> None:
        self._log = log
        self._audience = audience

    def __call__(self, event: Event) -> None:
        with unfailing():
            self._log(event)
        self._audience(event)
        if isinstance(event, Recorded) and self._audience.wants(*_ENDINGS):
            for outcome in event.outcomes:
                if self._audience.wants(kind_of(outcome)):
                    self._audience(_worded(outcome))


def kind_of(outcome: Outcome) -> type[JobEvent]:
    """Which event an outcome is."""
    match outcome.ending:
        case "succeeded":
            return JobSucceeded
        case "failed":
            return JobFailed
        case "cancelled":
            return JobCancelled
        case _:
            return JobSnoozed if outcome.failure is None else JobRetried


def _worded(outcome: Outcome) -> JobEvent:
    run, failure = outcome.run, outcome.failure
    job: tuple[UUID, str, str] = (run.id, run.task_name, run.queue)
    reason = outcome.reason or ""
    what = (reason, failure.exception, failure.message) if failure else (reason, None, None)
    match outcome.ending:
        case "succeeded":
            return JobSucceeded(*job, run.attempt, outcome.seconds)
        case "failed":
            return JobFailed(*job, run.attempt, outcome.seconds, *what)
        case "cancelled":
            return JobCancelled(*job, run.attempt, reason)
        case _ if failure is None:
            return JobSnoozed(*job, outcome.delay_s or 0.0, reason)
        case _:
            return JobRetried(*job, run.attempt, outcome.seconds, outcome.delay_s or 0.0, *what)


def slots_for(audience: Audience) -> Callable[..., Slots]:
    """Makes slots, which tell of each start only where somebody listens: they are on the way of every job."""
    if not audience.wants(JobStarted):
        return Slots

    class TellingSlots(Slots):
        def began(self, run: Run) -> None:
            super().began(run)
            audience(JobStarted(run.id, run.task_name, run.queue, run.attempt))

    return TellingSlots
