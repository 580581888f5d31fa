"""pgjobs tail: what happens to jobs is told once, in order, until somebody interrupts."""

from __future__ import annotations

import json
import signal
import subprocess
from typing import Any

import psycopg
import pytest

from pgjobs import PgJobs, Retry, current_job
from pgjobs.insight.tail import Happening, Tail
from pgjobs.statements import Scope
from tests.processes import PGJOBS, environment, pgjobs
from tests.sql.test_reporting import explain, fill, nodes
from tests.support import eventually

pytestmark = pytest.mark.server


@pytest.fixture
def busy(jobs: PgJobs) -> PgJobs:
    @jobs.task(name="add", queue="mail")
    def add(a: int) -> int:
        current_job().log(f"adding {a}")
        return a

    @jobs.task(name="flaky", retry=Retry(2, backoff=0))
    def flaky() -> None:
        if current_job().attempt == 1:
            raise OSError("try again\nsecond line")
        raise ValueError("gone")

    return jobs


def look(jobs: PgJobs, tail: Tail) -> list[Happening]:
    return jobs.database.look(tail.look())


def told(happened: list[Happening]) -> list[tuple[str, str]]:
    return [(each.task, each.what) for each in happened]


def test_life_of_a_job_is_told_once_and_in_order(busy: PgJobs) -> None:
    busy.tasks["flaky"].enqueue()
    busy.worker(max_jobs=2).run()
    tail = Tail(Scope())
    first = look(busy, tail)
    assert [each.what for each in first] == ["enqueued", "retried", "started", "failed"]
    assert [each.at for each in first] == sorted(each.at for each in first)
    retried, failed = first[1], first[3]
    assert (retried.text, retried.attempt) == ("OSError: try again", 1)
    assert (failed.text, failed.attempt) == ("ValueError: gone", 2)
    assert look(busy, tail) == []
    busy.tasks["add"].enqueue(1)
    busy.worker(burst=True).run()
    assert told(look(busy, tail)) == [("add", "enqueued"), ("add", "started"), ("add", "log"), ("add", "succeeded")]
    assert look(busy, tail) == []


def test_job_that_is_retried_by_hand_fails_once_more(busy: PgJobs) -> None:
    """Its attempts begin anew, so the numbers of those that fail come again."""
    job = busy.tasks["flaky"].enqueue()
    busy.worker(max_jobs=2).run()
    tail = Tail(Scope())
    assert [each.what for each in look(busy, tail)] == ["enqueued", "retried", "started", "failed"]
    job.retry()
    assert look(busy, tail) == [], "what was told is not told again as a retry"
    busy.worker(max_jobs=2).run()
    assert [each.what for each in look(busy, tail)] == ["retried", "started", "failed"]


def test_job_that_was_scheduled_long_ago_is_followed(busy: PgJobs, conn: psycopg.Connection[Any]) -> None:
    old = busy.tasks["add"].using(delay=1).enqueue(1)
    conn.execute("UPDATE pgjobs.jobs SET created_at = now() - interval '1 day'")
    busy.tasks["add"].using(queue="other").enqueue_many([(i,) for i in range(1_500)])
    tail = Tail(Scope("mail"))
    assert told(look(busy, tail)) == [("add", "enqueued")]
    with busy.worker(queues="mail"):
        eventually(lambda: old.refresh().status.ended)
    assert "succeeded" in [each.what for each in look(busy, tail)]


def test_only_what_is_asked_for_is_told(busy: PgJobs) -> None:
    mine = busy.tasks["add"].enqueue(1)
    busy.tasks["add"].enqueue(2)
    busy.tasks["flaky"].enqueue()
    busy.worker(burst=True).run()
    assert {each.task for each in look(busy, Tail(Scope(queue="mail")))} == {"add"}
    assert {each.task for each in look(busy, Tail(Scope(task="flaky")))} == {"flaky"}
    own = look(busy, Tail(Scope(job=mine.id)))
    assert {each.id for each in own} == {mine.id}
    assert "log" in [each.what for each in own]
    assert "log" not in [each.what for each in look(busy, Tail(Scope(), "warning"))]


def test_command_tells_the_last_and_follows_until_it_is_interrupted(busy: PgJobs, database_url: str) -> None:
    busy.tasks["add"].enqueue(1)
    busy.worker(burst=True).run()
    plain = pgjobs(database_url, "tail", "-n", "1").stdout.splitlines()
    assert len(plain) == 1
    assert "succeeded  add" in plain[0]
    process = subprocess.Popen(
        [*PGJOBS, "tail", "-f", "--json", "-Q", "mail", "-n", "1"],
        env=environment(database_url),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["what"] == "succeeded"
        job = busy.tasks["add"].enqueue(2)
        busy.worker(burst=True).run()
        lines = [json.loads(process.stdout.readline()) for _ in range(4)]
        assert [line["what"] for line in lines] == ["enqueued", "started", "log", "succeeded"]
        assert {line["id"] for line in lines} == {str(job.id)}
        assert lines[2]["text"] == "adding 2"
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_look_reads_few_pages_where_there_is_much(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    fill(conn)
    conn.execute("VACUUM ANALYZE pgjobs.jobs")
    conn.execute("SET jit = off")
    tail, answer, pages = Tail(Scope()), None, 0
    steps = tail.look()
    while True:
        try:
            statement: Any = steps.send(answer)
        except StopIteration:
            break
        answer = jobs.database.run(statement, conn)
        with psycopg.ClientCursor(conn) as cursor:
            text = cursor.mogrify(statement.query.text("pgjobs"), statement.params)
        plan = explain(conn, text.replace("%", "%%"))
        pages += plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
        assert "Seq Scan" not in [node["Node Type"] for node in nodes(plan) if node.get("Relation Name") == "jobs"]
    assert pages < 50_000
