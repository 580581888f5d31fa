"""The workers, and what nobody of them does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from pgjobs import statements
from pgjobs.doctor.finding import Check, Finding, Patient, critical, warning
from pgjobs.wording import duration, plural, short


def queues(patient: Patient) -> Iterator[Finding]:
    """Queues with waiting jobs that no living worker serves."""
    living = [member for member in patient.ask(statements.fleet()) if member.lives]
    ages = patient.ask(statements.ages_of_queues())
    for queue, age_s in sorted(ages.items()):
        if not any(member.serves(queue) for member in living):
            nobody = "no worker lives" if not living else "no living worker serves it"
            yield critical(
                "unserved",
                f"jobs have waited in queue {queue} for up to {duration(max(0.0, age_s))}, and {nobody}",
                "they wait until somebody serves it",
                f"pgjobs worker -A MODULE -Q {queue}{patient.option}",
            )


def tasks(patient: Patient) -> Iterator[Finding]:
    """Jobs that workers send back, because they do not know the task or its arguments do not fit."""
    for task, reason, count in patient.ask(statements.unrunnable()):
        what = f"{plural(count, 'job')} of {short(task)} cannot run: {reason}"
        mend = (
            "restart the workers with the module that defines it: pgjobs worker -A MODULE"
            if reason == "unknown task"
            else f"deploy a version that takes them, or: pgjobs jobs cancel --task {task}{patient.option}"
        )
        yield warning("unrunnable", what, "workers try again every minute, and no attempt counts", mend)


def claims(patient: Patient) -> Iterator[Finding]:
    """Claims of dead workers that no reaper has come for."""
    for worker, count, jobs in patient.ask(statements.orphaned_claims()):
        yield critical(
            "orphans",
            f"the worker {worker} is dead, and holds {plural(count, 'claim')} with {plural(jobs, 'job')}",
            "a living worker queues them again within seconds: none lives, or somebody's transaction holds their rows",
            f"start a worker (pgjobs worker -A MODULE{patient.option}), or end the transaction that holds the rows",
        )


def endless(patient: Patient) -> Iterator[Finding]:
    """Jobs that run under no claim, or have ended at no time, which only SQL can have written."""
    for kind, count, example in patient.ask(statements.endless()):
        what = f"{plural(count, 'job')} counted as running, and no claim holds {'it' if count == 1 else 'them'}"
        if kind == "ended":
            what = f"{plural(count, 'job')} ended at no time that is known"
        yield warning(
            "endless",
            f"{what}, such as {example}",
            "nobody ends or deletes them, and they keep their unique keys",
            f"pgjobs jobs delete {example}{patient.option}",
        )


def duties(patient: Patient) -> Iterator[Finding]:
    """Duties that are overdue although workers live; without any, nothing has to be done but what other checks say."""
    for name, overdue_s in patient.ask(statements.overdue_duties()).items():
        yield critical(
            "duty",
            f"the duty {name} has been due for {duration(overdue_s)}, although workers live",
            "dead workers are not reaped, jobs not expired, or old ones not pruned",
            "read what the workers log, and see who holds the row: SELECT pid, query FROM pg_stat_activity"
            f" WHERE query LIKE '%{patient.schema}.duties%'",
        )


CHECKS: Final[Sequence[Check]] = (queues, tasks, claims, endless, duties)
