"""Arrays made in one piece are read by the server as what they were."""

from __future__ import annotations

from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgjobs.connections import arrays

CONNECTIONS = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)


@pytest.fixture
def own(conn: psycopg.Connection) -> psycopg.Connection:
    arrays.register(conn)
    return conn


def read(own: psycopg.Connection, array: object, kind: str) -> list[object]:
    row = own.execute(f"SELECT %s::{kind}", [array], binary=True).fetchone()
    assert row is not None
    return list(row[0])


@CONNECTIONS
@given(st.lists(st.uuids()))
def test_ids(own: psycopg.Connection, values: list[UUID]) -> None:
    assert read(own, arrays.uuids(values), "uuid[]") == values


@CONNECTIONS
@given(st.lists(st.floats(allow_nan=False)))
def test_numbers(own: psycopg.Connection, values: list[float]) -> None:
    assert read(own, arrays.floats(values), "float8[]") == values


@CONNECTIONS
@given(st.lists(st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))))
def test_texts_and_nulls(own: psycopg.Connection, values: list[str | None]) -> None:
    assert read(own, arrays.texts(values), "text[]") == values
