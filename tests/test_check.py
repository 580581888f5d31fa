"""``pgjobs check``: each state a monitor may see is made, and seen by its exit code and its one line."""

from __future__ import annotations

import json
import re
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result

from pgjobs import PgJobs
from pgjobs.cli.check import command
from pgjobs.statements import QUERIES
from tests.processes import pgjobs
from tests.support import eventually
from tests.test_explain import put_worker

pytestmark = pytest.mark.server

Conn = psycopg.Connection[Any]


@pytest.fixture
def check(database_url: str) -> Any:
    def run(*arguments: str) -> Result:
        done = CliRunner().invoke(command, ["--url", database_url, *arguments])
        assert done.exit_code in range(4)
        return done

    return run


def test_idle_fleet_is_well_and_says_so_in_one_line(check: Any, conn: Conn) -> None:
    put_worker(conn)
    done = check()
    assert done.exit_code == 0
    assert done.output == (
        "PGJOBS OK - nothing waits, 0 failed in 15 min 0 s, 1 worker, 0 fell silent |"
        " age=0s;300;1800;0 failed=0;;;0 workers=1;;1:;0 dead=0;0;;0\n"
    )


def test_age_of_the_oldest_waiting_job(check: Any, jobs: PgJobs, conn: Conn) -> None:
    put_worker(conn)
    for queue, age in (("mail", "10 minutes"), ("web", "1 minute")):
        conn.execute(
            "INSERT INTO pgjobs.jobs (task, queue, created_at) VALUES ('t', %s, now() - %s::interval)", [queue, age]
        )
    warned = check()
    assert (warned.exit_code, warned.output[:53]) == (1, "PGJOBS WARNING - the oldest job waits for 10 min 0 s ")
    assert "in queue mail |" in warned.output
    assert check("--max-age", "1m,2m").exit_code == 2
    assert check("--max-age", "2m").exit_code == 2, "one value is critical"
    assert check("--max-age", "2m,").exit_code == 1
    assert check("-Q", "web").exit_code == 0
    assert check("-Q", "web", "-Q", "mail").exit_code == 1


def test_age_counts_what_should_have_started_and_no_retry(check: Any, conn: Conn) -> None:
    put_worker(conn)
    old = "now() - interval '1 hour'"
    conn.execute(
        f"INSERT INTO pgjobs.jobs (task, created_at, attempt) SELECT 't', {old}, 1 FROM generate_series(1, 3)".encode()
    )
    conn.execute(f"INSERT INTO pgjobs.jobs (task, created_at, run_at) VALUES ('t', {old}, now())".encode())
    assert check().exit_code == 0
    conn.execute(
        b"INSERT INTO pgjobs.jobs (task, status, position, due_at)"
        b" VALUES ('t', 'scheduled', NULL, now() + interval '1 day'), ('@x', 'scheduled', NULL, now())"
    )
    assert check().exit_code == 0
    conn.execute("UPDATE pgjobs.jobs SET due_at = now() - interval '1 hour' WHERE task = 't' AND due_at > now()")
    assert check().exit_code == 2
    conn.execute("DELETE FROM pgjobs.jobs WHERE due_at IS NOT NULL")
    conn.execute(
        "INSERT INTO pgjobs.jobs (task, created_at, position)"
        f" SELECT 't', {old}, -i FROM generate_series(1, 1) AS i UNION ALL SELECT 't', now(), -2".encode()
    )
    assert check().exit_code == 2, "the first that was put before the others waits longest"


def test_failures_of_a_period(check: Any, jobs: PgJobs, conn: Conn) -> None:
    put_worker(conn)
    conn.execute(
        "INSERT INTO pgjobs.rollups (minute, queue, task, status, bucket, jobs, seconds) VALUES"
        " (now() - interval '10 minutes', 'mail', 't', 'failed', 0, 7, 1), (now(), 'web', 't', 'failed', 0, 2, 1),"
        " (now(), 'web', 't', 'succeeded', 0, 90, 1)"
    )
    assert check().exit_code == 0, "no limit, no alarm"
    assert check("--max-failed", "5,20").exit_code == 1
    assert check("--max-failed", "5,8").output.startswith("PGJOBS CRITICAL - 9 failed in 15 min 0 s |")
    assert check("--max-failed", "5,8", "--within", "2m").exit_code == 0
    assert check("--max-failed", "5", "-Q", "web").exit_code == 0


def test_no_worker_and_too_few(check: Any, conn: Conn) -> None:
    assert check().output.startswith("PGJOBS CRITICAL - no worker |")
    assert check("--min-workers", "0").exit_code == 0
    put_worker(conn, "mail,web.*")
    assert check("--min-workers", "1").exit_code == 0
    assert check("--min-workers", "2").exit_code == 2
    assert check("-Q", "mail", "-Q", "web.x").exit_code == 0
    assert check("-Q", "mail", "-Q", "other").output.startswith("PGJOBS CRITICAL - no worker for queue other |")


def test_worker_that_fell_silent(check: Any, conn: Conn) -> None:
    put_worker(conn)
    silent = put_worker(conn, silent="1 minute")
    assert check().output.startswith("PGJOBS WARNING - 1 fell silent (ada:7.0) |")
    assert check("--max-dead", "0").exit_code == 2
    assert check("--max-dead", "1,").exit_code == 0
    conn.execute("UPDATE pgjobs.workers SET dead_at = now() WHERE id = %s", [silent])
    assert check().exit_code == 0, "it has taken leave"
    conn.execute("UPDATE pgjobs.workers SET misses = 7 WHERE id = %s", [silent])
    assert check().exit_code == 1
    conn.execute("UPDATE pgjobs.workers SET dead_at = now() - interval '1 hour' WHERE id = %s", [silent])
    assert check().exit_code == 0


def test_real_worker_counts(check: Any, jobs: PgJobs) -> None:
    with jobs.worker(queues="mail"):
        eventually(lambda: check("-Q", "mail").exit_code == 0)
        assert check("-Q", "web").exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--max-age", "soon"], 3, "is no limit; write one value, or two as in 5m,30m"),
        (["--max-age", "30m,5m"], 3, "write the lower one first, as in 5m,30m"),
        (["--no-such"], 3, "No such option"),
        (["--within", "soon"], 3, "'10m'"),
        (["--max-failed", "nan"], 3, "'nan' is no limit"),
        (["--max-dead", "-1"], 3, "'-1' is no limit"),
        (["--schema", "nowhere"], 3, "pgjobs migrate --schema nowhere"),
        (["--url", "postgresql://127.0.0.1:1/none"], 2, "refused"),
    ],
)
def test_what_keeps_it_from_looking_is_a_line_too(
    arguments: list[str], code: int, says: str, database_url: str
) -> None:
    done = pgjobs(database_url, "check", *arguments)
    assert (done.returncode, done.stderr) == (code, "")
    assert re.fullmatch(r"PGJOBS (UNKNOWN|CRITICAL) - [^\n]+\n", done.stdout)
    assert says in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [(["--url", "postgresql://127.0.0.1:1/none"], 2, "refused"), (["--within", "soon"], 3, "'10m'"), (["-x"], 3, "-x")],
)
def test_json_is_json_where_something_keeps_it_from_looking(
    arguments: list[str], code: int, says: str, database_url: str
) -> None:
    done = pgjobs(database_url, "check", "--json", *arguments)
    document = json.loads(done.stdout)
    assert (done.returncode, document["code"], document["measures"]) == (code, code, [])
    assert says in document["says"]


def test_json_has_every_measure(check: Any, conn: Conn) -> None:
    document = json.loads(check("--json").output)
    assert (document["status"], document["code"]) == ("CRITICAL", 2)
    assert {measure["name"]: measure["status"] for measure in document["measures"]} == {
        "age": "OK", "failed": "OK", "workers": "CRITICAL", "dead": "OK",
    }  # fmt: skip


def test_it_reads_little_of_a_large_table(conn: Conn) -> None:
    conn.execute(
        "INSERT INTO pgjobs.jobs (task, queue, priority)"
        " SELECT 't', 'q' || i % 5, i % 2 FROM generate_series(1, 60000) AS i"
    )
    conn.execute("VACUUM ANALYZE pgjobs.jobs")
    plan = conn.execute(
        "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + QUERIES["ages_of_queues"].text("pgjobs"), {"queues": None}
    ).fetchone()
    assert plan is not None
    top = (plan[0] if isinstance(plan[0], list) else json.loads(plan[0]))[0]["Plan"]
    assert top["Shared Hit Blocks"] + top["Shared Read Blocks"] < 2_000
