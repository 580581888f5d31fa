"""Revisions: applied once whoever comes, under any name, beside any history, from a checkout and from a wheel."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final
from uuid import uuid4

import alembic.command
import psycopg
import pytest
import sqlalchemy as sa
from alembic.config import Config
from psycopg import sql

from pgjobs import config, migrations
from pgjobs.errors import ConfigurationError, SchemaError
from tests.support import eventually, with_database

pytestmark = pytest.mark.server

ROOT = Path(__file__).parents[1]

HEAD = migrations.head()
ALL = sorted(path.stem[:4] for path in (ROOT / "migrations" / "versions").glob("0*.py"))

NEXT_REVISION = f"""
from pathlib import Path
from pgjobs.migrations import execute
revision, down_revision = "9999", "{HEAD}"
def upgrade(op, schema):
    execute(op, Path(__file__).with_suffix(".sql"), schema)
def downgrade(op, schema):
    execute(op, Path(__file__).with_suffix(".down.sql"), schema)
"""
NEXT_SQL = """
-- A comment's quote; and semicolon.
ALTER TABLE pgjobs.jobs ADD COLUMN note text DEFAULT 'it''s; 100% :name /* $$';
CREATE FUNCTION pgjobs.remark() RETURNS text LANGUAGE sql AS $$
    SELECT 'at 12:30; it''s %s'; -- one more's
$$;
"""
NEXT_DOWN_SQL = "DROP FUNCTION pgjobs.remark; ALTER TABLE pgjobs.jobs DROP COLUMN note;"


@pytest.fixture
def empty_url(server_url: str) -> Iterator[str]:
    """URL of the test's own database, in which nothing is."""
    name = f"pgjobs_empty_{uuid4().hex[:12]}"
    run(server_url, sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
    try:
        yield with_database(server_url, name)
    finally:
        run(server_url, sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def run(url: str, statement: str | sql.Composed, **params: object) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as conn:
        cursor = conn.execute(statement, params or None)
        return cursor.fetchall() if cursor.description else []


def schemas(url: str) -> list[str]:
    return [name for (name,) in run(url, "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' ORDER BY nspname")]


def catalog(url: str, schema: str = "pgjobs") -> list[str]:
    """Everything in a schema as PostgreSQL describes it, the schema's own name left out."""
    query = """
        WITH described AS (
            SELECT 'column', format('%%s.%%s', attrelid::regclass, attname),
                   concat_ws(' ', format_type(atttypid, atttypmod), attnotnull, attidentity,
                             pg_get_expr(adbin, adrelid))
              FROM pg_attribute
              JOIN pg_class AS class ON class.oid = attrelid
              LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
             WHERE relnamespace = %(schema)s::regnamespace AND relkind IN ('r', 'v') AND attnum > 0
             UNION ALL
            SELECT 'relation', format('%%s %%s', relkind, oid::regclass),
                   concat_ws(' ', reloptions, pg_get_viewdef(oid), pg_get_indexdef(oid))
              FROM pg_class WHERE relnamespace = %(schema)s::regnamespace
             UNION ALL
            SELECT 'constraint', conname, format('%%s %%s', conrelid::regclass, pg_get_constraintdef(oid))
              FROM pg_constraint WHERE connamespace = %(schema)s::regnamespace
             UNION ALL
            SELECT 'function', oid::regprocedure::text, pg_get_functiondef(oid)
              FROM pg_proc WHERE pronamespace = %(schema)s::regnamespace
        )
        SELECT array_to_string(ARRAY[kind, name, text], ' | ') FROM described AS described (kind, name, text) ORDER BY 1
    """
    return [text.replace(f"{schema}.", "pgjobs.") for (text,) in run(url, query, schema=schema)]


@pytest.fixture
def next_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Makes this a release with one more revision, until the patch is undone."""
    revisions = tmp_path / "next" / "versions"
    shutil.copytree(ROOT / "migrations", revisions.parent)
    (revisions / "9999_notes.py").write_text(NEXT_REVISION)
    (revisions / "9999_notes.sql").write_text(NEXT_SQL)
    (revisions / "9999_notes.down.sql").write_text(NEXT_DOWN_SQL)
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "_location", lambda: revisions.parent)
        yield patch


@contextmanager
def engine(url: str) -> Iterator[sa.Engine]:
    made = sa.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(url), poolclass=sa.NullPool)
    yield made
    made.dispose()


def test_empty_database_comes_up_to_this_release(empty_url: str) -> None:
    assert migrations.current(empty_url) is None
    assert migrations.pending(empty_url) == ALL
    assert schemas(empty_url) == ["information_schema", "public"], "asking changed the database"
    assert migrations.migrate(empty_url) == ALL
    assert migrations.current(empty_url) == HEAD
    assert migrations.pending(empty_url) == []


def test_head_is_the_revision_that_the_code_works_with() -> None:
    assert migrations.head() == config.SCHEMA_REVISION


def test_second_run_changes_nothing(database_url: str) -> None:
    before = catalog(database_url)
    assert len(before) > 100
    assert migrations.migrate(database_url) == []
    assert migrations.migrate(database_url, to=HEAD) == []
    assert migrations.migrate(database_url, to="base") == []
    assert catalog(database_url) == before


def test_conninfo_string_will_do_for_a_url(empty_url: str) -> None:
    known = psycopg.conninfo.conninfo_to_dict(empty_url)
    assert migrations.migrate(psycopg.conninfo.make_conninfo("", **known)) == ALL


@pytest.mark.parametrize(
    "defaults",
    [{}, {"default_transaction_isolation": "serializable"}, {"default_transaction_read_only": "on"}],
    ids=["plain", "serializable", "read only"],
)
def test_eight_at_once_apply_it_once(empty_url: str, defaults: Mapping[str, str]) -> None:
    database = psycopg.conninfo.conninfo_to_dict(empty_url)["dbname"]
    for name, value in defaults.items():
        run(empty_url, f"ALTER DATABASE {database} SET {name} = '{value}'")
    waiting = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = " + (
        "(SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    with ThreadPoolExecutor(8) as pool:
        with migrations.connect(empty_url) as first:
            # Rolled back while all eight wait for it, so that they start from nothing at one moment.
            assert migrations.up(first) == ALL
            others = [pool.submit(migrations.migrate, empty_url) for _ in range(8)]
            eventually(lambda: len(run(empty_url, waiting)) == 8 or any(other.done() for other in others))
            assert not any(other.done() for other in others)
        applied = [other.result() for other in others]
    assert sorted(applied) == [[]] * 7 + [ALL]
    assert migrations.current(empty_url) == HEAD


def test_migrations_of_two_schemas_do_not_wait_for_each_other(empty_url: str) -> None:
    with migrations.connect(empty_url) as first:
        assert migrations.up(first, schema="one") == ALL
        impatient = psycopg.conninfo.make_conninfo(empty_url, options="-c lock_timeout=5s")
        assert migrations.migrate(impatient, schema="two") == ALL


def test_two_schemas_live_side_by_side(empty_url: str) -> None:
    assert migrations.migrate(empty_url, schema="pgjobs") == ALL
    assert migrations.pending(empty_url, "jobs_of_2") == ALL
    assert migrations.migrate(empty_url, schema="jobs_of_2") == ALL
    assert catalog(empty_url, "jobs_of_2") == catalog(empty_url, "pgjobs")
    assert not [text for text in definitions(empty_url, "jobs_of_2") if "pgjobs" in text.replace(OF_WEBHOOKS, "")]
    run(empty_url, "DROP SCHEMA pgjobs CASCADE")
    assert run(empty_url, "SELECT jobs_of_2.enqueue('task') IS NOT NULL") == [(True,)]


OF_WEBHOOKS: Final = "'pgjobs' || '.webhook'"
"""The task that sends messages has this name in every schema."""


def definitions(url: str, schema: str) -> list[str]:
    query = "SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = %(schema)s::regnamespace"
    return [text for (text,) in run(url, query, schema=schema)]


@pytest.mark.parametrize(
    "name",
    ["", "Jobs", "pg jobs", 'a"; DROP SCHEMA public; --', "1st", "a.b", "jöbs", "a" * 41, "user", "order"],
)
def test_name_that_would_need_quotes_is_refused_before_anything_is_sent(name: str, empty_url: str) -> None:
    nobody = "host=127.0.0.1 port=1 connect_timeout=1"
    for call in (
        lambda: migrations.migrate(nobody, schema=name),
        lambda: migrations.current(nobody, name),
        lambda: migrations.pending(nobody, name),
        lambda: migrations.sql(schema=name),
    ):
        with pytest.raises(ConfigurationError, match=r"choose another|use lower-case"):
            call()
    with migrations.connect(empty_url) as connection:
        for function in (migrations.up, migrations.down):
            with pytest.raises(ConfigurationError):
                function(connection, schema=name)
        assert not connection.in_transaction()


def test_next_release_goes_up_from_where_the_database_stands(
    next_release: pytest.MonkeyPatch, empty_url: str, database_url: str
) -> None:
    assert migrations.migrate(empty_url, to=HEAD) == ALL
    assert catalog(empty_url) == catalog(database_url)
    assert migrations.pending(empty_url) == ["9999"]
    assert migrations.migrate(empty_url) == ["9999"]
    assert migrations.migrate(empty_url, to=HEAD) == [], "it went back"
    assert migrations.migrate(empty_url, schema="at_once") == [*ALL, "9999"]
    assert catalog(empty_url, "at_once") == catalog(empty_url)
    with migrations.connect(empty_url) as connection, connection.begin():
        assert migrations.down(connection, to=HEAD) == ["9999"]
    assert migrations.pending(empty_url) == ["9999"]
    with migrations.connect(empty_url) as connection, connection.begin():
        assert migrations.down(connection, schema="at_once") == ["9999", *reversed(ALL)]


def test_scripts_are_executed_as_they_are_written(next_release: pytest.MonkeyPatch, empty_url: str) -> None:
    with psycopg.connect(empty_url, autocommit=True) as conn:
        conn.execute(migrations.sql(schema="by_hand"))
    migrations.migrate(empty_url, schema="by_us")
    for schema in ("by_hand", "by_us"):
        assert run(empty_url, f"SELECT {schema}.remark()") == [("at 12:30; it's %s",)]
        inserted = run(empty_url, f"INSERT INTO {schema}.jobs (task) VALUES ('t') RETURNING note")
        assert inserted == [("it's; 100% :name /* $$",)]


def test_database_of_a_newer_release_is_refused_with_the_remedy(
    next_release: pytest.MonkeyPatch, database_url: str
) -> None:
    migrations.migrate(database_url)
    next_release.undo()
    for call in (migrations.migrate, migrations.pending):
        with pytest.raises(SchemaError, match=rf"9999.*up to {HEAD}; upgrade pgjobs-queue"):
            call(database_url)
    assert migrations.current(database_url) == "9999"


def test_unknown_revision_is_refused_and_the_known_ones_named(empty_url: str) -> None:
    with pytest.raises(SchemaError, match=r"'0815'; name one of 0001"):
        migrations.migrate(empty_url, to="0815")
    assert schemas(empty_url) == ["information_schema", "public"]


def test_failure_leaves_nothing_behind(next_release: pytest.MonkeyPatch, empty_url: str) -> None:
    run(empty_url, "CREATE SCHEMA pgjobs; CREATE FUNCTION pgjobs.remark() RETURNS int LANGUAGE sql AS 'SELECT 1'")
    before = catalog(empty_url)
    with pytest.raises(psycopg.errors.DuplicateFunction):
        migrations.migrate(empty_url)
    assert catalog(empty_url) == before, "the first revision stayed when the second failed"


def test_unreachable_database_raises_the_drivers_own_error() -> None:
    with pytest.raises(psycopg.OperationalError):
        migrations.current("host=127.0.0.1 port=1 connect_timeout=1")


def test_role_that_may_not_create_schemas_migrates_one_made_for_it(empty_url: str) -> None:
    role = f"pgjobs_role_{uuid4().hex[:12]}"
    run(empty_url, f"CREATE ROLE {role}; CREATE SCHEMA pgjobs AUTHORIZATION {role}")
    try:
        as_role = psycopg.conninfo.make_conninfo(empty_url, options=f"-c role={role}")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            migrations.migrate(as_role, schema="another")
        assert migrations.migrate(as_role) == ALL
    finally:
        run(empty_url, f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


def test_locked_table_ends_the_attempt_and_says_what_to_do(next_release: pytest.MonkeyPatch, database_url: str) -> None:
    next_release.setattr(migrations, "_LOCK_TIMEOUT", "10ms")
    with psycopg.connect(database_url) as busy:
        busy.execute("SELECT FROM pgjobs.jobs")
        with pytest.raises(SchemaError, match=r"stayed locked for 1 s.*try again"):
            migrations.migrate(database_url, lock_wait=1)
    assert migrations.current(database_url) == HEAD


def test_script_makes_what_migrate_makes(empty_url: str, database_url: str) -> None:
    with psycopg.connect(empty_url, autocommit=True) as conn:
        conn.execute(migrations.sql(schema="by_hand"))
    assert catalog(empty_url, "by_hand") == catalog(database_url)
    assert migrations.current(empty_url, "by_hand") == HEAD
    assert migrations.migrate(empty_url, schema="by_hand") == []


def test_script_can_be_applied_where_the_schema_exists(empty_url: str) -> None:
    run(empty_url, "CREATE SCHEMA pgjobs")
    with psycopg.connect(empty_url, autocommit=True) as conn:
        conn.execute(migrations.sql())
    assert migrations.current(empty_url) == HEAD


def test_down_to_base_leaves_nothing_but_the_schema(database_url: str) -> None:
    with migrations.connect(database_url) as connection, connection.begin():
        assert migrations.down(connection, to=HEAD) == []
        assert migrations.down(connection) == ALL[::-1]
        assert migrations.down(connection) == []
    assert catalog(database_url) == []
    assert "pgjobs" in schemas(database_url)
    assert migrations.migrate(database_url) == ALL


def test_up_and_down_belong_to_the_callers_transaction(empty_url: str) -> None:
    with engine(empty_url) as made:
        with made.connect() as connection:
            assert migrations.up(connection) == ALL
            connection.rollback()
        assert migrations.current(empty_url) is None
        with made.begin() as connection:
            assert migrations.up(connection) == ALL
        with made.connect() as connection:
            assert migrations.down(connection) == ALL[::-1]
            connection.rollback()
    assert migrations.current(empty_url) == HEAD


@pytest.mark.parametrize("driver", ["psycopg2", "asyncpg"])
async def test_up_works_through_the_drivers_that_applications_use(driver: str, empty_url: str) -> None:
    url = sa.make_url(empty_url).set(drivername=f"postgresql+{driver}")
    if driver == "psycopg2":
        other = sa.create_engine(url, poolclass=sa.NullPool)
        with other.begin() as connection:
            assert migrations.up(connection) == ALL
    else:
        from sqlalchemy.ext.asyncio import create_async_engine

        async with create_async_engine(url, poolclass=sa.NullPool).begin() as aconnection:
            assert await aconnection.run_sync(migrations.up) == ALL
    assert migrations.current(empty_url) == HEAD


APPLICATION_ENV = """
from alembic import context
config = context.config
if context.is_offline_mode():
    context.configure(dialect_name="postgresql", output_buffer=config.attributes["script"])
    with context.begin_transaction():
        context.run_migrations()
else:
    with config.attributes["engine"].connect() as connection:
        context.configure(connection=connection, target_metadata=config.attributes.get("metadata"))
        with context.begin_transaction():
            context.run_migrations()
"""
APPLICATION_TEMPLATE = """
revision, down_revision = ${repr(up_revision)}, ${repr(down_revision)}
def upgrade():
    ${upgrades}
"""
APPLICATION_REVISION = """
import sqlalchemy as sa
from alembic import op
import pgjobs.migrations
revision, down_revision = "a1b2", None
def upgrade():
    op.create_table("orders", sa.Column("id", sa.Integer, primary_key=True))
    pgjobs.migrations.up(op.get_bind())
    op.add_column("orders", sa.Column("total", sa.Integer))
def downgrade():
    pgjobs.migrations.down(op.get_bind())
    op.drop_table("orders")
"""


@pytest.fixture
def application(tmp_path: Path) -> Config:
    """An application's own Alembic history, of which the one revision takes pgjobs in."""
    (tmp_path / "versions").mkdir()
    (tmp_path / "env.py").write_text(APPLICATION_ENV)
    (tmp_path / "script.py.mako").write_text(APPLICATION_TEMPLATE)
    (tmp_path / "versions" / "a1b2_orders.py").write_text(APPLICATION_REVISION)
    made = Config()
    made.set_main_option("script_location", str(tmp_path).replace("%", "%%"))
    made.set_main_option("path_separator", "os")
    return made


def test_revision_of_an_application_takes_pgjobs_in_and_out(application: Config, empty_url: str) -> None:
    with engine(empty_url) as made:
        application.attributes["engine"] = made
        alembic.command.upgrade(application, "head")
        assert migrations.current(empty_url) == HEAD
        assert run(empty_url, "SELECT version_num FROM public.alembic_version") == [("a1b2",)]
        assert run(empty_url, "SELECT count(total) FROM public.orders") == [(0,)], "op was lost on the way"
        alembic.command.downgrade(application, "base")
    assert catalog(empty_url) == []
    assert run(empty_url, "SELECT to_regclass('public.orders')") == [(None,)]


def test_script_of_an_application_is_refused_with_the_way_out(application: Config) -> None:
    import io

    application.attributes["script"] = io.StringIO()
    with pytest.raises(TypeError, match=r"pgjobs\.migrations\.sql\(\)"):
        alembic.command.upgrade(application, "head", sql=True)


def test_autogenerate_of_an_application_sees_nothing_of_pgjobs(application: Config, empty_url: str) -> None:
    own = sa.MetaData()
    sa.Table(
        "orders",
        own,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("total", sa.Integer),
        sa.Column("job_id", sa.Uuid),
    )
    with engine(empty_url) as made:
        application.attributes.update(engine=made, metadata=own)
        alembic.command.upgrade(application, "head")
        generated = alembic.command.revision(application, autogenerate=True)
    assert not isinstance(generated, list)
    assert generated is not None
    text = Path(generated.path).read_text()
    assert [line.split("(")[0].strip() for line in text.splitlines() if "op." in line] == ["op.add_column"]


def test_alembic_is_quiet_for_us_and_not_for_the_application(
    application: Config, empty_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    migrations.migrate(empty_url, schema="quiet")
    migrations.sql()
    assert not [record.getMessage() for record in caplog.records if record.name.startswith("alembic")]
    with engine(empty_url) as made:
        application.attributes["engine"] = made
        alembic.command.upgrade(application, "head")
    assert [text for text in caplog.messages if text.startswith("Running upgrade")] == ["Running upgrade  -> a1b2"]


def test_what_alembic_says_to_other_threads_is_not_lost(empty_url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    def say_elsewhere(*_: object) -> None:
        speaker = threading.Thread(target=logging.getLogger("alembic.runtime.migration").info, args=("elsewhere",))
        speaker.start()
        speaker.join()

    with migrations.connect(empty_url) as connection:
        sa.event.listen(connection, "before_cursor_execute", say_elsewhere)
        migrations.up(connection)
    assert set(caplog.messages) == {"elsewhere"}


def developers_alembic(url: str, **options: str) -> Config:
    made = Config(ROOT / "alembic.ini")
    made.attributes["url"] = url
    if options:
        made.cmd_opts = SimpleNamespace(x=[f"{name}={value}" for name, value in options.items()])  # type: ignore[assignment]
    return made


@pytest.mark.parametrize("options", [{}, {"schema": "another"}], ids=["pgjobs", "another name"])
def test_alembics_own_commands_work_for_those_who_write_revisions(empty_url: str, options: dict[str, str]) -> None:
    schema = options.get("schema", "pgjobs")
    run(empty_url, "CREATE TABLE public.orders (id int); CREATE SCHEMA shop; CREATE TABLE shop.orders (id int)")
    developers = developers_alembic(empty_url, **options)
    alembic.command.upgrade(developers, "head")
    assert migrations.current(empty_url, schema) == HEAD
    alembic.command.check(developers)
    alembic.command.downgrade(developers, "base")
    assert migrations.current(empty_url, schema) is None
    assert not [text for text in catalog(empty_url, schema) if "alembic_version" not in text]


def test_alembic_finds_what_is_missing(database_url: str) -> None:
    run(database_url, "DROP INDEX pgjobs.jobs_due; ALTER TABLE pgjobs.jobs ALTER args SET DEFAULT '{\"a\": 1}'")
    with pytest.raises(alembic.util.exc.AutogenerateDiffsDetected, match="jobs_due"):
        alembic.command.check(developers_alembic(database_url))


def test_threads_use_the_module_without_meeting(empty_url: str) -> None:
    start = threading.Barrier(4)

    def work(number: int) -> list[str]:
        start.wait()
        return migrations.migrate(empty_url, schema=f"queue_{number}")

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4))) == [ALL] * 4


@pytest.mark.slow
def test_wheel_carries_its_migrations(tmp_path: Path, empty_url: str) -> None:
    wheelhouse, environment = tmp_path / "dist", tmp_path / "venv"
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(wheelhouse), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin" / "python"
    (wheel,) = wheelhouse.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*pip, str(wheel)], check=True)
    # What it depends on comes from here, behind its own packages; links to checkouts are not followed from there.
    own_packages = subprocess.check_output(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
    )
    Path(own_packages.strip(), "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    script = """
import sys
from pathlib import Path
from pgjobs import migrations
assert Path(migrations.__file__).is_relative_to(sys.prefix), migrations.__file__
assert Path(migrations.__file__).with_name("contrib").joinpath("grafana.json").is_file()
print(migrations.migrate(sys.argv[1]), migrations.current(sys.argv[1]))
"""
    done = subprocess.check_output([python, "-I", "-c", script, empty_url], text=True, cwd=tmp_path)
    assert done.strip() == f"{ALL} {HEAD}"
