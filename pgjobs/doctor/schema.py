"""The schema against that of this release, and who may do what in it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from psycopg import errors

from pgjobs import migrations, roles, statements
from pgjobs import schema as declared
from pgjobs.config import SCHEMA_REVISION
from pgjobs.doctor.finding import Check, Finding, Patient, critical, warning


def revision(patient: Patient) -> Iterator[Finding]:
    """A schema that is absent, older or newer than this release."""
    try:
        found, oldest = patient.ask(statements.schema_revision())
    except (errors.UndefinedTable, errors.InvalidSchemaName):
        found = oldest = ""
    mend = f"pgjobs migrate{patient.option}"
    if not found:
        what = f"the schema {patient.schema} is not there"
        yield critical("revision", what, "nothing can be enqueued or run", mend)
    elif found < SCHEMA_REVISION:
        what = f"the schema {patient.schema} is at revision {found}, and this release needs {SCHEMA_REVISION}"
        yield critical("revision", what, "workers of this release refuse to start", mend)
    elif oldest > SCHEMA_REVISION:
        what = f"the schema {patient.schema} is at revision {found}, newer than this release knows ({SCHEMA_REVISION})"
        yield critical(
            "revision", what, "workers of this release refuse to start", "pip install --upgrade pgjobs-queue"
        )


def drift(patient: Patient) -> Iterator[Finding]:
    """Tables, columns, constraints, indexes, views and functions that are missing or other than this release has them.

    What somebody has added is left alone.
    """
    found, _ = patient.ask(statements.schema_revision())
    if found != SCHEMA_REVISION or patient.ask(statements.host_of()).standby:
        return
    for what, mend in (*_missing(patient), *_different(patient)):
        why = "statements of this release fail, or read the whole table"
        yield critical("drift", what, why, mend)


def _missing(patient: Patient) -> Iterator[tuple[str, str]]:
    """Views, functions and constraints, which Alembic does not compare, by their names."""
    there = patient.ask(statements.relations())
    script = migrations.sql(schema=patient.schema)
    own = rf"FUNCTION (?:IF EXISTS )?{patient.schema}\.(\w+)"
    made = set(re.findall(rf"CREATE (?:OR REPLACE )?{own}", script)) - set(re.findall(f"DROP {own}", script))
    views = {
        table.name for table in declared.tables(patient.schema).metadata.tables.values() if "is_view" in table.info
    }
    for kind, names in (("function", made), ("view", views)):
        for name in sorted(names):
            if ("relation" if kind == "view" else kind, name) not in there:
                mend = f"run its CREATE {kind.upper()} from the script again: pgjobs migrate --sql{patient.option}"
                yield f"the {kind} {patient.schema}.{name} is missing", mend
    for table, name in _constraints(patient.schema):
        if ("relation", table) in there and ("constraint", name) not in there:
            mend = f"take its definition from the script, for ALTER TABLE … ADD: pgjobs migrate --sql{patient.option}"
            yield f"the constraint {name} of {patient.schema}.{table} is missing", mend


def _constraints(schema: str) -> Iterator[tuple[str, str]]:
    for table in declared.tables(schema).metadata.tables.values():
        if "is_view" not in table.info:
            named = {each.name for each in table.constraints if each.name is not None}
            keys = {f"{table.name}_pkey"} if table.primary_key.columns else set[str]()
            yield from ((table.name, name) for name in sorted({*map(str, named), *keys}))


def _different(patient: Patient) -> Iterator[tuple[str, str]]:
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    def ours(item: Any, name: str | None, kind: str, reflected: bool, other: Any) -> bool:
        return not item.info.get("is_view") and not (reflected and other is None)

    def here(name: str | None, kind: str, parents: object) -> bool:
        return kind != "schema" or name == patient.schema

    options: dict[str, Any] = {
        "version_table_schema": patient.schema,
        "include_schemas": True,
        "include_name": here,
        "include_object": ours,
        "compare_type": True,
        "compare_server_default": True,
    }
    with migrations.connect(patient.database.url) as connection:
        context = MigrationContext.configure(connection, opts=options)
        changes: list[Any] = compare_metadata(context, declared.tables(patient.schema).metadata)
    for change in changes:
        several: list[Any] = change if isinstance(change, list) else [change]  # pyright: ignore[reportUnknownVariableType]
        yield from filter(None, (_said(each, patient) for each in several))


def _said(change: tuple[Any, ...], patient: Patient) -> tuple[str, str] | None:
    """A difference in words, with what mends it; None for one that does not matter."""
    script = f"take its definition from the script: pgjobs migrate --sql{patient.option}"
    match change:
        case ("add_table", table):
            return f"the table {table.fullname} is missing", script
        case ("add_column", _, table, column):
            return f"the column {patient.schema}.{table}.{column.name} is missing", script
        case ("add_index", index):
            what = f"the index {patient.schema}.{index.name} is missing, or other than this release has it"
            return what, f"DROP INDEX CONCURRENTLY IF EXISTS {patient.schema}.{index.name}; {_create(index)}"
        case (("modify_type" | "modify_nullable" | "modify_default") as kind, _, table, column, *_, was, wanted):
            part = kind.removeprefix("modify_").replace("nullable", "nullability")
            return f"the {part} of {patient.schema}.{table}.{column} is {was}, and should be {wanted}", script
        case _:
            return None


def _create(index: Any) -> str:
    from sqlalchemy.dialects import postgresql
    from sqlalchemy.schema import CreateIndex

    dialect = postgresql.dialect()  # type: ignore[no-untyped-call] # SQLAlchemy leaves it untyped
    text = " ".join(str(CreateIndex(index).compile(dialect=dialect)).split())
    return text.replace(" INDEX ", " INDEX CONCURRENTLY ", 1)


def wide_roles(patient: Patient) -> Iterator[Finding]:
    """Workers that run as a superuser, or as the owner of the tables."""
    for name, is_super in patient.ask(statements.wide_roles()):
        yield warning(
            "wide_role",
            f"workers connect as {name}, {'a superuser' if is_super else 'the owner of the tables'}",
            "whoever takes over a worker may do anything to the tables, or to the server",
            f"pgjobs roles create{patient.option}; GRANT {patient.schema}_worker TO a role that owns nothing",
        )


def privileges(patient: Patient) -> Iterator[Finding]:
    """The roles of this schema, where somebody has made them, against what they should be able to do."""
    differences = roles.check(patient.conn, patient.schema)
    if sum("there is no such role" in each.privilege for each in differences) == len(roles.ROLES):
        return
    for each in differences:
        mend = f"pgjobs roles create{patient.option}"
        if each.missing:
            yield critical("privileges", f"the role {each}", "what needs it fails", mend)
        else:
            yield warning("privileges", f"the role {each}", "least privilege is not kept", mend)


CHECKS: Final[Sequence[Check]] = (revision, drift, wide_roles, privileges)
