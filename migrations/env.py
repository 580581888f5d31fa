"""Alembic's commands for those who write revisions; see alembic.ini. pgjobs itself runs revisions without this file."""

import logging

from alembic import context
from sqlalchemy import Connection
from sqlalchemy.schema import CreateSchema, SchemaItem

from pgjobs import embedded, migrations, schema
from pgjobs.config import DEFAULT_SCHEMA, find_url, schema_name

SCHEMA = schema_name(context.get_x_argument(as_dictionary=True).get("schema", DEFAULT_SCHEMA))
TARGET = schema.tables(SCHEMA).metadata


def include_name(name: str | None, kind: str, parents: object) -> bool:
    """The schema alone is pgjobs's; whatever else lies in the database is the application's."""
    return kind != "schema" or name == SCHEMA


def include_object(item: SchemaItem, name: str | None, kind: str, reflected: bool, other: SchemaItem | None) -> bool:
    """Views are declared for reporting; SQL makes them."""
    return not item.info.get("is_view")


def offline() -> None:
    context.configure(
        dialect_name="postgresql",
        dialect_opts={"paramstyle": "named"},
        version_table_schema=SCHEMA,
        target_metadata=TARGET,
    )
    with context.begin_transaction():
        context.execute(CreateSchema(SCHEMA, if_not_exists=True))
        migrations.run(context.get_context(), SCHEMA)


def online(connection: Connection) -> None:
    with connection.begin():
        migrations.prepare(connection, SCHEMA)
        context.configure(
            connection=connection,
            target_metadata=TARGET,
            version_table_schema=SCHEMA,
            include_schemas=True,
            include_name=include_name,
            include_object=include_object,
            compare_type=True,
            compare_server_default=True,
        )
        migrations.run(context.get_context(), SCHEMA)


if context.config.cmd_opts is not None:  # called from the command line
    logging.basicConfig(level=logging.INFO, format="%(message)s")

if context.is_offline_mode():
    offline()
else:
    with migrations.connect(context.config.attributes.get("url") or embedded.resolve(find_url())) as connection:
        online(connection)
