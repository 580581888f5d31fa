"""Each role can do its work, and nothing else: every privilege that it must not have is tried."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.errors import CheckViolation, InsufficientPrivilege

from pgjobs import PgJobs, migrations, roles
from tests.privileges import login, schema_with_roles
from tests.processes import pgjobs
from tests.support import eventually

pytestmark = pytest.mark.server


@pytest.fixture
def schema(direct_url: str, conn: psycopg.Connection[Any]) -> Iterator[str]:
    with schema_with_roles(conn, direct_url) as name:
        yield name


@pytest.fixture
def as_(conn: psycopg.Connection[Any], direct_url: str, schema: str) -> Iterator[Callable[[str], PgJobs]]:
    """Makes a PgJobs for a user with a role."""
    from contextlib import ExitStack

    with ExitStack() as stack:

        def make(role: str) -> PgJobs:
            jobs = PgJobs(stack.enter_context(login(conn, direct_url, schema, role)), schema=schema)
            stack.callback(jobs.close)
            return jobs

        yield make


def test_producer_and_worker_do_their_work(as_: Callable[[str], PgJobs]) -> None:
    producer, worker = as_("producer"), as_("worker")
    work = producer.task(name="work")(lambda i: i)
    worker.task(name="work")(lambda i: i if i >= 0 else 1 // 0)
    with worker.worker():
        assert work.enqueue(1).get(15) == 1
        assert work.using(delay=0.1).enqueue(2).get(15) == 2
        ids = work.enqueue_many([(i,) for i in range(3_000)])
        assert len(producer.wait(ids, 30)) == 3_000
        failed = work.using(retry=1).enqueue(-1)
        eventually(lambda: failed.refresh().status.ended)
        assert [failure.exception for failure in failed.failures()] == ["ZeroDivisionError"]


def test_admin_and_reader_do_theirs(as_: Callable[[str], PgJobs], schema: str) -> None:
    producer, admin, reader = as_("producer"), as_("admin"), as_("reader")
    ids = producer.task(name="work")(lambda i: i).enqueue_many([(i,) for i in range(4)])
    admin.job(ids[0]).cancel()
    admin.job(ids[0]).retry()
    hooked = producer.using(webhook="http://127.0.0.1:9/", delay="1h").enqueue("work", 0)
    admin.job(hooked.id).cancel()
    with psycopg.connect(reader.database.url) as conn:
        messages = conn.execute(f"SELECT count(*) FROM {schema}.jobs WHERE task = 'pgjobs.webhook'").fetchone()
        assert messages == (1,), "it may enqueue none itself, but what it cancels is told"
    admin.job(ids[1]).delete()
    assert [jobs.mark("v1").text for jobs in (producer, admin)] == ["v1", "v1"]
    assert len(reader.marks()) == 2
    assert {reader.job(job_id).status for job_id in (ids[0], ids[2])} == {"queued"}
    with psycopg.connect(reader.database.url) as conn:
        for table in roles.TABLES:
            conn.execute(f"SELECT * FROM {schema}.{table}")


FORBIDDEN = {
    "producer": [
        "UPDATE jobs SET status = 'succeeded', position = NULL",
        "DELETE FROM jobs",
        "INSERT INTO jobs (task, status, position, claim_id) VALUES ('t', 'running', NULL, gen_random_uuid())",
        "INSERT INTO jobs (task, result) VALUES ('t', '1')",
        "SELECT * FROM claims",
        "SELECT * FROM rollups",
        "DELETE FROM marks",
        "UPDATE workers SET dead_at = now()",
        "INSERT INTO idlers (queue, worker_id) VALUES ('*', gen_random_uuid())",
        "SELECT cancel(ARRAY[gen_random_uuid()])",
        "SELECT delete(ARRAY[gen_random_uuid()])",
        "TRUNCATE jobs",
        "SELECT setval('positions', 1)",
        "CREATE TABLE mine (i int)",
        "ALTER TABLE jobs DISABLE TRIGGER ALL",
    ],
    "worker": [
        "TRUNCATE jobs",
        "DROP TABLE jobs",
        "CREATE TABLE mine (i int)",
        "ALTER TABLE jobs ADD COLUMN mine int",
        "CREATE TRIGGER mine BEFORE UPDATE ON jobs EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "UPDATE alembic_version SET version_num = '0001'",
        "SELECT setval('positions', 1)",
    ],
    "reader": [
        "INSERT INTO jobs (task) VALUES ('t')",
        "UPDATE jobs SET priority = 1",
        "DELETE FROM jobs",
        "SELECT enqueue('t')",
        "SELECT cancel(ARRAY[gen_random_uuid()])",
        "SELECT nextval('positions')",
        "INSERT INTO waiters (channel) VALUES ('x')",
        "INSERT INTO marks (text) VALUES ('v1')",
        "TRUNCATE jobs",
        "CREATE TABLE mine (i int)",
    ],
    "admin": [
        "INSERT INTO jobs (task) VALUES ('t')",
        "SELECT enqueue('t')",
        "UPDATE workers SET dead_at = now()",
        "DELETE FROM claims",
        "DELETE FROM rollups",
        "UPDATE duties SET next_at = now()",
        "TRUNCATE jobs",
        "DROP TABLE jobs",
        "CREATE TABLE mine (i int)",
    ],
}


@pytest.mark.parametrize("role", FORBIDDEN)
def test_role_is_refused_what_it_must_not_do(
    role: str, conn: psycopg.Connection[Any], direct_url: str, schema: str
) -> None:
    allowed: list[str] = []
    with login(conn, direct_url, schema, role) as url, psycopg.connect(url, autocommit=True) as own:
        own.execute(sql.SQL("SET search_path = {}").format(sql.Identifier(schema)))
        for statement in FORBIDDEN[role]:
            try:
                own.execute(statement.encode())
            except InsufficientPrivilege:
                continue
            allowed.append(statement)
    assert allowed == []


FORGED = """{"id": "m", "url": "http://127.0.0.1:9/", "body": {"type": "job.succeeded"}}"""


def test_nobody_but_pgjobs_makes_messages_or_changes_them(
    as_: Callable[[str], PgJobs], conn: psycopg.Connection[Any], schema: str
) -> None:
    producer, worker = as_("producer"), as_("worker")
    add = "INSERT INTO {}.jobs (task, args) VALUES ('pgjobs.webhook', %s)"
    for jobs in (producer, worker):
        with psycopg.connect(jobs.database.url, autocommit=True) as own:
            own.execute("CREATE FUNCTION pg_temp.pg_has_role(name, oid, text) RETURNS boolean RETURN true")
            own.execute(f"SET search_path = pg_temp, pg_catalog, {schema}".encode())
            for statement, params in (
                (add.format(schema), [FORGED]),
                ("SELECT enqueue(%s, %s)", ["pgjobs.webhook", FORGED]),
            ):
                with pytest.raises(InsufficientPrivilege, match="by nobody else"):
                    own.execute(statement.encode(), params)
            with (
                pytest.raises(InsufficientPrivilege),
                own.cursor().copy(f"COPY {schema}.jobs (task, args) FROM STDIN".encode()) as copy,
            ):
                copy.write_row(("pgjobs.webhook", FORGED))
    worker.task(name="work")(lambda: 1)
    producer.using(webhook="http://127.0.0.1:9/").enqueue("work")
    worker.worker(max_jobs=1).run()
    assert conn.execute(f"SELECT count(*) FROM {schema}.jobs WHERE task = 'pgjobs.webhook'").fetchone() == (1,)
    with psycopg.connect(producer.database.url, autocommit=True) as own:
        with pytest.raises(InsufficientPrivilege, match="by nobody else"):
            own.execute(f"UPDATE {schema}.jobs SET args = %s WHERE task = 'pgjobs.webhook'".encode(), [FORGED])
        own.execute(f"UPDATE {schema}.jobs SET args = args".encode())


@pytest.mark.parametrize(
    "row",
    [
        "(task, status, position) VALUES ('t', 'running', NULL)",
        "(task, status, position, unique_key) VALUES ('t', 'succeeded', NULL, 'order 7')",
        "(task, position) VALUES ('t', 9223372036854775807)",
        "(task, position) VALUES ('t', -9223372036854775808)",
    ],
)
def test_no_producer_makes_a_row_that_could_not_have_come_about(
    row: str, as_: Callable[[str], PgJobs], schema: str
) -> None:
    with psycopg.connect(as_("producer").database.url, autocommit=True) as own, pytest.raises(CheckViolation):
        own.execute(f"INSERT INTO {schema}.jobs {row}".encode())


def test_check_finds_what_is_missing_and_what_is_too_much(conn: psycopg.Connection[Any], schema: str) -> None:
    assert roles.check(conn, schema) == []
    conn.execute(f"GRANT DELETE ON {schema}.jobs TO {schema}_producer")
    conn.execute(f"GRANT INSERT (claim_id) ON {schema}.jobs TO {schema}_producer")
    conn.execute(f"REVOKE USAGE ON SCHEMA {schema} FROM {schema}_reader")
    conn.execute(f"REVOKE INSERT ON {schema}.failures FROM {schema}_worker")
    assert sorted(map(str, roles.check(conn, schema))) == [
        f"{schema}_producer has, and should not, DELETE ON jobs",
        f"{schema}_producer has, and should not, INSERT OF claim_id ON jobs",
        f"{schema}_reader lacks USAGE ON SCHEMA",
        f"{schema}_worker lacks INSERT ON failures",
    ]
    assert roles.create(conn, schema) == []
    assert roles.check(conn, schema) == []


def test_tables_of_a_later_release_are_not_forgotten(conn: psycopg.Connection[Any], schema: str) -> None:
    rows = conn.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = %s::regnamespace AND relkind IN ('r', 'v')", [schema]
    ).fetchall()
    assert {row[0] for row in rows} == set(roles.TABLES)


def test_command_creates_and_checks(direct_url: str, schema: str, conn: psycopg.Connection[Any]) -> None:
    url = ["--url", direct_url, "--schema", schema]
    written = pgjobs(direct_url, "roles", "create", "--sql", *url).stdout
    assert f'GRANT USAGE ON SCHEMA "{schema}" TO "{schema}_worker";' in written
    assert pgjobs(direct_url, "roles", "check", *url).returncode == 0
    conn.execute(f"GRANT TRUNCATE ON {schema}.jobs TO {schema}_worker")
    checked = pgjobs(direct_url, "roles", "check", *url)
    assert checked.returncode == 1
    assert f"{schema}_worker has, and should not, TRUNCATE ON jobs" in checked.stderr
    assert "run `pgjobs roles create`" in checked.stderr
    assert "worker" in pgjobs(direct_url, "roles", "create", *url).stdout
    assert pgjobs(direct_url, "roles", "check", *url).returncode == 0


@pytest.mark.parametrize(
    ("role", "words"),
    [
        ("producer", "info"),
        ("producer", "jobs explain {id}"),
        ("producer", "jobs retry {id}"),
        ("reader", "mark v1"),
        ("reader", "queues pause mail"),
        ("admin", "enqueue work 1"),
        ("worker", "jobs cancel -Q default -y"),
        ("worker", "worker -A tests.apps.basic"),
        ("reader", "worker -A tests.apps.basic"),
    ],
)
def test_command_says_in_a_sentence_what_its_role_may_not(
    role: str, words: str, conn: psycopg.Connection[Any], direct_url: str, schema: str
) -> None:
    job = PgJobs(direct_url, schema=schema).using(delay="1h").enqueue("work")
    with login(conn, direct_url, schema, role) as url:
        if role == "worker" and words.startswith("worker "):
            conn.execute(f"REVOKE INSERT ON {schema}.workers FROM {schema}_worker".encode())
        done = pgjobs(url, *words.format(id=job.id).split(), PGJOBS_SCHEMA=schema)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert re.search(r"permission denied for .*; give the role one of those that `pgjobs roles create`", done.stderr)


def test_whoever_may_not_grant_is_told_so_and_not_that_it_is_done(
    conn: psycopg.Connection[Any], direct_url: str, schema: str
) -> None:
    conn.execute(f"REVOKE SELECT ON {schema}.jobs FROM {schema}_reader".encode())
    with login(conn, direct_url, schema, "admin") as url:  # the server only warns whoever has some privilege
        done = pgjobs(url, "roles", "create", "--schema", schema)
    assert (done.returncode, done.stdout) == (1, "")
    assert "have the schema's owner, with CREATEROLE, run what `pgjobs roles create --sql` writes" in done.stderr
    assert roles.create(conn, schema) == []
    assert roles.check(conn, schema) == []


def test_migrating_gives_the_roles_that_are_there_what_they_need_now(
    conn: psycopg.Connection[Any], direct_url: str
) -> None:
    with schema_with_roles(conn, direct_url) as schema:
        conn.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(schema)))
        migrations.migrate(direct_url, schema=schema, to="0015")
        assert roles.create(conn, schema) == []
        worker = roles.role_name("worker", schema)
        conn.execute(sql.SQL("REVOKE ALL ON {}.marks FROM {}").format(sql.Identifier(schema), sql.Identifier(worker)))
        said = pgjobs(direct_url, "migrate", "--schema", schema)
        assert said.returncode == 0, said.stderr
        assert f"gave {roles.role_name('producer', schema)}, {worker}" in said.stdout
        assert roles.check(conn, schema) == []
