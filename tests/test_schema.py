"""The tables as SQLAlchemy sees them agree with those that the revisions make, and serve for reports."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from pgjobs import migrations, schema
from pgjobs.errors import PgJobsError

pytestmark = pytest.mark.server

COLUMNS = """
    SELECT format('%%s.%%s', relname, attname), format_type(atttypid, atttypmod), attnotnull, attidentity,
           pg_get_expr(adbin, adrelid)
      FROM pg_attribute
      JOIN pg_class ON pg_class.oid = attrelid
      LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
     WHERE relnamespace = %(schema)s::regnamespace AND relkind IN ('r', 'v') AND attnum > 0
       AND relname <> 'alembic_version'
     ORDER BY relname, attnum
"""
CONSTRAINTS = """
    SELECT relname, conname, pg_get_constraintdef(pg_constraint.oid)
      FROM pg_constraint
      JOIN pg_class ON pg_class.oid = conrelid
     WHERE connamespace = %(schema)s::regnamespace AND relname <> 'alembic_version'
     ORDER BY relname, conname
"""
INDEXES = """
    SELECT tablename, indexname, indexdef
      FROM pg_indexes
     WHERE schemaname = %(schema)s AND tablename <> 'alembic_version'
     ORDER BY tablename, indexname
"""
SEQUENCES = """
    SELECT sequencename, data_type, start_value, increment_by, cycle, cache_size
      FROM pg_sequences WHERE schemaname = %(schema)s ORDER BY sequencename
"""


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    made = sa.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(database_url))
    yield made
    made.dispose()


@pytest.mark.parametrize(
    "query", [COLUMNS, CONSTRAINTS, INDEXES, SEQUENCES], ids=["columns", "constraints", "indexes", "sequences"]
)
def test_tables_are_those_of_the_revisions(query: str, conn: psycopg.Connection, engine: sa.Engine) -> None:
    conn.execute("CREATE SCHEMA declared")
    conn.execute("CREATE FUNCTION declared.uuidv7() RETURNS uuid LANGUAGE sql AS 'SELECT gen_random_uuid()'")
    schema.tables("declared").metadata.create_all(engine)

    def of(name: str) -> list[list[object]]:
        rows = conn.execute(query, {"schema": name}).fetchall()
        return [[text.replace(f"{name}.", "") if isinstance(text, str) else text for text in row] for row in rows]

    assert of("pgjobs"), "nothing was compared"
    assert of("declared") == of("pgjobs")


def test_every_relation_of_the_schema_is_declared(conn: psycopg.Connection) -> None:
    found = conn.execute(
        "SELECT relname, relkind = 'v' FROM pg_class"
        " WHERE relnamespace = 'pgjobs'::regnamespace AND relkind IN ('r', 'v') AND relname <> 'alembic_version'"
    ).fetchall()
    assert sorted(found) == sorted((table.name, "is_view" in table.info) for table in schema.metadata.tables.values())


def test_tables_of_another_name_are_made_once() -> None:
    other = schema.tables("other")
    assert other is schema.tables("other")
    assert other.jobs.fullname == "other.jobs"
    assert "pgjobs" not in str(sa.schema.CreateTable(other.jobs))
    assert schema.tables().jobs is schema.jobs


def test_jobs_are_counted_by_status(conn: psycopg.Connection, engine: sa.Engine) -> None:
    conn.execute("SELECT pgjobs.enqueue('mail.send', delay => interval '1 hour')")
    conn.execute("SELECT pgjobs.enqueue('mail.send') FROM generate_series(1, 3)")
    query = sa.select(schema.jobs.c.status, sa.func.count()).group_by(schema.jobs.c.status)
    with engine.connect() as connection:
        assert {tuple(row) for row in connection.execute(query)} == {("queued", 3), ("scheduled", 1)}
        assert connection.scalars(sa.select(schema.queue_stats.c.queued)).all() == [3]
        assert connection.scalars(sa.select(schema.running.c.id)).all() == []


def test_mapped_row_reads_a_job(conn: psycopg.Connection, engine: sa.Engine) -> None:
    conn.execute("""SELECT pgjobs.enqueue('mail.send', '{"to": "ann"}', timeout => interval '30 seconds')""")
    with Session(engine) as session:
        row = session.scalars(sa.select(schema.JobRow).where(schema.JobRow.task == "mail.send")).one()
        assert (row.status, row.args, row.timeout) == ("queued", {"to": "ann"}, timedelta(seconds=30))
        assert (row.id.version, row.run_at, row.created_at.utcoffset()) == (7, None, timedelta(0))


def test_mapped_row_has_every_column() -> None:
    assert (
        set(sa.inspect(schema.JobRow).columns.keys()) == set(schema.JobRow.__annotations__) == set(schema.jobs.c.keys())
    )


def test_mapped_row_is_read_under_another_schemas_name(database_url: str, engine: sa.Engine) -> None:
    migrations.migrate(database_url, schema="other")
    with Session(engine.execution_options(schema_translate_map={"pgjobs": "other"})) as session:
        session.execute(sa.text("SELECT other.enqueue('elsewhere')"))
        assert session.scalars(sa.select(schema.JobRow.task)).all() == ["elsewhere"]


def test_mapped_row_is_not_for_writing(conn: psycopg.Connection, engine: sa.Engine) -> None:
    conn.execute("SELECT pgjobs.enqueue('mail.send')")
    for change in (
        lambda session, row: setattr(row, "status", "succeeded"),
        lambda session, row: session.delete(row),
        lambda session, row: session.add(schema.JobRow(task="another")),
    ):
        with Session(engine) as session:
            change(session, session.scalars(sa.select(schema.JobRow)).one())
            with pytest.raises(PgJobsError, match="for reading"):
                session.flush()
