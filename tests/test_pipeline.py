"""Statements sent in one piece: results, errors, and connections that end meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from pgjobs.connections import pipeline as module
from pgjobs.connections.pipeline import Pipeline

pytestmark = pytest.mark.server


@pytest.fixture
def own(direct_url: str) -> Iterator[psycopg.Connection[Any]]:
    conn = psycopg.connect(direct_url, autocommit=True)
    yield conn
    conn.close()


def asked(pipeline: Pipeline, *statements: tuple[str, list[Any]]) -> list[list[tuple[Any, ...]]]:
    results = pipeline.run([pipeline.dump(text, params) for text, params in statements])
    return [pipeline.read(result) for result in results]


def prepared(conn: psycopg.Connection[Any]) -> int:
    row = conn.execute("SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'pgjobs%'").fetchone()
    assert row is not None
    return int(row[0])


def test_each_statement_returns_its_rows(own: psycopg.Connection[Any]) -> None:
    pipeline = Pipeline(own)
    for _ in range(3):
        assert asked(
            pipeline,
            ("CREATE TEMP TABLE IF NOT EXISTS t (i int, s text)", []),
            ("INSERT INTO t VALUES ($1::int, $2::text) RETURNING i, s", [7, None]),
            ("SELECT $1::int[], $2::text, $3::jsonb", [[1, 2], "ü", '{"a": 1}']),
        ) == [[], [(7, None)], [([1, 2], "ü", {"a": 1})]]
    assert own.execute("SELECT count(*) FROM t").fetchone() == (3,), "psycopg goes on with the connection"


def test_what_comes_again_is_prepared(own: psycopg.Connection[Any]) -> None:
    pipeline = Pipeline(own)
    for count in (0, 1, 1):
        asked(pipeline, ("SELECT $1::int", [1]))
        assert prepared(own) == count
    asked(pipeline, *[("SELECT $1::bigint", [number]) for number in (1, 100_000, 2**40, 1, 100_000, 2**40)])
    assert prepared(own) == 4, "once for each width"


def test_no_more_are_kept_than_most(own: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_PREPARED", 2)
    pipeline = Pipeline(own)
    for _ in range(3):
        assert asked(pipeline, *[(f"SELECT {i}", []) for i in range(5)]) == [[(i,)] for i in range(5)]
    assert prepared(own) == 2


def test_nothing_is_prepared_behind_a_pooler(own: psycopg.Connection[Any]) -> None:
    own.prepare_threshold = None
    pipeline = Pipeline(own)
    for _ in range(3):
        asked(pipeline, ("SELECT $1::int", [1]))
    assert prepared(own) == 0


def test_more_than_any_buffer_holds_goes_both_ways(own: psycopg.Connection[Any]) -> None:
    """A server whose replies nobody takes reads no more, and would wait for us for ever as we for it."""
    long = "x" * 20_000_000
    assert asked(Pipeline(own), *[("SELECT $1::text, 1", [long])] * 4) == [[(long, 1)]] * 4


def test_error_ends_what_comes_after_it(own: psycopg.Connection[Any], conn: psycopg.Connection[Any]) -> None:
    conn.execute("CREATE TABLE t (i int PRIMARY KEY)")
    pipeline = Pipeline(own)
    insert = "INSERT INTO t VALUES ($1::int)"
    with pytest.raises(psycopg.errors.UniqueViolation, match="duplicate key") as caught:
        asked(pipeline, ("BEGIN", []), (insert, [1]), (insert, [1]), (insert, [2]), ("COMMIT", []))
    assert (caught.value.sqlstate, caught.value.diag.table_name) == ("23505", "t")
    own.close()
    assert conn.execute("SELECT FROM t").fetchall() == []


@pytest.mark.parametrize(("value", "error"), [("\0", psycopg.DataError), ("\ud800", UnicodeEncodeError)])
def test_what_cannot_be_sent_leaves_the_connection_as_it_was(
    value: str, error: type[Exception], own: psycopg.Connection[Any]
) -> None:
    pipeline = Pipeline(own)
    with pytest.raises(error):
        asked(pipeline, ("BEGIN", []), ("SELECT $1::text", [value]))
    assert asked(pipeline, ("SELECT $1::text", ["x"])) == [[("x",)]]


def test_something_can_be_done_while_the_server_works(own: psycopg.Connection[Any]) -> None:
    pipeline = Pipeline(own)
    at: list[float] = []
    began = time.monotonic()
    pipeline.run([pipeline.dump("SELECT pg_sleep(0.3)")], meanwhile=lambda: at.append(time.monotonic()))
    assert at[0] - began < 0.25 <= time.monotonic() - began


def test_not_where_the_server_takes_long_to_read(own: psycopg.Connection[Any]) -> None:
    pipeline = Pipeline(own)
    long = pipeline.dump("SELECT length($1::text)", ["x" * 50_000_000])
    (result,) = pipeline.run([long], meanwhile=lambda: pytest.fail("something is left to be sent"))
    assert pipeline.read(result) == [(50_000_000,)]


@pytest.mark.parametrize("when", ["before", "meanwhile", "later"])
def test_connection_that_ends_is_an_error(
    when: str, own: psycopg.Connection[Any], conn: psycopg.Connection[Any]
) -> None:
    pipeline = Pipeline(own)

    def end() -> None:
        conn.execute("SELECT pg_terminate_backend(%s, 5000)", [own.info.backend_pid])

    sleep = pipeline.dump("SELECT pg_sleep(20)")
    timer = threading.Timer(0.3, end)
    if when == "before":
        end()
    elif when == "later":
        timer.start()
    with pytest.raises(psycopg.OperationalError):
        pipeline.run([sleep, sleep], meanwhile=end if when == "meanwhile" else None)
    timer.cancel()
