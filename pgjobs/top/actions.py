"""What can be done to the rows of the screen. What is done to jobs is noted in the audit."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from pgjobs import statements
from pgjobs.controls import user
from pgjobs.wording import plural

if TYPE_CHECKING:
    from pgjobs.app import PgJobs
    from pgjobs.insight.overview import WorkerLine
    from pgjobs.statements import Alike, Selection, Statement

CHUNK: Final = 1_000
REASON: Final = "cancelled in pgjobs top"


async def toggle_queue(jobs: PgJobs, name: str, *, paused: bool) -> str:
    """Pauses a queue, or resumes it where it is paused."""
    if paused:
        await jobs.aresume(name)
        return f"queue {name} is resumed"
    await jobs.apause(name, reason="paused in pgjobs top")
    return f"queue {name} is paused"


async def toggle_task(jobs: PgJobs, name: str, *, paused: bool) -> str:
    """Pauses a task, or resumes it where it is paused."""
    if paused:
        await jobs.aresume(task=name)
        return f"task {name} is resumed"
    await jobs.apause(task=name, reason="paused in pgjobs top")
    return f"task {name} is paused"


async def toggle_worker(jobs: PgJobs, worker: WorkerLine) -> str:
    """Has a worker claim no more, or claim again where it is quiet."""
    told = await jobs.database.arun(statements.make_quiet([worker.id], quiet=not worker.quiet))
    if not told:
        return f"{worker.name} lives no more"
    return f"{worker.name} claims again" if worker.quiet else f"{worker.name} claims no more, and finishes what runs"


async def stop_worker(jobs: PgJobs, worker: WorkerLine) -> str:
    """Has a worker leave, as with a first signal."""
    told = await jobs.database.arun(statements.dismiss([worker.id]))
    return f"{worker.name} leaves when it has finished" if told else f"{worker.name} lives no more"


async def retry_job(jobs: PgJobs, job_id: UUID) -> str:
    """Queues an ended job again."""
    done = await _act(jobs, "retry", statements.retry, {"ids": [str(job_id)]}, _once([job_id]))
    if done:
        return "queued again"
    return "the job has not ended, or was for a worker that has left, and cannot be queued again"


async def cancel_job(jobs: PgJobs, job_id: UUID) -> str:
    """Cancels a job that has not ended."""
    done = await _act(
        jobs, "cancel", lambda ids: statements.cancel(ids, REASON), {"ids": [str(job_id)]}, _once([job_id])
    )
    return "cancelled; one that runs stops within seconds" if done else "the job has ended, and cannot be cancelled"


async def retry_alike(jobs: PgJobs, failures: Alike) -> str:
    """Queues all jobs of a task again that have failed in one way."""
    chosen = statements.Selection(["failed"], task=failures.task, fingerprint=failures.fingerprint)
    done = await _act(
        jobs, "retry", lambda ids: statements.retry(ids, chosen.statuses), _said(chosen), _chunks(jobs, chosen)
    )
    return f"{plural(done, 'job')} queued again"


async def cancel_alike(jobs: PgJobs, failures: Alike) -> str:
    """Cancels the jobs of a task that have failed in one way and wait for their next attempt."""
    chosen = statements.Selection(
        ["scheduled", "blocked", "queued", "running"], task=failures.task, fingerprint=failures.fingerprint
    )
    done = await _act(
        jobs,
        "cancel",
        lambda ids: statements.cancel(ids, REASON, chosen.statuses),
        _said(chosen),
        _chunks(jobs, chosen),
    )
    return f"{plural(done, 'job')} cancelled"


def _said(chosen: Selection) -> dict[str, Any]:
    return {"statuses": chosen.statuses, "task": chosen.task, "fingerprint": chosen.fingerprint}


async def _act(
    jobs: PgJobs,
    verb: str,
    doing: Callable[[list[UUID]], Statement[Any]],
    said: Mapping[str, Any],
    chunks: AsyncIterator[list[UUID]],
) -> int:
    """Does it to jobs, some in a transaction, with a line in the audit; returns how many were changed."""
    database = jobs.database
    line = await database.arun(statements.note_action(f"{user()}@{socket.gethostname()}", verb, said))
    done = 0
    async for ids in chunks:
        async with database.aconnection() as conn, conn.transaction():
            changed = await database.arun(doing(ids), conn)
            done = await database.arun(statements.count_action(line, len(changed)), conn)
    return done


async def _once(ids: list[UUID]) -> AsyncIterator[list[UUID]]:
    yield ids


async def _chunks(jobs: PgJobs, chosen: Selection) -> AsyncIterator[list[UUID]]:
    after = UUID(int=0)
    while ids := await jobs.database.arun(statements.select_jobs(chosen, after, CHUNK)):
        yield ids
        after = ids[-1]
