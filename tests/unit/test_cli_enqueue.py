"""How arguments are written on the command line."""

from __future__ import annotations

import json
from typing import Any

import click
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgjobs.cli.enqueue import parse

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize(
    ("arguments", "positional", "named"),
    [
        ((), [], {}),
        (("ann", "5", ""), ["ann", "5", ""], {}),
        ((":5", ":null", ':{"a": [1]}', ':":x"'), [5, None, {"a": [1]}, ":x"], {}),
        (("to=ann", "count=5", "note="), [], {"to": "ann", "count": "5", "note": ""}),
        (("limit:=10", 'tags:=["a"]', "on:=true"), [], {"limit": 10, "tags": ["a"], "on": True}),
        (("ann", "limit:=10", "note=a=b"), ["ann"], {"limit": 10, "note": "a=b"}),
        (("eq==", 'json:="=1"'), [], {"eq": "=", "json": "=1"}),
        (("https://example.com/?a=1&b=2",), ["https://example.com/?a=1&b=2"], {}),
        (("1=2", "=x", "a b=c", "a-b=c"), ["1=2", "=x", "a b=c", "a-b=c"], {}),
    ],
)
def test_arguments_are_texts_and_json_by_place_or_by_name(
    arguments: tuple[str, ...], positional: list[Any], named: dict[str, Any]
) -> None:
    assert parse(arguments) == (positional, named)


@settings(deadline=None)
@given(st.lists(VALUES, max_size=4), st.dictionaries(NAMES, VALUES, max_size=4))
def test_any_json_can_be_written(positional: list[Any], named: dict[str, Any]) -> None:
    written = [f":{json.dumps(value)}" for value in positional]
    written += [f"{name}:={json.dumps(value)}" for name, value in named.items()]
    assert repr(parse(tuple(written))) == repr((positional, named))


@settings(deadline=None)
@given(NAMES, st.text())
def test_any_text_can_be_written_by_name(name: str, text: str) -> None:
    assert parse((f"{name}={text}",)) == ([], {name: text})


@pytest.mark.parametrize("argument", [":", ":ann", "limit:=", "limit:=ten", "limit:={", ":=5", ":'a'"])
def test_what_should_be_json_and_is_not_is_refused(argument: str) -> None:
    with pytest.raises(click.UsageError, match="is no JSON") as caught:
        parse((argument,))
    assert ("limit" if argument.startswith("limit") else "argument 1") in caught.value.message
    assert "ten" not in caught.value.message  # it may be private


@pytest.mark.parametrize("argument", ["ann", ":5"])
def test_a_place_after_a_name_is_refused(argument: str) -> None:
    with pytest.raises(click.UsageError, match="argument 2 stands after one with a name"):
        parse(("a=1", argument))
