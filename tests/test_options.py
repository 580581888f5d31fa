"""Every option, on each way that leads to a row: the decorator, ``using``, a bulk, the command line, and SQL."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import psycopg
import pytest
from psycopg.rows import dict_row

from pgjobs import Keep, OptionError, PgJobs, Retry, Unique, current_job
from pgjobs.options import OF_ONE_JOB, Options
from pgjobs.producer import CHUNK
from tests import processes

THEN: Final = datetime(2099, 1, 31, 8, tzinfo=UTC)
OWN_ID: Final = uuid.uuid4()

SAMPLES: Final[dict[str, tuple[Any, str]]] = {
    "queue": ("mail", "mail"),
    "priority": (7, "7"),
    "lifo": (True, "true"),
    "delay": ("1h", "1h"),
    "run_at": (THEN, ""),
    "ttl": ("2h", "2h"),
    "on_expiry": ("fail", "fail"),
    "deadline": ("3h", "3h"),
    "timeout": ("90s", "90s"),
    "soft_timeout": (20, "20"),
    "retry": (Retry(3, backoff=[1, 2]), '{"max_attempts": 3, "backoff": [1, 2]}'),
    "unique": (Unique("n", period="1h"), '{"by": "n", "period": "1h"}'),
    "idempotency_key": ("order-1", "order-1"),
    "result_ttl": ("5m", "5m"),
    "keep": (Keep(failed="90d"), '{"failed": "90d"}'),
    "ignore_result": (True, "true"),
    "meta": ({"tenant": 5}, '{"tenant": 5}'),
    "tags": (["a", "b"], '["a", "b"]'),
    "context": ({"trace": "t"}, '{"trace": "t"}'),
    "webhook": ("https://example.com/done", "https://example.com/done"),
    "job_id": (OWN_ID, str(OWN_ID)),
    "max_depth": (100, "100"),
    "when_full": ("drop", "drop"),
    "full_timeout": ("5s", "5s"),
}
"""A value of each option, in Python and on the command line."""

TOGETHER: Final = {
    "on_expiry": {"ttl": "2h"},
    "when_full": {"max_depth": 9},
    "full_timeout": {"max_depth": 9, "when_full": "block"},
}
"""What an option needs beside itself."""

IN_A_QUEUE: Final = {"max_depth", "when_full", "full_timeout"}
"""What is no row's, but asked of the queue when it comes."""

NOT_BY_SQL: Final = {"lifo", "job_id", *IN_A_QUEUE}
"""What ``pgjobs.enqueue`` does not have, as docs/jobs.md says."""

NOT_ON_A_ROW: Final = {"here"}
"""A job that starts here has a worker beside it: tests/test_steering.py."""

COLUMNS: Final = (
    "queue", "priority", "max_attempts", "status", "options", "meta", "unique_key", "lifo", "delay_s", "ttl_s",
    "timeout_s", "run_at",
)  # fmt: skip
SELECT: Final = """
    SELECT queue, priority, max_attempts, status, options, meta, unique_key, position < 0 AS lifo,
           CASE WHEN run_at > now() + interval '1 year' THEN extract(epoch FROM due_at - run_at)
                ELSE round(extract(epoch FROM due_at - created_at) / 60) END AS delay_s,
           round(extract(epoch FROM expires_at - created_at) / 60)::int AS ttl_s,
           extract(epoch FROM timeout)::int AS timeout_s,
           CASE WHEN run_at > now() + interval '1 year' THEN run_at END AS run_at
      FROM pgjobs.jobs"""


def test_every_option_has_a_sample() -> None:
    assert SAMPLES.keys() | NOT_ON_A_ROW >= Options.__annotations__.keys()


def work(n: int) -> int:
    return n


def decorated(jobs: PgJobs, options: dict[str, Any]) -> None:
    jobs.task(name="work", **options)(work).enqueue(1)


def using(jobs: PgJobs, options: dict[str, Any]) -> None:
    jobs.task(name="work")(work).using(**options).enqueue(1)


def bulk(jobs: PgJobs, options: dict[str, Any]) -> None:
    jobs.task(name="work")(work).using(**options).enqueue_many([(1,)])


def by_name(jobs: PgJobs, options: dict[str, Any]) -> None:
    jobs.using(**options).enqueue("work", n=1)


WAYS: Final = (decorated, bulk, by_name)


@pytest.mark.parametrize("option", sorted(SAMPLES))
def test_option_makes_the_same_row_on_every_way(jobs: PgJobs, conn: psycopg.Connection[Any], option: str) -> None:
    options = {option: SAMPLES[option][0], **TOGETHER.get(option, {})}
    expected = row_of(jobs, conn, using, options)
    assert expected != row_of(jobs, conn, using, {}) or option in ("max_depth", "when_full", "full_timeout", "job_id")
    for way in WAYS:
        if option in OF_ONE_JOB and way in (decorated, bulk):
            with pytest.raises(OptionError, match=option):
                way(jobs, options)
            continue
        found = row_of(jobs, conn, way, options)
        if option == "retry" and way is decorated:
            found["options"] = expected["options"]  # the task has its policy, and its rows need not
        assert found == expected, way.__name__
    assert by_command(jobs, conn, option) == expected
    if option not in NOT_BY_SQL:
        assert by_sql(conn, option, expected) == expected


@pytest.mark.parametrize("option", sorted(SAMPLES.keys() - {*OF_ONE_JOB, *IN_A_QUEUE}))
def test_option_makes_the_same_rows_where_many_are_copied(
    jobs: PgJobs, conn: psycopg.Connection[Any], option: str
) -> None:
    options = {option: SAMPLES[option][0], **TOGETHER.get(option, {})}
    expected = row_of(jobs, conn, using, options)
    jobs.task(name="work")(work).using(**options).enqueue_many([(1,)] * CHUNK)
    with conn.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(SELECT).fetchall()
    assert len(rows) == (1 if option == "unique" else CHUNK)
    assert [row for row in rows if row != expected] == []


def test_options_of_a_job_that_follows_are_those_of_any_other(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    left_out = {*OF_ONE_JOB, *IN_A_QUEUE, "unique", "run_at"}
    options: Any = {name: value for name, (value, _) in SAMPLES.items() if name not in left_out}
    expected = row_of(jobs, conn, using, options)

    @jobs.task(name="before")
    def before() -> None:
        current_job().using(**options).enqueue(jobs.tasks["work"], 1)

    before.enqueue()
    jobs.worker(queues="default", burst=True).run()
    conn.execute("DELETE FROM pgjobs.jobs WHERE task = 'before'")
    assert taken(conn) == expected


def row_of(
    jobs: PgJobs, conn: psycopg.Connection[Any], way: Callable[[PgJobs, dict[str, Any]], None], options: dict[str, Any]
) -> dict[str, Any]:
    """The row that a way has made, and nothing left of it."""
    jobs.tasks.pop("work", None)
    way(jobs, options)
    return taken(conn)


def taken(conn: psycopg.Connection[Any]) -> dict[str, Any]:
    with conn.cursor(row_factory=dict_row) as cursor:
        (row,) = cursor.execute(SELECT).fetchall()
    conn.execute("DELETE FROM pgjobs.jobs")
    return row


def by_command(jobs: PgJobs, conn: psycopg.Connection[Any], option: str) -> dict[str, Any]:
    flag = f"--{option.replace('_', '-')}"
    said = THEN.isoformat() if option == "run_at" else SAMPLES[option][1]
    flags = {"queue", "priority", "delay", "run_at", "ttl", "timeout", "job_id"}
    arguments = [flag, said] if option in flags else ["-o", f"{option}={said}"]
    for name, value in TOGETHER.get(option, {}).items():
        arguments += ["-o", f"{name}={value}"]
    done = processes.pgjobs(jobs.database.url, "enqueue", *arguments, "work", "n:=1")
    assert done.returncode == 0, done.stderr
    return taken(conn)


def by_sql(conn: psycopg.Connection[Any], option: str, expected: dict[str, Any]) -> dict[str, Any]:
    named: dict[str, Any] = {"options": expected["options"] and json.dumps(expected["options"])}
    if option in ("queue", "priority", "delay", "run_at", "timeout"):
        named[option] = SAMPLES[option][0]
    elif option in ("ttl", "on_expiry"):
        named["ttl"] = "2h"
    elif option == "retry":
        named["max_attempts"] = SAMPLES[option][0].max_attempts
    elif option in ("meta", "tags"):
        named["meta"] = json.dumps(expected["meta"])
    elif option in ("unique", "idempotency_key"):
        named["unique_key"] = expected["unique_key"]
    names = ", ".join(f"{name} => %({name})s" for name in named)
    conn.execute(f"SELECT pgjobs.enqueue('work', '{{\"n\": 1}}', {names})", named)
    return taken(conn)


def test_options_by_sql_are_those_of_the_column(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    expected = row_of(jobs, conn, using, {"deadline": "3h", "soft_timeout": 20, "retry": Retry(3, backoff=[1, 2])})
    conn.execute(
        "SELECT pgjobs.enqueue('work', '{\"n\": 1}', max_attempts => 3, options => %s)",
        [json.dumps(expected["options"])],
    )
    assert taken(conn) == expected


@pytest.mark.parametrize(
    ("said", "words"),
    [("lifo", "name=value"), ("nonsense=1", "'nonsense' is not known"), ('retry={"most": 3}', "most")],
)
def test_option_that_cannot_be_meant_is_a_usage_error(jobs: PgJobs, said: str, words: str) -> None:
    done = processes.pgjobs(jobs.database.url, "enqueue", "-o", said, "work")
    assert done.returncode == 2
    assert words in done.stderr
