"""Jobs by SQL: checked against what workers have published, and told of by a trigger where that is asked for."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from pgjobs import PgJobs, Status
from pgjobs.roles import role_name
from tests.support import eventually


@dataclass
class Address:
    city: str


def send(user: int, to: Address, ratio: float = 1.0, note: str | None = None) -> str:
    """Sends something."""
    return f"{user} {to.city} {ratio:g} {note}"


@pytest.fixture
def published(jobs: PgJobs) -> PgJobs:
    """A queue whose task a worker has published."""
    jobs.task(name="send", queue="mail", priority=3, timeout="5m", retry=2)(send)
    jobs.task(name="anything")(lambda *args, **kwargs: [args, kwargs])
    with jobs.worker(queues="nothing"):
        pass
    return jobs


def test_worker_publishes_its_tasks_and_writes_them_again_only_if_they_have_changed(
    published: PgJobs, conn: psycopg.Connection
) -> None:
    def rows() -> list[Any]:
        return conn.execute("SELECT *, xmin::text FROM pgjobs.tasks ORDER BY name").fetchall()

    first = rows()
    assert [row[0] for row in first] == ["anything", "send"]
    assert first[1][1:4] == ("mail", 3, 2)
    assert first[1][5]["required"] == ["to", "user"]
    assert first[1][6] == "Sends something."
    with published.worker(queues="nothing"):
        assert rows() == first
    published.tasks.pop("send")
    published.task(name="send", queue="post")(send)
    with published.worker(queues="nothing"):
        assert [row[1] for row in rows()] == ["default", "post"]


def test_job_by_sql_is_as_its_task_says(published: PgJobs, conn: psycopg.Connection) -> None:
    enqueued = conn.execute(
        """SELECT pgjobs.enqueue('send', '{"user": 7, "to": {"city": "Rome"}}'),
                  pgjobs.enqueue('send', '{"user": 8, "to": {"city": "Oslo"}, "ratio": 2, "note": null}', 'other', 9,
                                 max_attempts => 1, timeout => '1 second', meta => '{"by": "sql"}')"""
    ).fetchone()
    assert enqueued is not None
    first, second = (published.job(job_id) for job_id in enqueued)
    published.worker(burst=True).run()
    assert first.get(5) == "7 Rome 1 None"
    assert second.get(5) == "8 Oslo 2 None"
    row, other = first.refresh().row, second.refresh().row
    assert (row.queue, row.priority, row.max_attempts, str(row.timeout)) == ("mail", 3, 2, "0:05:00")
    assert (other.queue, other.priority, other.max_attempts, str(other.timeout)) == ("other", 9, 1, "0:00:01")
    assert other.meta == {"by": "sql"}


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        ('{"user": 7}', "argument to is missing"),
        ('{"user": 7, "to": {"city": "Rome"}, "usr": 1}', "there is no argument usr"),
        ('{"user": "7", "to": {"city": "Rome"}}', "argument user is of type string"),
        ('{"user": 7.0, "to": {"city": "Rome"}}', "argument user is of type number"),
        ('{"user": 7, "to": {"city": "Rome"}, "ratio": "2"}', "argument ratio is of type string"),
        ('{"user": 7, "to": {"city": "Rome"}, "note": 5}', "argument note is of type number"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_before_a_row_is_written(
    published: PgJobs, conn: psycopg.Connection, args: str, problem: str
) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=f"task send: {problem}") as caught:
        conn.execute("SELECT pgjobs.enqueue('send', %s::jsonb)", [args])
    assert "user" in str(caught.value.diag.message_hint)
    assert conn.execute("SELECT count(*) FROM pgjobs.jobs").fetchone() == (0,)


def test_task_that_takes_anything_takes_anything(published: PgJobs, conn: psycopg.Connection) -> None:
    conn.execute("""SELECT pgjobs.enqueue('anything', '{"a": 1, "*": [true]}')""")
    published.worker(burst=True).run()
    assert conn.execute("SELECT result FROM pgjobs.jobs").fetchone() == ([[True], {"a": 1}],)


def test_task_that_nobody_has_published_is_enqueued_as_it_is(jobs: PgJobs, conn: psycopg.Connection) -> None:
    conn.execute("""SELECT pgjobs.enqueue('unheard', '{"x": [1, {"y": null}]}')""")
    row = conn.execute("SELECT queue, priority, max_attempts, timeout::text FROM pgjobs.jobs").fetchone()
    assert row == ("default", 0, 5, "01:00:00")


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("''", "the task has no name"),
        ("'x', '[1]'", "args is [1]; give a JSON object"),
        ("'x', NULL", "args is NULL; give a JSON object"),
        ("'x', queue => ''", "queue '' is not a name"),
        ("'x', queue => 'a b'", "queue 'a b' is not a name"),
        ("'x', queue => E'mail\n'", "is not a name"),
        ("'x', queue => '-mail'", "queue '-mail' is not a name"),
        ("'x', queue => repeat('a', 101)", "100 characters at most"),
        ("'x', priority => 101", "priority is 101; give a whole number from -100 to 100"),
        ("'x', max_attempts => 0", "max_attempts is 0; give the number"),
        ("'x', max_attempts => 32768", "max_attempts is 32768; give the number"),
        ("'x', delay => '-1 second'", "delay is -00:00:01; give a length of time"),
        ("'x', ttl => '-1 second'", "ttl is -00:00:01; give a length of time"),
        ("'x', ttl => '101 years'", "ttl is 101 years; give a length of time"),
        ("'x', timeout => '-1 second'", "timeout is -00:00:01; give a length of time"),
        ("'x', meta => '[1]'", "meta is [1]; give a JSON object"),
        ("'x', options => '[1]'", "options is [1]; give a JSON object"),
        ("""'x', options => '{"lifo": true, "nonsense": 1}'""", "there is no option nonsense; there are context,"),
        ("""'x', options => '{"deadline": "1h"}'""", 'option deadline is "1h"; give seconds'),
        ("""'x', options => '{"soft_timeout": -1}'""", "option soft_timeout is -1; give seconds, from 0"),
        ("""'x', options => '{"keep": 1e400}'""", "give seconds, from 0 to a hundred years"),
    ],
)
def test_what_no_worker_could_do_anything_with_is_refused_before_a_row_is_written(
    jobs: PgJobs, conn: psycopg.Connection, given: str, problem: str
) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue) as caught:
        conn.execute(f"SELECT pgjobs.enqueue({given})")
    assert problem in str(caught.value.diag.message_primary)
    assert conn.execute("SELECT count(*) FROM pgjobs.jobs").fetchone() == (0,)


def test_delay_and_run_at_exclude_each_other(jobs: PgJobs, conn: psycopg.Connection) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="give one of them"):
        conn.execute("SELECT pgjobs.enqueue('x', delay => '1 hour', run_at => now())")


def test_unique_key_by_sql_returns_the_job_that_is_there(jobs: PgJobs, conn: psycopg.Connection) -> None:
    enqueue = "SELECT pgjobs.enqueue('x', unique_key => %s)"
    first, second, other = (conn.execute(enqueue, [key]).fetchone() for key in "aab")
    assert first == second != other
    assert jobs.using(unique=lambda: "a").enqueue("x").is_new, "keys that Python makes have the task before them"


@pytest.fixture
def triggered(conn: psycopg.Connection) -> psycopg.Connection:
    conn.execute("SELECT pgjobs.notify_raw_inserts(true)")
    return conn


def test_trigger_tells_idle_workers_of_raw_inserts(
    jobs: PgJobs, triggered: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgjobs.worker.claiming.pace.POLL_S", 60.0)
    jobs.task(name="echo")(lambda i: i)
    with jobs.worker():
        jobs.using().enqueue("echo", 0).get(10)
        for i in range(3):
            eventually(lambda: triggered.execute("SELECT count(*) FROM pgjobs.idlers").fetchone() == (1,))
            row = triggered.execute(
                "INSERT INTO pgjobs.jobs (task, args) VALUES ('echo', jsonb_build_object('i', %s::int)) RETURNING id",
                [i],
            ).fetchone()
            assert row is not None
            assert jobs.job(row[0]).get(10) == i


def test_trigger_may_be_switched_on_and_off_again(conn: psycopg.Connection) -> None:
    def triggers() -> int:
        found = conn.execute("SELECT count(*) FROM pg_trigger WHERE tgname = 'tell_of_inserted'").fetchone()
        return found[0] if found else -1

    assert triggers() == 0
    for enabled in (True, True, False, False, True):
        conn.execute("SELECT pgjobs.notify_raw_inserts(%s)", [enabled])
        assert triggers() == enabled


def test_worker_that_may_not_publish_works_all_the_same(
    jobs: PgJobs, conn: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    jobs.task(name="echo")(lambda i: i)
    job = jobs.using().enqueue("echo", 1)
    name = f"{role_name('worker')}_of_old"
    conn.execute(f"CREATE ROLE {name}".encode())
    try:
        conn.execute(f"GRANT ALL ON SCHEMA pgjobs TO {name}".encode())
        conn.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA pgjobs TO {name}".encode())
        conn.execute(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA pgjobs TO {name}".encode())
        conn.execute(f"REVOKE ALL ON pgjobs.tasks FROM {name}".encode())
        with closing(PgJobs(f"{jobs.database.url}?options=-crole%3D{name}")) as lesser:
            lesser.task(name="echo")(lambda i: i)
            lesser.worker(burst=True).run()
        assert job.refresh().status is Status.SUCCEEDED
        assert "pgjobs roles create" in caplog.text
    finally:
        conn.execute(f"DROP OWNED BY {name}; DROP ROLE {name}".encode())
