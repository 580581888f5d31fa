"""A schema with roles of its own, and users who have one of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
from psycopg import sql

from pgjobs import migrations, roles


@contextmanager
def schema_with_roles(conn: psycopg.Connection[Any], direct_url: str) -> Iterator[str]:
    """A schema whose roles nobody else has: roles belong to the whole server."""
    name = f"r{uuid4().hex[:8]}"
    migrations.migrate(direct_url, schema=name)
    assert roles.create(conn, name) == [roles.role_name(role, name) for role in roles.ROLES]
    try:
        yield name
    finally:
        conn.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(name)))
        for role in roles.ROLES:
            own = sql.Identifier(roles.role_name(role, name))
            conn.execute(sql.SQL("DROP OWNED BY {}").format(own))
            conn.execute(sql.SQL("DROP ROLE {}").format(own))


@contextmanager
def login(conn: psycopg.Connection[Any], direct_url: str, schema: str, role: str) -> Iterator[str]:
    """The URL of a user who has this role and no other."""
    user = f"u_{schema}_{role}"
    conn.execute(sql.SQL("CREATE ROLE {} LOGIN IN ROLE {}").format(
        sql.Identifier(user), sql.Identifier(roles.role_name(role, schema))
    ))  # fmt: skip
    try:
        parts = urlsplit(direct_url)
        yield parts._replace(netloc=f"{user}@{parts.hostname}:{parts.port}").geturl()
    finally:
        conn.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", [user])
        conn.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(user)))
        conn.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(user)))
