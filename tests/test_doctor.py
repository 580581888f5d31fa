"""Each fault that `pgjobs doctor` finds is made on a real server, and found; a healthy database has none."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from click.testing import CliRunner
from psycopg import sql

from pgjobs import PgJobs, migrations, roles
from pgjobs.cli.doctor import command
from pgjobs.config import SCHEMA_REVISION
from pgjobs.doctor import CHECKS, Finding, Limits, Severity, examine, fleet, horizon, server, tables
from pgjobs.doctor import schema as own_schema
from tests.bouncer import ABSENT, bouncer, program
from tests.processes import pgjobs
from tests.replication import Pair
from tests.support import eventually, scratch_directory, with_database
from tests.test_explain import put_claim, put_worker
from tests.test_roles import login, schema

__all__ = ["schema"]

pytestmark = pytest.mark.server

Conn = psycopg.Connection[Any]
Find = Callable[..., dict[str, Finding]]

SUITE = {"fsync", "full_page_writes", "synchronous_commit"}
"""The suite's server is fast instead of durable."""


def found(database: Any, *modules: Any, **limits: Any) -> dict[str, Finding]:
    """What the checks of some modules, or all, find beside the suite's own settings, by code."""
    checks = [check for module in modules for check in module.CHECKS] or CHECKS
    return {each.code: each for each in examine(database, Limits(**limits), checks) if each.code not in SUITE}


@pytest.fixture
def find(jobs: PgJobs) -> Find:
    return lambda *modules, **limits: found(jobs.database, *modules, **limits)


def test_healthy_database_has_no_findings(find: Find, jobs: PgJobs) -> None:
    assert find() == {}
    work = jobs.task(name="work")(lambda i: i)
    with jobs.worker():
        ids = work.enqueue_many([(i,) for i in range(500)])
        jobs.wait(ids, 20)
        assert set(find()) <= {"wide_role"}, "the suite's worker is a superuser"


def test_every_check_is_described() -> None:
    assert all(check.__doc__ for check in CHECKS)
    assert len({check.__name__ for check in CHECKS}) == len(CHECKS)


def test_settings_that_harm(jobs: PgJobs, conn: Conn) -> None:
    off = dict(conn.execute("SELECT name, setting FROM pg_settings WHERE name = ANY (%s)", [list(SUITE)]).fetchall())
    codes = {each.code: each for each in examine(jobs.database)}
    assert {name for name in SUITE if name in codes} == {name for name, setting in off.items() if setting == "off"}
    if off["fsync"] == "off":
        assert codes["fsync"].severity is Severity.CRITICAL
        assert codes["fsync"].remedy == "ALTER SYSTEM SET fsync = on; SELECT pg_reload_conf()"


def test_old_server_and_few_connections(find: Find) -> None:
    assert "upgrade it to PostgreSQL 99" in find(server, oldest=990_000)["version"].remedy
    assert "max_connections" in find(server, connections=1_000_000)


def test_limits_of_the_server_that_cut_work_short(find: Find, conn: Conn) -> None:
    names = ["statement_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout"]
    if conn.info.server_version >= 170_000:
        names.append("transaction_timeout")
    for name in names:
        statement = sql.SQL("ALTER DATABASE {} SET {} = '5s'")
        conn.execute(statement.format(sql.Identifier(conn.info.dbname), sql.SQL(name)))  # type: ignore[arg-type]
    short = find(server)
    assert set(short) == set(names)
    assert all(f"SET {name} = 0" in short[name].remedy for name in names)


def test_database_that_is_read_only(find: Find, conn: Conn) -> None:
    conn.execute(
        sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(sql.Identifier(conn.info.dbname))
    )
    assert "SET default_transaction_read_only = off" in find(server)["read_only"].remedy


def test_autovacuum_that_is_off(find: Find, conn: Conn, direct_url: str) -> None:
    conn.execute("ALTER TABLE pgjobs.claims SET (autovacuum_enabled = false)")
    assert find(server, tables)["autovacuum_table"].remedy == "ALTER TABLE pgjobs.claims RESET (autovacuum_enabled)"
    conn.execute(find(server, tables)["autovacuum_table"].remedy.encode())
    for name in ("autovacuum", "track_counts"):
        conn.execute(f"ALTER SYSTEM SET {name} = off".encode())
    conn.execute("SELECT pg_reload_conf()")
    try:
        eventually(lambda: {"autovacuum", "track_counts"} <= set(find(server, tables)))
    finally:
        for name in ("autovacuum", "track_counts"):
            conn.execute(f"ALTER SYSTEM RESET {name}".encode())
        conn.execute("SELECT pg_reload_conf()")
    eventually(lambda: find(server, tables) == {})


def test_commits_that_are_not_durable(conn: Conn, schema: str, direct_url: str) -> None:
    name = sql.Identifier(conn.info.dbname)
    database = PgJobs(direct_url, schema=schema).database
    conn.execute(sql.SQL("ALTER DATABASE {} SET synchronous_commit = on").format(name))
    assert "synchronous_commit" not in {each.code for each in examine(database, checks=server.CHECKS)}
    conn.execute(sql.SQL("ALTER DATABASE {} SET synchronous_commit = off").format(name))
    (finding,) = (each for each in examine(database, checks=server.CHECKS) if each.code == "synchronous_commit")
    assert finding.severity is Severity.WARNING


def test_notifications_that_nobody_hears(schema: str, direct_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGJOBS_LISTEN_URL", raising=False)
    monkeypatch.setattr("pgjobs.doctor.server.arrives", lambda ear, conn: False)
    findings = found(PgJobs(direct_url, schema=schema).database, server)
    assert findings["notifications"].what == "what is notified does not come back"


def test_clock_that_differs(find: Find, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time
    monkeypatch.setattr("pgjobs.doctor.server.time.time", lambda: now() + 60)
    assert re.search(r"this host is \S+ s ahead of", find(server, skew_s=1)["clock"].what)
    monkeypatch.setattr("pgjobs.doctor.server.time.time", lambda: now() - 60)
    assert "behind" in find(server, skew_s=1)["clock"].what


@pytest.mark.skipif(program() is None, reason=ABSENT)
@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_pooler_that_keeps_notifications_back(
    mode: str, direct_url: str, server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PGJOBS_LISTEN_URL", raising=False)
    with bouncer(server_url, mode) as url:
        pooled = PgJobs(with_database(url, urlsplit(direct_url).path.lstrip("/")))
        if mode == "session":
            assert found(pooled.database, server) == {}
            return
        assert "a pooler in transaction mode" in found(pooled.database, server)["notifications"].what
        monkeypatch.setenv("PGJOBS_LISTEN_URL", direct_url)
        assert found(pooled.database, server) == {}


def test_listen_url_that_leads_elsewhere(find: Find, server_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGJOBS_LISTEN_URL", server_url)
    assert "it names another database" in find(server)["notifications"].what
    monkeypatch.setenv("PGJOBS_LISTEN_URL", "postgresql://127.0.0.1:1/none")
    assert "out of reach" in find(server)["notifications"].what


# -- the horizon


def test_long_transactions_of_an_application(find: Find, direct_url: str) -> None:
    with psycopg.connect(direct_url, application_name="shop") as application:
        application.execute("SELECT 1")
        assert find(horizon) == {}
        long = find(horizon, long_s=0.0)["long_transaction"]
        pid = application.info.backend_pid
        assert f"pid {pid} (shop, user " in long.what
        assert f"pg_terminate_backend({pid})" in long.remedy
        assert "idle_in_transaction_session_timeout" in long.remedy
        application.execute("CREATE TABLE mine (i int)")
        assert f"pid {pid} (shop" in find(horizon, long_s=0.0)["horizon"].what
    with psycopg.connect(direct_url) as snapshot:
        snapshot.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        snapshot.execute("SELECT 1")
        assert "horizon" in find(horizon, long_s=0.0)


@pytest.fixture(scope="module")
def replicated() -> Iterator[Pair]:
    with scratch_directory() as directory:
        servers = Pair(directory, synchronous=False)
        try:
            servers.primary.initialise()
            servers.primary.start()
            servers.primary.ask("ALTER SYSTEM SET max_prepared_transactions = 5")
            servers.primary.stop(crash=False)
            servers.primary.start()
            migrations.migrate(servers.primary.url)
            servers.standby.copy(servers.primary)
            servers.standby.start()
            yield servers
        finally:
            servers.stop()


def test_standby_slot_and_prepared_transaction(replicated: Pair) -> None:
    primary, standby = replicated.primary, replicated.standby
    assert found(PgJobs(primary.url).database) == {}
    database = PgJobs(primary.url).database
    assert "target_session_attrs" in found(PgJobs(standby.url).database)["standby"].remedy

    def codes() -> dict[str, Finding]:
        for _ in range(3):
            primary.ask("SELECT pg_current_xact_id()")
        return found(database, horizon, old=2, long_s=0.0)

    standby.set("hot_standby_feedback", "on")
    with standby.connect() as reader:
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        reader.autocommit = False
        reader.execute("SELECT 1")
        standby.set("wal_receiver_status_interval", "1s")
        eventually(lambda: "standby_feedback" in codes())
        assert "hot_standby_feedback" in codes()["standby_feedback"].remedy
        primary.ask("SELECT pg_create_physical_replication_slot('spare')")
        standby.set("primary_slot_name", "spare")
        eventually(lambda: "the replication slot spare holds" in codes().get("slot", _NOTHING).what)
    standby.stop(crash=True)
    eventually(lambda: "nobody uses the replication slot spare" in codes().get("slot", _NOTHING).what)
    remedy = codes()["slot"].remedy
    assert remedy == "SELECT pg_drop_replication_slot('spare')"
    primary.ask(remedy)
    with primary.connect() as conn:
        conn.execute("BEGIN")
        conn.execute("CREATE TABLE mine (i int)")
        conn.execute("PREPARE TRANSACTION 'order-7'")
    assert "'order-7'" in codes()["prepared_transaction"].what
    primary.ask(codes()["prepared_transaction"].remedy.split(";")[0])
    assert "prepared_transaction" not in codes()


_NOTHING = Finding(Severity.SKIPPED, "", "", "", "")


# -- tables and schema


def test_vacuum_that_lags_and_bloat(find: Find, conn: Conn) -> None:
    conn.execute("ALTER TABLE pgjobs.jobs SET (autovacuum_enabled = false)")
    conn.execute("INSERT INTO pgjobs.jobs (task) SELECT 't' FROM generate_series(1, 12000)")
    conn.execute("DELETE FROM pgjobs.jobs WHERE position % 40 <> 0")
    conn.execute("ANALYZE pgjobs.jobs")
    conn.execute("SELECT pg_stat_force_next_flush()")
    eventually(lambda: "vacuum_lag" in find(tables, dead=1_000))
    assert "vacuum_lag" not in find(tables)
    lag = find(tables, dead=1_000)["vacuum_lag"]
    assert "last there never" in lag.what
    conn.execute(lag.remedy.encode())
    eventually(lambda: "vacuum_lag" not in find(tables, dead=1_000))
    assert {"bloat", "index_bloat"} <= set(find(tables, bloat=100_000))
    assert not {"bloat", "index_bloat"} & set(find(tables))
    conn.execute(find(tables, bloat=100_000)["bloat"].remedy.split(", while")[0].encode())
    assert not {"bloat", "index_bloat"} & set(find(tables, bloat=100_000))


def test_index_that_is_invalid(find: Find, conn: Conn) -> None:
    conn.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'pgjobs.jobs_due'::regclass")
    invalid = find(tables)["invalid_index"]
    assert invalid.remedy == "REINDEX INDEX CONCURRENTLY pgjobs.jobs_due"
    conn.execute(invalid.remedy.encode())
    assert find(tables) == {}


def test_schema_that_has_drifted(find: Find, conn: Conn) -> None:
    conn.execute("CREATE INDEX mine ON pgjobs.jobs (task)")
    conn.execute("ALTER TABLE pgjobs.audit ADD COLUMN mine text")
    assert find() == {}, "what somebody has added is theirs"
    conn.execute("DROP INDEX pgjobs.jobs_expires")
    missing = find()["drift"]
    assert "pgjobs.jobs_expires is missing" in missing.what
    for statement in missing.remedy.split("; "):
        conn.execute(statement.encode())
    assert find() == {}


def test_index_on_something_else(find: Find, conn: Conn) -> None:
    conn.execute("DROP INDEX pgjobs.jobs_due; CREATE INDEX jobs_due ON pgjobs.jobs (created_at)")
    drift = find()["drift"]
    assert drift.what == "the index pgjobs.jobs_due is missing, or other than this release has it"
    for statement in drift.remedy.split("; "):
        conn.execute(statement.encode())
    assert find() == {}


DAMAGE = {
    "DROP FUNCTION pgjobs.run_now(uuid[])": "the function pgjobs.run_now is missing",
    "DROP VIEW pgjobs.failed_by_fingerprint": "the view pgjobs.failed_by_fingerprint is missing",
    "DROP TABLE pgjobs.audit": "the table pgjobs.audit is missing",
    "ALTER TABLE pgjobs.jobs DROP CONSTRAINT jobs_priority_range": "the constraint jobs_priority_range of pgjobs.jobs",
    "ALTER TABLE pgjobs.duties DROP CONSTRAINT duties_pkey": "the constraint duties_pkey of pgjobs.duties is missing",
    "ALTER TABLE pgjobs.logs DROP COLUMN level": "the column pgjobs.logs.level is missing",
    "ALTER TABLE pgjobs.logs ALTER COLUMN line TYPE varchar(9)": "the type of pgjobs.logs.line is VARCHAR(9)",
    "ALTER TABLE pgjobs.files ALTER COLUMN size DROP NOT NULL": "the nullability of pgjobs.files.size is True",
    "ALTER TABLE pgjobs.jobs ALTER COLUMN queue DROP DEFAULT": "the default of pgjobs.jobs.queue is None",
}


def test_what_the_schema_lacks(jobs: PgJobs, conn: Conn) -> None:
    for damage in DAMAGE:
        conn.execute(damage.encode())
    findings = examine(jobs.database, checks=own_schema.CHECKS)
    assert {each.code for each in findings} == {"drift"}
    assert all("pgjobs migrate --sql" in each.remedy for each in findings)
    for says in DAMAGE.values():
        assert [each.what for each in findings if each.what.startswith(says)], says
    assert len(findings) == len(DAMAGE)


def test_revision_that_is_out_of_date(find: Find, jobs: PgJobs, conn: Conn, database_url: str) -> None:
    conn.execute("UPDATE pgjobs.alembic_version SET version_num = '0002'")
    assert f"is at revision 0002, and this release needs {SCHEMA_REVISION}" in find()["revision"].what
    conn.execute("COMMENT ON TABLE pgjobs.alembic_version IS NULL")
    conn.execute("UPDATE pgjobs.alembic_version SET version_num = '9999'")
    assert "upgrade pgjobs-queue" in find()["revision"].remedy
    absent = found(PgJobs(database_url, schema="absent").database)
    assert absent["revision"].remedy == "pgjobs migrate --schema absent"
    assert [each.code for each in absent.values() if each.is_wrong] == ["revision"]


def test_checks_of_tables_that_are_missing_say_so(find: Find, conn: Conn) -> None:
    conn.execute("DROP TABLE pgjobs.duties")
    findings = find()
    assert {code for code, each in findings.items() if each.is_wrong} == {"drift"}
    assert findings["drift"].what == "the table pgjobs.duties is missing"
    blind = findings["duties"]
    assert blind.severity is Severity.SKIPPED
    assert blind.what == 'what it reads is not there: relation "pgjobs.duties" does not exist'
    assert blind.remedy == "mend the schema, as is said above", "pgjobs migrate would find it up to date"


def test_checks_of_a_schema_that_is_absent_say_so(database_url: str) -> None:
    findings = found(PgJobs(database_url, schema="absent").database)
    assert {code for code, each in findings.items() if each.is_wrong} == {"revision"}
    blind = [each for each in findings.values() if not each.is_wrong]
    assert {"queues", "tasks", "claims", "drift"} <= {each.code for each in blind}
    assert all(each.what.startswith("what it reads is not there: ") for each in blind)


# -- roles


def test_roles_that_are_too_wide(find: Find, jobs: PgJobs, schema: str, conn: Conn, direct_url: str) -> None:
    with jobs.worker():
        assert "a superuser" in find(own_schema)["wide_role"].what
    owner = f"u_{schema}_owner"
    conn.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(owner)))
    try:
        conn.execute(f"ALTER TABLE {schema}.jobs OWNER TO {owner}".encode())
        parts = urlsplit(direct_url)
        url = parts._replace(netloc=f"{owner}@{parts.hostname}:{parts.port}").geturl()
        with psycopg.connect(url, application_name="pgjobs worker"):
            wide = found(PgJobs(direct_url, schema=schema).database, own_schema)["wide_role"]
        assert wide.what == f"workers connect as {owner}, the owner of the tables"
    finally:
        conn.execute(f"ALTER TABLE {schema}.jobs OWNER TO CURRENT_USER".encode())
        conn.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(owner)))


def test_privileges_that_are_missing_or_too_much(schema: str, conn: Conn, direct_url: str) -> None:
    database = PgJobs(direct_url, schema=schema).database
    assert found(database, own_schema) == {}
    conn.execute(f"GRANT TRUNCATE ON {schema}.jobs TO {schema}_worker".encode())
    assert found(database, own_schema)["privileges"].severity is Severity.WARNING
    conn.execute(f"REVOKE TRUNCATE ON {schema}.jobs FROM {schema}_worker".encode())
    conn.execute(f"REVOKE SELECT ON {schema}.jobs FROM {schema}_reader".encode())
    lacks = found(database, own_schema)["privileges"]
    assert (lacks.severity, lacks.what) == (Severity.CRITICAL, f"the role {schema}_reader lacks SELECT ON jobs")
    assert lacks.remedy == f"pgjobs roles create --schema {schema}"


@pytest.mark.parametrize("role", roles.ROLES)
def test_least_privilege_finds_what_it_may_and_says_what_it_may_not(
    role: str, conn: Conn, direct_url: str, schema: str
) -> None:
    with login(conn, direct_url, schema, role) as url:
        codes = found(PgJobs(url, schema=schema).database)
    assert {each.severity for each in codes.values()} == {Severity.SKIPPED}
    may_not = {"horizon"} if role != "producer" else {"horizon", "claims", "queues", "endless", "duties"}
    assert "GRANT pg_read_all_stats TO" in codes["horizon"].remedy
    assert set(codes) <= may_not


# -- the fleet


def test_queue_that_nobody_serves(find: Find, jobs: PgJobs, conn: Conn) -> None:
    jobs.using(queue="mail").enqueue("work")
    assert find(fleet)["unserved"].what.endswith("no worker lives")
    put_worker(conn, "web")
    assert find(fleet)["unserved"].what.endswith("no living worker serves it")
    assert find(fleet)["unserved"].remedy == "pgjobs worker -A MODULE -Q mail"
    put_worker(conn, "mail")
    assert "unserved" not in find(fleet)


def test_task_that_nobody_knows(find: Find, jobs: PgJobs) -> None:
    job = jobs.enqueue("nobody.knows")
    with jobs.worker():
        eventually(lambda: job.refresh().reason == "unknown task")
        unrunnable = find(fleet)["unrunnable"]
    assert unrunnable.what == "1 job of nobody.knows cannot run: unknown task"
    assert "pgjobs worker -A MODULE" in unrunnable.remedy


def test_name_of_a_task_that_sql_has_written_is_cut(find: Find, jobs: PgJobs, conn: Conn, caplog: Any) -> None:
    """Its length has no limit there: one of four thousand characters filled the screen of whoever looked."""
    conn.execute("INSERT INTO pgjobs.jobs (task, args) VALUES (repeat('x', 4000), '{}')")
    with jobs.worker(), caplog.at_level("WARNING", "pgjobs"):
        eventually(lambda: "unrunnable" in find(fleet))
        eventually(lambda: [record for record in caplog.records if "unknown task" in record.getMessage()])
    assert find(fleet)["unrunnable"].what == f"1 job of {'x' * 80}… cannot run: unknown task"
    (said,) = {record.getMessage() for record in caplog.records if "unknown task" in record.getMessage()}
    assert said == f"{'x' * 80}…: unknown task; its jobs wait until a worker has it"


def test_arguments_that_fit_no_more(find: Find, jobs: PgJobs, database_url: str) -> None:
    job = jobs.task(name="work")(lambda i: i).enqueue(1)
    newer = PgJobs(database_url)
    newer.task(name="work")(lambda j, k: j)
    with newer.worker():
        eventually(lambda: (job.refresh().reason or "").startswith("arguments do not fit"))
        unrunnable = find(fleet)["unrunnable"]
    assert unrunnable.what.startswith("1 job of work cannot run: arguments do not fit")
    assert unrunnable.remedy == "deploy a version that takes them, or: pgjobs jobs cancel --task work"


def test_claims_of_dead_workers(find: Find, jobs: PgJobs, conn: Conn) -> None:
    job = jobs.enqueue("work")
    put_claim(conn, job, put_worker(conn))
    assert find(fleet) == {}
    conn.execute("UPDATE pgjobs.claims SET claimed_at = now() - interval '1 hour'")
    assert find(fleet) == {}, "its worker lives"
    conn.execute("UPDATE pgjobs.workers SET seen_at = now() - interval '1 minute'")
    assert find(fleet)["orphans"].what == "the worker ada:7.0 is dead, and holds 1 claim with 1 job"
    conn.execute("UPDATE pgjobs.workers SET dead_at = now() - interval '1 minute'")
    assert "orphans" in find(fleet)
    conn.execute("DELETE FROM pgjobs.workers")
    assert "orphans" in find(fleet)


def test_jobs_that_nobody_will_end(find: Find, jobs: PgJobs, conn: Conn) -> None:
    held, lost, ended = (jobs.enqueue("work") for _ in range(3))
    put_claim(conn, held, put_worker(conn))
    assert find(fleet) == {}
    conn.execute("UPDATE pgjobs.jobs SET status = 'running', position = NULL WHERE id = %s", [lost.id])
    finding = find(fleet)["endless"]
    assert finding.what == f"1 job counted as running, and no claim holds it, such as {lost.id}"
    assert finding.remedy == f"pgjobs jobs delete {lost.id}"
    lost.delete()
    assert find(fleet) == {}
    conn.execute("UPDATE pgjobs.jobs SET status = 'succeeded', position = NULL WHERE id = %s", [ended.id])
    assert find(fleet)["endless"].what == f"1 job ended at no time that is known, such as {ended.id}"
    ended.delete()
    assert find(fleet) == {}


def test_duties_that_nobody_does(find: Find, conn: Conn) -> None:
    conn.execute("UPDATE pgjobs.duties SET next_at = now() - interval '1 hour' WHERE name = 'reap'")
    assert find(fleet) == {}, "without a worker there is nothing to do"
    put_worker(conn)
    conn.execute("UPDATE pgjobs.duties SET next_at = now() WHERE name <> 'reap'")
    assert find(fleet) == {}, "it has just started"
    conn.execute("UPDATE pgjobs.workers SET started_at = now() - interval '1 hour'")
    assert find(fleet)["duty"].what.startswith("the duty reap has been due for 60 min ")


# -- the command


def test_command_says_what_why_and_how(database_url: str, conn: Conn) -> None:
    conn.execute("DROP INDEX pgjobs.jobs_expires")
    done = pgjobs(database_url, "doctor")
    assert (done.returncode, done.stderr) == (1, "")
    assert "\x1b[" not in done.stdout
    assert "✗ critical  the index pgjobs.jobs_expires is missing" in done.stdout
    assert "    why   statements of this release fail" in done.stdout
    assert "    mend  DROP INDEX CONCURRENTLY IF EXISTS pgjobs.jobs_expires; CREATE INDEX" in done.stdout
    document = json.loads(CliRunner().invoke(command, ["--url", database_url, "--json", "--long", "1h"]).output)
    assert document["healthy"] is False
    assert {"severity", "code", "what", "why", "remedy"} == set(document["findings"][0])


def test_command_says_how_many_checks_could_not_look(conn: Conn, direct_url: str, schema: str) -> None:
    with login(conn, direct_url, schema, "reader") as url:
        done = pgjobs(url, "doctor", "--schema", schema)
    assert "? skipped  the role" in done.stdout
    assert done.stdout.endswith(f" in {len(CHECKS)} checks, of which 1 could not look\n")


def test_command_ends_with_0_where_all_is_well(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.suppress(KeyError):
        for name in SUITE:
            monkeypatch.delitem(server._NEEDED, name)
    done = CliRunner().invoke(command, ["--url", database_url])
    assert (done.exit_code, done.output) == (0, f"✓ nothing wrong in {len(CHECKS)} checks\n")
