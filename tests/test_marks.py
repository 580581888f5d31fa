"""Marks: made from Python, the command line and SQL, listed, kept for a year, and shown where figures are."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from importlib import resources
from typing import Any

import psycopg
import pytest

from pgjobs import OptionError, PgJobs, statements
from tests.processes import pgjobs

pytestmark = pytest.mark.server


def texts(jobs: PgJobs) -> list[str]:
    return [mark.text for mark in jobs.marks()]


async def test_marks_are_listed_the_latest_first(jobs: PgJobs) -> None:
    jobs.mark("v1")
    await jobs.amark("old", at=datetime.now(UTC) - timedelta(days=2))
    await jobs.amark("to come", at=datetime.now(UTC) + timedelta(days=2))
    assert texts(jobs) == ["to come", "v1", "old"] == [mark.text for mark in await jobs.amarks()]
    last = await jobs.database.arun(statements.last_mark())
    await jobs.database.aclose()
    assert last is not None
    assert (last.text, bool(last.author), bool(last.host)) == ("v1", True, True)


def test_what_is_no_mark_is_refused(jobs: PgJobs) -> None:
    for text in (" ", "x" * 201):
        with pytest.raises(OptionError, match="from 1 to 200"):
            jobs.mark(text)
    with pytest.raises(OptionError, match="without a time zone"):
        jobs.mark("v1", at=datetime(2026, 1, 1))
    for far in ("9999-12-31T23:59-12:00", "0001-01-01T00:00+14:00"):
        with pytest.raises(OptionError, match="not every zone has a date"):
            jobs.mark("v1", at=datetime.fromisoformat(far))
    assert texts(jobs) == []


def test_moment_that_python_does_not_have_keeps_no_mark_from_being_read(
    jobs: PgJobs, conn: psycopg.Connection[Any]
) -> None:
    moments = "'infinity', '-infinity', '9999-12-31 23:59-12', '0044-03-15 12:00 BC'"
    conn.execute(f"INSERT INTO pgjobs.marks (at, text) SELECT unnest(ARRAY[{moments}]::timestamptz[]), 'far'".encode())
    last = jobs.database.run(statements.last_mark())
    assert last is None
    jobs.mark("v1")
    assert texts(jobs) == ["v1"]


def test_year_old_marks_are_tidied_away(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    conn.execute(
        "INSERT INTO pgjobs.marks (at, text)"
        " VALUES (now() - interval '366 days', 'a'), (now() - interval '364 days', 'b')"
    )
    jobs.database.run(statements.tidy())
    assert conn.execute("SELECT text, author, host FROM pgjobs.marks").fetchall() == [("b", conn.info.user, None)]


def test_command_marks_and_lists(jobs: PgJobs, database_url: str) -> None:
    assert "pgjobs mark" in pgjobs(database_url, "mark", "--list").stdout
    assert pgjobs(database_url, "mark", "v1.2.3").stdout.startswith("marked v1.2.3 at 20")
    made = json.loads(pgjobs(database_url, "mark", "v1.2.2", "--at", "2026-01-31T12:00+01:00", "--json").stdout)
    assert made["at"].startswith("2026-01-31T11:00:00") or made["at"].endswith("+01:00")
    listed = pgjobs(database_url, "mark", "--list").stdout.splitlines()
    assert ["v1.2.3" in listed[1], "v1.2.2" in listed[2]] == [True, True]
    assert [mark["text"] for mark in json.loads(pgjobs(database_url, "mark", "--list", "--json").stdout)] == texts(jobs)
    assert "last mark: v1.2.3, " in pgjobs(database_url, "info").stdout
    for arguments, says in (
        ([], "give a text"),
        (["x", "--list"], "give a text"),
        (["x", "--at", "noon"], "with a zone"),
    ):
        done = pgjobs(database_url, "mark", *arguments)
        assert (done.returncode, says in done.stderr) == (2, True), done.stderr


def test_annotation_of_the_dashboard_answers(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    jobs.mark("v1.2.3")
    board = json.loads(resources.files("pgjobs.contrib").joinpath("grafana.json").read_text())
    (annotation,) = board["annotations"]["list"]
    assert annotation["datasource"]["uid"] == "${database}"
    assert "database" in [each["name"] for each in board["templating"]["list"]]
    query = annotation["target"]["rawSql"].replace("$__timeFilter(at)", "at > now() - interval '1 hour'")
    cursor = conn.execute(query.encode())
    assert [column.name for column in cursor.description or ()] == ["time", "text", "tags"]
    assert [row[1] for row in cursor] == ["v1.2.3"]
