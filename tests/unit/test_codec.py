"""What dumps accepts comes back equal, and jsonb takes it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from datetime import date
from enum import IntEnum, StrEnum
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgjobs.arguments import codec
from pgjobs.errors import EncodingError

TEXTS = st.text(st.characters() | st.sampled_from("\0\ud800\udfff\\u{[\"'"), max_size=8)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXTS, inner, max_size=5), max_leaves=20
)


def nested(value: Any, depth: int) -> Any:
    for level in range(depth):
        value = [value] if level % 2 else {"in": value}
    return value


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from leaves(inner)
    else:
        yield value


def jsonb_takes(leaf: Any) -> bool:
    if isinstance(leaf, str):
        return not any(character == "\0" or "\ud800" <= character <= "\udfff" for character in leaf)
    return not isinstance(leaf, float) or math.isfinite(leaf)


async def late() -> None: ...


@pytest.mark.parametrize(
    ("what", "says"),
    [
        (
            "arguments",
            "date (convert it, or annotate the parameter with a type that says so, such as dict[str, datetime])",
        ),
        ("result", "date (convert it, or annotate what the function returns with its type, such as a dataclass)"),
        ("meta", "date (convert it yourself)"),
    ],
)
def test_what_is_no_json_is_refused_with_what_can_be_done_there(what: str, says: str) -> None:
    with pytest.raises(EncodingError) as caught:
        codec.dumps({"a": date(2027, 1, 31)}, what=what)
    assert str(caught.value) == f"{what} cannot be stored as JSON: {says} at $.a"


def test_coroutine_is_to_be_awaited() -> None:
    coroutine = late()
    with pytest.raises(EncodingError, match=r"result cannot be stored as JSON: coroutine \(await it\)"):
        codec.dumps(coroutine, what="result")
    coroutine.close()


@settings(deadline=None, max_examples=400)
@given(VALUES)
def test_a_value_comes_back_equal_or_is_refused_for_a_reason(value: Any) -> None:
    if all(map(jsonb_takes, leaves(value))):
        assert repr(codec.loads(codec.dumps(value))) == repr(value)  # tells 1, 1.0 and True apart
    else:
        with pytest.raises(EncodingError):
            codec.dumps(value)


@settings(deadline=None)
@given(st.integers(55, 75), SCALARS.filter(jsonb_takes))
def test_values_in_over_64_brackets_are_refused(depth: int, value: Any) -> None:
    deep = nested(value, depth)
    if depth <= 64:
        assert codec.loads(codec.dumps(deep)) == deep
    else:
        with pytest.raises(EncodingError, match="value is nested over 64 deep"):
            codec.dumps(deep)


@pytest.mark.parametrize("depth", [1_000, 100_000])
def test_no_depth_exhausts_the_stack(depth: int) -> None:
    deep: list[Any] = []
    for _ in range(depth):
        deep = [deep]
    with pytest.raises(EncodingError, match="flatten it"):
        codec.dumps(deep)


def test_a_value_that_contains_itself_is_refused() -> None:
    ring: list[Any] = [1]
    ring.append({"ring": ring})
    with pytest.raises(EncodingError, match="nested"):
        codec.dumps(ring)


@pytest.mark.parametrize("letter", ["x", "é", "漢", "😀"])
def test_a_megabyte_is_counted_in_bytes(letter: str) -> None:
    most = (1_000_000 - len('""')) // len(letter.encode())
    assert codec.loads(codec.dumps(letter * most)) == letter * most
    with pytest.raises(EncodingError, match="over 1,000,000; store it elsewhere"):
        codec.dumps(letter * (most + 1))


@pytest.mark.parametrize(
    ("value", "path", "problem"),
    [
        ("a\0", "$", "u0000"),
        ({"user": {"tags": ["", "b\0"]}}, "$.user.tags[1]", "u0000"),
        ({"user": {"a\0": 1}}, "$.user", "u0000 in a text, which PostgreSQL cannot hold, as a key"),
        (["\udc80"], "$[0]", "lone surrogate"),
        ({"\ud83d": 1}, "$", "lone surrogate in a text as a key"),
        ({"x": [1.0, math.nan]}, "$.x[1]", "nan"),
        ({"x": -math.inf}, "$.x", "-inf"),
        ({"when": date(2027, 1, 31)}, "$.when", "date"),
        ([{1, 2}], "$[0]", "set"),
        (b"raw", "$", "bytes"),
        ({(1, 2): 3}, "$", "tuple .* as a key"),
    ],
)
def test_an_error_says_what_is_wrong_and_where(value: Any, path: str, problem: str) -> None:
    with pytest.raises(EncodingError, match=f"^result cannot be stored as JSON: .*{problem}") as caught:
        codec.dumps(value, what="result")
    assert caught.value.path == path
    assert str(caught.value).endswith(f" at {path}")


def test_an_integer_that_python_will_not_write_is_refused() -> None:
    with pytest.raises(EncodingError, match="cannot be stored as JSON"):
        codec.dumps(10**5000)


@pytest.mark.parametrize("value", [r"\u0000", r"\\u0000", "[" * 100, "{" * 100, [[]] * 100, {"a": [{}] * 100}])
def test_what_only_looks_suspicious_is_accepted(value: Any) -> None:
    assert codec.loads(codec.dumps(value)) == value


def test_kinds_of_numbers_texts_and_lists_are_written_as_their_like() -> None:
    class Level(IntEnum):
        HIGH = 3

    class Colour(StrEnum):
        RED = "red"

    assert json.loads(codec.dumps([Level.HIGH, Colour.RED, (1, 2)])) == [3, "red", [1, 2]]


@pytest.mark.parametrize(
    "text", ['{"a": [1, 2.5, null, true, "ü\\n\\u2028"]}', "123456789012345678901234567890", "1e400", "-0.0", '""']
)
def test_what_is_read_is_what_json_reads(text: str) -> None:
    assert repr(codec.loads(text.encode())) == repr(json.loads(text))
