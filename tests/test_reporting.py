"""docs/reporting.md is true: every question has an answer, for a reader; and all that counts jobs counts the same."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from contextlib import closing
from typing import Any, Final
from uuid import UUID

import msgspec
import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families
from psycopg import sql

from pgjobs import Cancel, PgJobs, Retry, current_job, statements
from pgjobs.connections.link import Link
from pgjobs.job import new_id
from pgjobs.statements import Range
from pgjobs.supervisor.metrics import Metrics
from pgjobs.worker.tally import Tally
from tests.privileges import login, schema_with_roles
from tests.processes import ROOT, pgjobs
from tests.support import eventually

pytestmark = pytest.mark.server

PAGE: Final = (ROOT / "docs" / "reporting.md").read_text()
JOBS: Final = 100_000 if "PGJOBS_LONG_S" in os.environ else 3_000


# -- the cookbook


def questions() -> dict[str, str]:
    """The SQL under each heading of the page that asks something."""
    parts = [part.partition("\n") for part in re.split(r"^### ", PAGE, flags=re.MULTILINE)[1:]]
    found = {title: re.findall(r"^```sql\n(.*?)^```", text, re.MULTILINE | re.DOTALL) for title, _, text in parts}
    assert {len(blocks) for blocks in found.values()} == {1}
    return {title: blocks[0] for title, blocks in found.items()}


def refuse(customer_id: int) -> None:
    raise ValueError("no such customer")


def keep_shop(jobs: PgJobs, conn: psycopg.Connection[Any], schema: str) -> None:
    """Leaves jobs of every kind, a worker that runs one for ever, and a table of orders."""
    hourly = Retry(max_attempts=2, backoff=[1800], jitter=False)
    send, failing = jobs.task(name="mail.send")(lambda customer_id: None), jobs.task(name="mail.refuse")(refuse)
    ordered = send.using(meta={"user": "ann", "release": "2026.11"}).enqueue(42)
    lost = send.using(ttl=0.01, queue="nobody").enqueue(5)
    failing.using(retry=1).enqueue(1)
    failing.using(retry=hourly).enqueue_many([(2,), (3,), (4,)])
    count = f"SELECT sum(jobs) FROM {schema}.rollups WHERE status IN ('retried', 'failed')".encode()
    with jobs.worker(queues="default"):
        eventually(lambda: conn.execute(count).fetchone() == (4,))
        eventually(lambda: ordered.refresh().status.ended and lost.refresh().status.ended)
    send.using(timeout=90).enqueue(6)
    claim_one(jobs)
    conn.execute(f"UPDATE {schema}.jobs SET started_at = now() - interval '60 s' WHERE status = 'running'".encode())
    send.using(queue="nobody").enqueue(7)
    send.using(delay=60).enqueue(8).hold("asked for")
    jobs.pause(queue="nobody", reason="a move")
    jobs.mark("v1.2.3")
    jobs.database.run(statements.note_action("ann@host", "retry", {"task": "mail.send"}))
    conn.execute("CREATE TABLE orders (id int PRIMARY KEY, placed_at timestamptz DEFAULT now(), job_id uuid)")
    conn.execute("INSERT INTO orders (id, job_id) VALUES (1, %s), (2, %s)", [ordered.id, lost.id])


def claim_one(jobs: PgJobs) -> None:
    """Takes a job as a worker does that then says nothing more."""
    worker = new_id()
    with closing(Link(jobs.database, "test")) as link:
        link.one(
            statements.register(
                worker, supervisor=worker, name="w", host="h", pid=1, process="{}", queues=["*"], slots=1
            )
        )
        assert len(link.one(statements.claim(worker, new_id(), [Range(("default", 0))], 1))) == 1


def test_every_question_has_an_answer_for_a_reader(conn: psycopg.Connection[Any], direct_url: str) -> None:
    asked = questions()
    assert len(asked) >= 25
    unanswered = []
    with schema_with_roles(conn, direct_url) as schema, login(conn, direct_url, schema, "reader") as url:
        with closing(PgJobs(direct_url, schema=schema)) as jobs:
            keep_shop(jobs, conn, schema)
        conn.execute(sql.SQL("GRANT SELECT ON orders TO {}").format(sql.Identifier(f"{schema}_reader")))
        with psycopg.connect(url) as reader:
            for title, query in asked.items():
                if not reader.execute(query.replace("pgjobs.", f"{schema}.").encode()).fetchall():
                    unanswered.append(title)
    assert not unanswered


def test_page_has_a_row_for_every_view(conn: psycopg.Connection[Any]) -> None:
    views = conn.execute(
        "SELECT relname, obj_description(oid, 'pg_class') FROM pg_class"
        " WHERE relnamespace = 'pgjobs'::regnamespace AND relkind = 'v'"
    ).fetchall()
    table = "\n".join(line for line in PAGE.splitlines() if line.startswith("| "))
    assert len(views) == 10
    assert [name for name, comment in views if not comment] == []
    assert [name for name, _ in views if f"{name.replace('throughput', '')}`" not in table] == []


# -- the ledger


class Shop:
    """Tasks that end in every way, and a ledger of how their jobs are to stand: (task, queue, status)."""

    def __init__(self, jobs: PgJobs) -> None:
        self.jobs = jobs
        self.standing: Counter[tuple[str, str, str]] = Counter()
        self.attempts: Counter[tuple[str, str, str]] = Counter()
        again = Retry(max_attempts=3, backoff=[0.01], jitter=False)
        self._sum = jobs.task(name="sum", queue="a")(lambda n: n + n)
        self._boom = jobs.task(name="boom", queue="a", retry=1)(lambda n: 1 / 0)
        self._flaky = jobs.task(name="flaky", queue="b", retry=again)(self._fail_once)
        self._quit = jobs.task(name="quit", queue="b")(self._give_up)

    @staticmethod
    def _fail_once(n: int) -> None:
        if current_job().attempt == 1:
            raise OSError("once")

    @staticmethod
    def _give_up(n: int) -> None:
        raise Cancel("not needed")

    def enqueue(self, count: int) -> None:
        """Enqueues so many jobs that workers end, and some that they do not."""
        for share, task, status in (
            (0.7, self._sum, "succeeded"),
            (0.1, self._boom, "failed"),
            (0.1, self._flaky, "succeeded"),
            (0.1, self._quit, "cancelled"),
        ):
            many = task.enqueue_many([(n,) for n in range(int(share * count))])
            self._note(task, status, len(many))
        self.attempts["flaky", "b", "retried"] += int(0.1 * count)
        odd = max(10, count // 200)
        self._note(self._sum, "expired", len(self._put(odd, ttl=0.01, queue="nobody")), "nobody")
        self._note(self._sum, "scheduled", len(self._put(odd + 1, delay=3600, queue="late")), "late")
        self._note(self._sum, "queued", len(self._put(odd + 2, queue="nobody")), "nobody")
        self._note(self._sum, "blocked", len(self.jobs.hold(self._put(odd + 3, queue="nobody"))), "nobody")
        self._note(self._sum, "cancelled", len(self.jobs.cancel(self._put(odd + 4, queue="nobody"))), "nobody")

    def _put(self, count: int, **options: Any) -> list[UUID]:
        return self._sum.using(**options).enqueue_many([(n,) for n in range(count)])

    def _note(self, task: Any, status: str, count: int, queue: str | None = None) -> None:
        assert count > 0
        self.standing[task.name, queue or {"sum": "a", "boom": "a"}.get(task.name, "b"), status] += count

    def handled(self) -> dict[tuple[str, str, str], int]:
        """How the rollups are to count."""
        return {key: count for key, count in (self.standing + self.attempts).items() if key[2] in OUTCOMES}

    def by_queue(self, status: str) -> dict[str, int]:
        """How many of a status each queue is to have."""
        found: Counter[str] = Counter()
        for (_, queue, known), count in (self.standing + self.attempts).items():
            found[queue] += count if known == status else 0
        return dict(found)


OUTCOMES: Final = ("succeeded", "failed", "cancelled", "expired", "retried", "snoozed")


def counted(conn: psycopg.Connection[Any], view: str, *, queues: bool) -> dict[tuple[str, str, str], int]:
    """What a view says that has a column for each outcome, with the queue where it knows one."""
    columns = ", ".join(f"sum({outcome})::int" for outcome in OUTCOMES)
    keys = "task, queue" if queues else "task"
    found: dict[tuple[str, str, str], int] = {}
    for row in conn.execute(f"SELECT {keys}, {columns} FROM pgjobs.{view} GROUP BY {keys}".encode()):
        task, queue = row[0], row[1] if queues else ""
        found |= {
            (task, queue, outcome): count
            for outcome, count in zip(OUTCOMES, row[-len(OUTCOMES) :], strict=True)
            if count
        }
    return found


def assert_views_agree(shop: Shop, conn: psycopg.Connection[Any], url: str) -> None:
    for unit in ("minute", "hour", "day"):
        assert counted(conn, f"throughput_{unit}", queues=True) == shop.handled(), unit
    without_queue: Counter[tuple[str, str, str]] = Counter()
    for (task, _, status), count in shop.handled().items():
        without_queue[task, "", status] += count
    assert counted(conn, "task_stats", queues=False) == without_queue
    said = json.loads(pgjobs(url, "info", "--json").stdout)
    for status in ("queued", "scheduled", "succeeded", "failed", "cancelled", "expired", "retried"):
        expected = shop.by_queue(status)
        assert {line["queue"]: line[status] for line in said["queues"]} == expected, status
        view = conn.execute(f"SELECT queue, {status} FROM pgjobs.queue_stats".encode()).fetchall()
        assert dict(view) == expected, status
    totals: Counter[str] = Counter()
    for (_, _, status), count in shop.handled().items():
        totals[status] += count
    assert said["last_hour"] == totals


def scraped(tally: Tally) -> dict[tuple[str, str, str], int]:
    """What Prometheus reads of a worker: the ends that it has recorded itself."""
    metrics = Metrics()
    metrics.hear(1, msgspec.to_builtins(tally.take()))
    text = metrics.text(processes=1, ready=1, reachable=True, queues=[])
    return {
        (sample.labels["task"], sample.labels["queue"], sample.labels["status"]): int(sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "pgjobs_jobs_total"
    }


def standing(conn: psycopg.Connection[Any], table: str) -> dict[tuple[str, str, str], int]:
    rows = conn.execute(f"SELECT task, queue, status, count(*) FROM pgjobs.{table} GROUP BY 1, 2, 3".encode())
    return {(task, queue, status): count for task, queue, status, count in rows}


def of(shop: Shop, *statuses: str) -> dict[tuple[str, str, str], int]:
    return {key: count for key, count in shop.standing.items() if key[2] in statuses}


def prune(jobs: PgJobs) -> None:
    """Deletes all jobs that have ended, as the duty does that comes by when they are old."""
    after = UUID(int=0)
    while (step := jobs.database.run(statements.prune(after, 0.0, 0.0, 0.0))).reached is not None:
        after = step.reached


def test_numbers_agree_with_the_ledger_before_and_after_pruning(
    jobs: PgJobs, database_url: str, conn: psycopg.Connection[Any]
) -> None:
    shop = Shop(jobs)
    shop.enqueue(JOBS)
    ended = of(shop, "succeeded", "failed", "cancelled", "expired")
    tally = Tally(lambda event: None)
    with jobs.worker(queues="a,b", emit=tally):
        eventually(lambda: standing(conn, "history") == ended, timeout_s=10 + JOBS / 500)
    assert standing(conn, "jobs") == shop.standing
    assert scraped(tally) == {key: count for key, count in shop.handled().items() if key[1] in ("a", "b")}
    assert_views_agree(shop, conn, database_url)
    jobs.database.run(statements.roll_up())
    prune(jobs)
    assert standing(conn, "history") == {}
    assert standing(conn, "jobs") == of(shop, "queued", "scheduled", "blocked")
    assert_views_agree(shop, conn, database_url)
