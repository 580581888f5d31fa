"""Durations, names and the database's URL."""

from __future__ import annotations

import math
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgjobs import config
from pgjobs.errors import ConfigurationError, OptionError

CENTURY_S = 100 * 365 * 24 * 3600
UNITS_S = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600}
PARTS = st.tuples(st.integers(0, 99) | st.decimals(0, 99, places=3), st.sampled_from(sorted(UNITS_S)))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0.0),
        (1.5, 1.5),
        (timedelta(minutes=1, milliseconds=5), 60.005),
        ("90s", 90.0),
        ("10m", 600.0),
        ("1h30m", 5400.0),
        ("2d", 172_800.0),
        ("250ms", 0.25),
        ("1w 2d", 777_600.0),
        (" 1.5 h ", 5400.0),
        (CENTURY_S, CENTURY_S),
    ],
)
def test_a_duration_is_seconds_a_timedelta_or_a_text(value: config.Duration, expected: float) -> None:
    assert config.seconds(value) == pytest.approx(expected)


@settings(deadline=None)
@given(st.lists(PARTS, min_size=1, max_size=4), st.sampled_from(["", " ", "  "]))
def test_the_parts_of_a_text_add_up(parts: list[tuple[int | Decimal, str]], space: str) -> None:
    text = space.join(f"{number}{unit}" for number, unit in parts)
    assert config.seconds(text) == pytest.approx(sum(float(number) * UNITS_S[unit] for number, unit in parts))


@settings(deadline=None)
@given(st.timedeltas(timedelta(0), timedelta(seconds=CENTURY_S)))
def test_a_timedelta_means_its_seconds(value: timedelta) -> None:
    assert config.seconds(value) == config.seconds(value.total_seconds()) == value.total_seconds()


@pytest.mark.parametrize(
    "value",
    [
        *(-1, -0.001, timedelta(seconds=-1), math.nan, math.inf, -math.inf),
        *(CENTURY_S + 1, timedelta(seconds=CENTURY_S + 1), "5201w 800d", "9" * 400 + "s"),
        *("", " ", "10", "m", "10 minutes", "-5s", "5s!", "s5", "1.5.5s", "1e3s", "10M", "1h 30"),
        *(True, None, [5], Decimal(5), b"5s"),
    ],
)
def test_what_is_no_length_of_time_is_refused(value: Any) -> None:
    with pytest.raises(OptionError, match=r"^ttl is "):
        config.seconds(value, what="ttl")


@settings(deadline=None)
@given(st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.:/@-]{0,99}", fullmatch=True))
def test_letters_digits_and_some_signs_name_a_queue(name: str) -> None:
    assert config.queue_name(name) == name


@pytest.mark.parametrize("name", ["", " ", "a b", "a,b", "a*", ".a", "-a", "mail\n", "é", "a" * 101, None, 5, b"mail"])
def test_what_cannot_name_a_queue_is_refused(name: Any) -> None:
    with pytest.raises(OptionError, match="is not a name"):
        config.queue_name(name)


@pytest.mark.parametrize("name", ["pgjobs", "_", "tenant_7", "a" * 40])
def test_lower_case_letters_digits_and_underscores_name_a_schema(name: str) -> None:
    assert config.schema_name(name) == name


@pytest.mark.parametrize("name", ["", "A", "7a", "a-b", "a.b", 'a"b', "a\n", "é", "a" * 41, None, 5])
def test_what_cannot_name_a_schema_is_refused(name: Any) -> None:
    with pytest.raises(ConfigurationError, match="is not a name"):
        config.schema_name(name)


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({"PGJOBS_URL": "postgresql://a/b", "DATABASE_URL": "postgresql://c/d", "PGHOST": "e"}, "postgresql://a/b"),
        ({"DATABASE_URL": "postgres://c/d", "PGHOST": "e"}, "postgresql://c/d"),
        ({"PGJOBS_URL": "", "DATABASE_URL": "postgresql+asyncpg://c/d"}, "postgresql://c/d"),
        ({"PGHOST": "e"}, ""),
        ({"PGSERVICE": "e"}, ""),
        ({"PGDATABASE": "e"}, ""),
        ({"PGUSER": "e"}, ""),
    ],
)
def test_the_most_particular_variable_names_the_database(environ: dict[str, str], url: str) -> None:
    assert config.find_url(environ) == url


@pytest.mark.parametrize("environ", [{}, {"PGJOBS_URL": "", "PGHOST": ""}, {"PGPASSWORD": "s3cret"}])
def test_no_variable_names_no_database(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="set PGJOBS_URL or DATABASE_URL") as caught:
        config.find_url(environ)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("given_url", "url"),
    [
        ("postgres://u:p@h/d?x=1", "postgresql://u:p@h/d?x=1"),
        ("postgresql+psycopg2://h/d", "postgresql://h/d"),
        ("postgresql://h/postgres://", "postgresql://h/postgres://"),
        ("host=h dbname=d", "host=h dbname=d"),
        ("embedded:", "embedded:"),
        ("postgresql://u:p@a:1,b:2/d", "postgresql://u:p@a:1,b:2/d"),
        ("postgresql+psycopg://u:p@/d?host=a:1&x=%2B&host=b%3A2", "postgresql://u:p@/d?x=%2B&host=a,b&port=1,2"),
        ("postgresql+asyncpg://u@/d?host=a&host=b:2", "postgresql://u@/d?host=a,b&port=,2"),
    ],
)
def test_a_url_is_written_as_libpq_reads_it(given_url: str, url: str) -> None:
    assert config.normal_url(given_url) == url
