"""What holds in the tables at any moment, whatever happened; and how to bring all that is left to its end."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import psycopg

from pgjobs import statements
from pgjobs.connections.link import Link
from pgjobs.job import new_id
from pgjobs.statements import Range

ENDED: Final = ("succeeded", "failed", "cancelled", "expired")
LANE: Final = ("default", 0)
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

WRONG: Final = {
    "a running job is under no claim of a worker that is there": """
        SELECT id FROM pgjobs.jobs AS job
         WHERE status = 'running' AND NOT EXISTS (
               SELECT FROM pgjobs.claims AS claim JOIN pgjobs.workers AS worker ON worker.id = claim.worker_id
                WHERE claim.id = job.claim_id AND job.id = ANY (claim.job_ids))""",
    "a queued job has no position, or another job one": """
        SELECT id FROM pgjobs.jobs WHERE (status = 'queued') <> (position IS NOT NULL)""",
    "two jobs have one position": """
        SELECT position FROM pgjobs.jobs WHERE position IS NOT NULL GROUP BY position HAVING count(*) > 1""",
    "a scheduled job has no due_at, or another job one": """
        SELECT id FROM pgjobs.jobs WHERE (status = 'scheduled') <> (due_at IS NOT NULL)""",
    "a job waits for nothing that is there": """
        SELECT id FROM pgjobs.jobs WHERE status = 'blocked' AND reason IS DISTINCT FROM 'held'""",
    "finished_at does not say whether the job has ended": f"""
        SELECT id FROM pgjobs.jobs WHERE (status IN {ENDED}) <> (finished_at IS NOT NULL)""",
    "an ended job keeps its unique key": f"""
        SELECT id FROM pgjobs.jobs WHERE status IN {ENDED} AND unique_key IS NOT NULL""",
    "a result is that of another claim": """
        SELECT id FROM pgjobs.jobs
         WHERE status = 'succeeded' AND jsonb_typeof(result) = 'string' AND result #>> '{}' <> claim_id::text""",
    "a count is below nothing": "SELECT id FROM pgjobs.jobs WHERE attempt < 0 OR crashes < 0",
}


def violations(conn: psycopg.Connection[Any]) -> dict[str, list[Any]]:
    """What is wrong in the tables, with the jobs that it concerns."""
    parts = [f"SELECT '{what}', found::text FROM ({sql}) AS wrong (found)" for what, sql in WRONG.items()]
    found: dict[str, list[Any]] = {}
    for what, job_id in conn.execute(" UNION ALL ".join(parts)):  # type: ignore[call-overload]
        found.setdefault(what, []).append(job_id)
    return found


def rollups(conn: psycopg.Connection[Any]) -> Counter[str]:
    """How many outcomes of each kind were recorded."""
    return Counter(dict(conn.execute("SELECT status, sum(jobs)::int FROM pgjobs.rollups GROUP BY 1").fetchall()))


def reset(conn: psycopg.Connection[Any]) -> None:
    """Empties the tables. DELETE is ten times as fast as TRUNCATE where there are a few rows."""
    for table in ("jobs", "claims", "workers", "idlers", "failures", "rollups"):
        conn.execute(f"DELETE FROM pgjobs.{table}")


def register(link: Link, worker: UUID | None = None) -> UUID:
    """Makes a worker known."""
    worker = worker or new_id()
    link.one(
        statements.register(worker, supervisor=worker, name="w", host="h", pid=1, process="{}", queues=["*"], slots=9)
    )
    return worker


def claim(link: Link, worker: UUID, limit: int = 1_000) -> tuple[UUID, list[UUID]]:
    """Claims what is queued; returns the claim and the jobs."""
    claim_id = new_id()
    return claim_id, [row[0] for row in link.one(statements.claim(worker, claim_id, [Range(LANE)], limit))]


def complete(link: Link, claim_id: UUID, ids: list[UUID]) -> list[UUID]:
    """Completes jobs under a claim; returns those that were recorded."""
    return list(link.one(completion(claim_id, ids)).ids)


def completion(claim_id: UUID, ids: list[UUID]) -> statements.Statement[statements.Recorded]:
    """The statement that completes jobs; their results say under which claim."""
    count = len(ids)
    columns = {"ids": ids, "claims": [claim_id] * count, "results": [f'"{claim_id}"'] * count}
    return statements.complete(columns | {"waits": [0.0] * count, "seconds": [0.1] * count})


def kill_all(link: Link, conn: psycopg.Connection[Any]) -> None:
    """Declares every worker dead, and reaps until nothing is left to be reaped."""
    link.one(statements.declare_dead([row[0] for row in conn.execute("SELECT id FROM pgjobs.workers")]))
    while link.one(statements.reap(None, None, 3, "the end")):
        pass
    link.one(statements.forget_dead_claims())


def finish(link: Link, conn: psycopg.Connection[Any]) -> Counter[str]:
    """Kills everybody, reaps, and lets one honest worker do all that is left; returns how the jobs have ended."""
    kill_all(link, conn)
    assert conn.execute("SELECT id FROM pgjobs.claims").fetchall() == []
    conn.execute("UPDATE pgjobs.jobs SET due_at = now() WHERE due_at IS NOT NULL")
    link.one(statements.expire(EPOCH))
    link.one(statements.promote())
    worker = register(link)
    claim_id, ids = claim(link, worker)
    assert sorted(complete(link, claim_id, ids)) == sorted(ids)
    link.one(statements.forget_claims([claim_id]))
    statuses = Counter(row[0] for row in conn.execute("SELECT status FROM pgjobs.jobs"))
    assert set(statuses) <= set(ENDED), "every job comes to its end"
    return statuses
