"""Each reason why a job waits, runs or has ended is made, and then read."""

from __future__ import annotations

import json
import threading
from datetime import timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from pgjobs import Cancel, PgJobs, Retry, Status, statements
from pgjobs.handle import Job
from pgjobs.insight.explain import Reason
from pgjobs.job import new_id
from tests.processes import pgjobs
from tests.support import eventually

pytestmark = pytest.mark.server

Conn = psycopg.Connection[Any]


@pytest.fixture(autouse=True)
def work(jobs: PgJobs) -> None:
    @jobs.task(name="work")
    def work(i: int = 0) -> int:
        return i


def codes(job: Job[Any]) -> list[str]:
    return [reason.code for reason in job.explain()]


def reason(job: Job[Any], code: str) -> Reason:
    found = {reason.code: reason for reason in job.explain()}
    assert code in found, found
    return found[code]


def enqueue(jobs: PgJobs, /, *args: Any, **options: Any) -> Job[Any]:
    return jobs.using(**options).enqueue("work", *args)


def put_worker(conn: Conn, queues: str = "*", silent: str = "0 s") -> Any:
    row = conn.execute(
        "INSERT INTO pgjobs.workers (id, supervisor_id, name, host, pid, queues, slots, seen_at)"
        " VALUES (gen_random_uuid(), gen_random_uuid(), 'ada:7.0', 'ada', 7, %s, 16, now() - %s::interval)"
        " RETURNING id",
        [queues.split(","), silent],
    ).fetchone()
    assert row is not None
    conn.execute(
        "INSERT INTO pgjobs.tasks (name, queue, priority, max_attempts, schema) VALUES ('work', 'default', 0, 5, '{}')"
        " ON CONFLICT DO NOTHING"
    )
    return row[0]


def put_claim(conn: Conn, job: Job[Any], worker: Any) -> None:
    conn.execute(
        "WITH claim AS (INSERT INTO pgjobs.claims (id, worker_id, job_ids, positions)"
        "               VALUES (gen_random_uuid(), %(worker)s, ARRAY[%(job)s::uuid], ARRAY[1]) RETURNING id)"
        "UPDATE pgjobs.jobs"
        "   SET status = 'running', position = NULL, attempt = 1, started_at = now(), claim_id = claim.id"
        "  FROM claim WHERE jobs.id = %(job)s",
        {"worker": worker, "job": job.id},
    )


def test_job_that_nobody_serves_or_knows(jobs: PgJobs, conn: Conn) -> None:
    job = enqueue(jobs, queue="mail")
    assert codes(job) == ["no_worker", "unpublished", "next"]
    assert reason(job, "no_worker").remedy == "pgjobs worker -A MODULE -Q mail"
    put_worker(conn, silent="1 minute")
    assert codes(job) == ["no_worker", "next"], "whoever is silent does not live"
    put_worker(conn, "default,web.*")
    assert codes(job) == ["unserved", "next"]
    assert "served are default, web.*" in reason(job, "unserved").text
    put_worker(conn, "ma?l")
    assert codes(job) == ["next"]
    assert "unpublished" not in codes(jobs.enqueue("module:function")), "a worker finds it by its path"


def test_job_whose_workers_are_quiet(jobs: PgJobs, conn: Conn) -> None:
    job = enqueue(jobs, queue="mail")
    quiet = put_worker(conn, "mail")
    put_worker(conn, "other")
    conn.execute("UPDATE pgjobs.workers SET quiet_at = now() WHERE id = %s", [quiet])
    assert codes(job) == ["quiet", "next"]
    assert reason(job, "quiet").remedy == "pgjobs workers resume --all"
    put_worker(conn, "*")
    assert codes(job) == ["next"]


def test_job_for_one_worker_that_is_gone(jobs: PgJobs, conn: Conn) -> None:
    worker = put_worker(conn)
    job = enqueue(jobs)
    conn.execute("UPDATE pgjobs.jobs SET queue = %s", [f"@{worker}"])
    assert codes(job) == ["next"]
    conn.execute("UPDATE pgjobs.workers SET dead_at = now()")
    assert codes(job) == ["worker_gone", "next"]


def test_pauses_say_since_when_and_why(jobs: PgJobs, conn: Conn) -> None:
    put_worker(conn)
    job = enqueue(jobs, queue="mail")
    jobs.pause("mail", reason="provider is down")
    jobs.pause(task="work", for_="1h")
    assert codes(job) == ["queue_paused", "task_paused", "next"]
    queue, task = reason(job, "queue_paused"), reason(job, "task_paused")
    assert "(provider is down)" in queue.text
    assert queue.remedy == "pgjobs queues resume mail"
    assert " until " in task.text
    assert task.remedy == "pgjobs tasks resume work"


def test_job_that_was_claimed_while_its_task_was_paused(jobs: PgJobs, conn: Conn) -> None:
    job = enqueue(jobs)
    jobs.pause(task="work")
    jobs.worker(burst=True).run()
    assert job.refresh().status is Status.BLOCKED
    assert "task_paused" in codes(job)
    conn.execute("DELETE FROM pgjobs.pauses")
    assert "task_resumed" in codes(job)


def test_hold_says_who(jobs: PgJobs, conn: Conn, database_url: str) -> None:
    put_worker(conn)
    job, other = enqueue(jobs), enqueue(jobs)
    assert pgjobs(database_url, "jobs", "hold", str(job.id), "--reason", "not yet").returncode == 0
    held = reason(job, "held")
    actor = conn.execute("SELECT actor FROM pgjobs.audit").fetchone()
    assert actor is not None
    assert f"by {actor[0]} at " in held.text
    assert held.text.endswith("(not yet)")
    assert held.remedy == f"pgjobs jobs unhold {job.id}"
    other.hold()
    assert " since 2" in reason(other, "held").text
    assert codes(other) == ["held"]


def test_blocked_job_says_for_how_many_it_waits(jobs: PgJobs, conn: Conn) -> None:
    put_worker(conn)
    job = enqueue(jobs)
    conn.execute("UPDATE pgjobs.jobs SET status = 'blocked', position = NULL, blockers = 2, reason = 'parents'")
    assert [str(each) for each in job.explain()] == ["it waits for 2 other jobs (parents)"]


def test_scheduled_retrying_and_overdue(jobs: PgJobs, conn: Conn) -> None:
    put_worker(conn)
    job = enqueue(jobs, delay="2h")
    assert codes(job) == ["scheduled"]
    assert "in 1 h 59 min" in reason(job, "scheduled").text
    assert reason(job, "scheduled").remedy == f"pgjobs jobs run-now {job.id}"
    conn.execute("UPDATE pgjobs.jobs SET due_at = now() - interval '1 s'")
    assert codes(job) == ["overdue"]
    conn.execute("UPDATE pgjobs.jobs SET due_at = now() + interval '1 h', reason = 'snoozed', attempt = 1")
    assert codes(job) == ["scheduled"]

    @jobs.task(name="boom", retry=Retry(3, backoff="1h", jitter=False))
    def boom() -> None:
        raise ValueError("no such user")

    failing = boom.enqueue()
    jobs.worker(burst=True).run()
    assert "attempt 1 of 3 has failed (ValueError: no such user)" in reason(failing, "retrying").text


def test_jobs_that_workers_send_back(jobs: PgJobs, conn: Conn) -> None:
    job = jobs.enqueue("nobody.knows")
    with jobs.worker():
        eventually(lambda: job.refresh().reason == "unknown task")
        assert "unpublished" not in codes(job)
        assert "nobody.knows" in reason(job, "unknown_task").text
    conn.execute("UPDATE pgjobs.jobs SET reason = 'arguments do not fit: $.a'")
    assert "arguments do not fit: $.a" in reason(job, "misfit").text
    conn.execute("UPDATE pgjobs.jobs SET reason = 'task cannot be made ready: ImportError()'")
    assert "because its task cannot be made ready" in reason(job, "misfit").text
    assert reason(job, "misfit").remedy == "mend what raises that, and restart the workers"
    assert [each[1] for each in jobs.database.run(statements.unrunnable())] == [
        "task cannot be made ready: ImportError()"
    ]
    conn.execute("UPDATE pgjobs.jobs SET reason = 'waits to run apart'")
    assert "apart" in codes(job)


def test_suspect_and_crashed(jobs: PgJobs, conn: Conn) -> None:
    put_worker(conn)
    job = enqueue(jobs)
    conn.execute("""UPDATE pgjobs.jobs SET options = '{"suspect": {"of": 16}}', crashes = 1""")
    assert codes(job) == ["suspect", "next"]
    conn.execute("UPDATE pgjobs.jobs SET options = NULL, crashes = 2")
    assert "2 times" in reason(job, "crashed").text


def test_what_stands_ahead_is_counted_up_to_a_thousand(jobs: PgJobs, conn: Conn) -> None:
    put_worker(conn)
    enqueue(jobs)
    enqueue(jobs, queue="other")
    enqueue(jobs, priority=-1)
    urgent = enqueue(jobs, priority=5)
    job = enqueue(jobs)
    assert reason(job, "ahead").text.startswith("2 jobs of its queue default are claimed before it")
    assert reason(job, "ahead").remedy == f"pgjobs jobs prioritize {job.id} --to 10"
    assert codes(urgent) == ["next"]
    conn.execute("INSERT INTO pgjobs.jobs (task, priority) SELECT 'work', 1 FROM generate_series(1, 20000)")
    conn.execute("ANALYZE pgjobs.jobs")
    assert reason(job, "ahead").text.startswith("over 1,000 jobs")


def test_count_of_what_stands_ahead_reads_no_more_than_it_says(jobs: PgJobs, conn: Conn) -> None:
    from pgjobs.statements import QUERIES

    conn.execute("INSERT INTO pgjobs.jobs (task, priority) SELECT 'work', i % 3 FROM generate_series(1, 60000) AS i")
    first, last = enqueue(jobs, priority=1), enqueue(jobs, priority=-5)
    conn.execute("UPDATE pgjobs.jobs SET position = -1 WHERE id = %s", [first.id])
    conn.execute("VACUUM ANALYZE pgjobs.jobs")
    for job in (first, last):
        plan = conn.execute(
            "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + QUERIES["standing_of"].text("pgjobs"), {"id": str(job.id)}
        ).fetchone()
        assert plan is not None
        found = plan[0] if isinstance(plan[0], list) else json.loads(plan[0])
        top = found[0]["Plan"]
        assert top["Shared Hit Blocks"] + top["Shared Read Blocks"] < 2_500, job


def test_ttl_and_deadline(jobs: PgJobs, conn: Conn) -> None:
    put_worker(conn)
    assert "it expires at" in reason(enqueue(jobs, ttl="1h"), "ttl").text
    assert "it fails at" in reason(enqueue(jobs, ttl="1h", on_expiry="fail"), "ttl").text
    assert "by its deadline" in reason(enqueue(jobs, deadline="1h"), "ttl").text


def test_running_job_says_where_and_until_when(jobs: PgJobs, conn: Conn) -> None:
    job = enqueue(jobs, timeout="1h")
    worker = put_worker(conn)
    put_claim(conn, job, worker)
    assert codes(job) == ["running", "timeout"]
    assert "attempt 1 of 5 runs on worker ada:7.0 (pid 7 on ada) since " in reason(job, "running").text
    job.cancel("a mistake")
    assert "(a mistake)" in reason(job, "cancelling").text
    conn.execute("UPDATE pgjobs.workers SET seen_at = now() - interval '1 minute'")
    assert "last seen 60.0 s ago" in reason(job, "worker_lost").text
    conn.execute("DELETE FROM pgjobs.workers")
    assert "of a worker that is not there" in reason(job, "no_claim").text
    conn.execute("DELETE FROM pgjobs.claims")
    assert "claim that is not there" in reason(job, "no_claim").text


def test_real_run_is_explained_while_it_runs(jobs: PgJobs) -> None:
    begun, go_on = threading.Event(), threading.Event()

    @jobs.task(name="slow")
    def slow() -> None:
        begun.set()
        go_on.wait(20)

    with jobs.worker():
        job = slow.enqueue()
        assert begun.wait(10)
        assert codes(job) == ["running", "timeout"]
        go_on.set()
        job.get(10)
    assert codes(job) == ["succeeded"]


def test_ends_say_why(jobs: PgJobs, conn: Conn, database_url: str) -> None:
    @jobs.task(name="fails", retry=1)
    def fails() -> None:
        raise ValueError("no such user\nat all")

    @jobs.task(name="gives_up")
    def gives_up() -> None:
        raise Cancel("not needed")

    failed, cancelled, expired = fails.enqueue(), gives_up.enqueue(), enqueue(jobs, ttl="1ms")
    jobs.worker(burst=True).run()
    eventually(lambda: failed.refresh().status.ended and cancelled.refresh().status.ended)
    assert "attempt 1 of 1 (ValueError: no such user)" in reason(failed, "failed").text
    assert reason(failed, "failed").remedy == f"pgjobs jobs retry {failed.id}"
    assert "(not needed)" in reason(cancelled, "cancelled").text
    conn.execute("UPDATE pgjobs.jobs SET status = 'expired', position = NULL WHERE id = %s", [expired.id])
    assert "its ttl passed" in reason(expired, "expired").text
    by_hand = enqueue(jobs)
    assert pgjobs(database_url, "jobs", "cancel", str(by_hand.id)).returncode == 0
    assert "was cancelled by " in reason(by_hand, "cancelled").text


def test_unique_key_says_how_long_it_is_held(jobs: PgJobs, conn: Conn) -> None:
    from pgjobs import Unique

    put_worker(conn)
    assert "until it has ended" in reason(enqueue(jobs, 1, unique=True), "unique").text
    assert "until 2" in reason(enqueue(jobs, 2, unique=Unique(period="1h")), "unique").text


def test_options_of_any_shape_are_no_obstacle(jobs: PgJobs, conn: Conn) -> None:
    job = enqueue(jobs, unique=True)
    for options in ('{"deadline": "x", "unique_for": [1], "suspect": 7}', "[1]", '"suspect"', "3"):
        conn.execute("UPDATE pgjobs.jobs SET options = %s, expires_at = now()", [options])
        assert "ttl" in codes(job)


async def test_coroutines_ask_too(jobs: PgJobs) -> None:
    job = await jobs.using(queue="mail").aenqueue("work")
    assert [each.code for each in await job.aexplain()] == ["no_worker", "unpublished", "next"]
    await jobs.aclose()


def test_command_says_it_with_the_remedy(jobs: PgJobs, database_url: str) -> None:
    job = enqueue(jobs, queue="mail")
    jobs.pause("mail", reason="provider is down")
    said = pgjobs(database_url, "jobs", "explain", str(job.id))
    assert said.returncode == 0
    assert "\x1b[" not in said.stdout
    assert "provider is down)\n  → pgjobs queues resume mail\n" in said.stdout
    document = json.loads(pgjobs(database_url, "jobs", "explain", str(job.id), "--json").stdout)
    assert document["id"] == str(job.id)
    assert document["reasons"][0]["code"] == "queue_paused"


def test_job_that_is_not_there_is_explained_too(jobs: PgJobs, database_url: str) -> None:
    job = enqueue(jobs)
    assert pgjobs(database_url, "jobs", "delete", str(job.id)).returncode == 0
    (deleted,) = job.explain()
    assert deleted.code == "deleted"
    assert " by " in deleted.text
    for unknown, says in ((new_id(), "its id was made at 2"), (uuid4(), "was pruned")):
        said = pgjobs(database_url, "jobs", "explain", str(unknown))
        assert (said.returncode, says in said.stdout) == (1, True)


def test_absent_ids_age_is_that_of_the_id() -> None:
    from datetime import UTC, datetime

    from pgjobs.insight.explain import _made_at

    assert abs(_made_at(new_id()) - datetime.now(UTC)) < timedelta(seconds=5)
