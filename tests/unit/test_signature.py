"""Arguments are bound to names, checked, and called again from the row as they were given."""

from __future__ import annotations

import dataclasses
import enum
import typing
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgjobs.arguments import codec
from pgjobs.arguments.privacy import Private
from pgjobs.arguments.signature import POSITIONALS, Signature
from pgjobs.errors import ArgumentsError, TaskError

USER = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
NOON = datetime(2027, 1, 31, 12, tzinfo=UTC)


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"


class Size(enum.Enum):
    SMALL = 1
    LARGE = 2


class Line(msgspec.Struct):
    count: int
    article: str = "?"


@dataclasses.dataclass
class Order:
    lines: list[Line]
    placed: datetime


class Point(typing.NamedTuple):
    x: int
    y: int


class Address(typing.TypedDict):
    street: str


def stored(signature: Signature, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """The arguments after they were written and read."""
    row: dict[str, Any] = codec.loads(codec.dumps(signature.bind(args, kwargs)))
    return row


def called(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What a worker calls for such a job."""
    signature = Signature(function, "t")
    again, named = signature.unbind(stored(signature, *args, **kwargs))
    return function(*again, **named)


def taking(annotation: Any) -> Callable[..., Any]:
    def function(value: Any) -> Any:
        return value

    function.__annotations__ = {"value": annotation}
    return function


# -- binding


@st.composite
def functions(draw: st.DrawFn) -> tuple[Callable[..., dict[str, Any]], list[str]]:
    """A function of any kinds of parameters that returns what it was given, and the names it can be given by."""
    by_place, either, by_name = (draw(st.integers(0, 2)) for _ in range(3))
    leading = [f"p{i}" for i in range(by_place)] + [f"e{i}" for i in range(either)]
    defaults = draw(st.integers(0, len(leading)))
    written = [name if i < len(leading) - defaults else f"{name}='default'" for i, name in enumerate(leading)]
    if by_place:
        written.insert(by_place, "/")
    if draw(st.booleans()):
        written.append("*more")
    elif by_name:
        written.append("*")
    written += [f"n{i}" + draw(st.sampled_from(["", "='default'"])) for i in range(by_name)]
    names = [f"e{i}" for i in range(either)] + [f"n{i}" for i in range(by_name)]
    if draw(st.booleans()):
        written.append("**others")
    scope: dict[str, Any] = {}
    exec(f"def function({', '.join(written)}): return locals()", scope)
    return scope["function"], [*names, "x", "y"]


@settings(deadline=None, max_examples=500)
@given(functions(), st.data())
def test_a_call_of_any_shape_is_made_again_as_it_was_given(
    made: tuple[Callable[..., dict[str, Any]], list[str]], data: st.DataObject
) -> None:
    function, names = made
    args = data.draw(st.lists(st.integers(), max_size=5))
    kwargs = data.draw(st.dictionaries(st.sampled_from(names), st.integers()))
    try:
        expected = function(*args, **kwargs)
    except TypeError:
        with pytest.raises(ArgumentsError, match=r"^task 't': .*; its signature is "):
            Signature(function, "t").bind(tuple(args), kwargs)
    else:
        assert called(function, *args, **kwargs) == expected


def test_the_row_holds_arguments_by_name_and_no_defaults() -> None:
    def function(a: int, b: int = 2, *more: int, c: int = 3, **others: int) -> None: ...

    signature = Signature(function, "t")
    assert stored(signature, 1) == {"a": 1}
    assert stored(signature, 1, 5, 6, 7, c=8, d=9) == {"a": 1, "b": 5, POSITIONALS: [6, 7], "c": 8, "d": 9}


def test_a_default_is_that_of_the_code_that_runs() -> None:
    def enqueued(a: int, b: int = 2) -> None: ...

    def deployed_since(a: int, b: int = 3, *, c: int = 4) -> tuple[int, int, int]:
        return a, b, c

    args, kwargs = Signature(deployed_since, "t").unbind(stored(Signature(enqueued, "t"), 1))
    assert deployed_since(*args, **kwargs) == (1, 3, 4)


@pytest.mark.parametrize("row", [{}, {"b": 1}, {"a": 1, "c": 2}, {"a": 1, POSITIONALS: [2, 3]}])
@pytest.mark.parametrize("annotation", [int, UUID])
def test_a_row_that_no_longer_fits_the_signature_is_refused(row: dict[str, Any], annotation: Any) -> None:
    def function(a: Any, b: Any = 0) -> None: ...

    function.__annotations__ = {"b": annotation}
    with pytest.raises(ArgumentsError, match=r"^task 'mail.send': "):
        Signature(function, "mail.send").unbind(row)


# -- types


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (int, 5),
        (float, 0.5),
        (float, 2),
        (str | None, None),
        (list[dict[str, int]], [{"a": 1}]),
        (Literal["a", 1], "a"),
        (datetime, NOON),
        (date, date(2027, 1, 31)),
        (timedelta, timedelta(seconds=90.5)),
        (UUID, USER),
        (Decimal, Decimal("1.10")),
        (bytes, b"\x00\xff"),
        (tuple[int, str], (1, "a")),
        (set[int], {1, 2}),
        (Colour, Colour.GREEN),
        (Line, Line(3)),
        (Order, Order([Line(1, "a"), Line(2)], NOON)),
        (Point, Point(1, 2)),
        (Address, {"street": "Main"}),
        (dict[str, UUID], {"user": USER}),
        (dict[int, float], {17: 2.0}),
        (dict[float, str], {0.5: "a"}),
        (dict[Size, int], {Size.LARGE: 3}),
        (dict[UUID, dict[int, Line]], {USER: {-1: Line(1)}}),
        (Mapping[Literal[1, 2], int] | None, {1: 5}),
        (list[Line] | None, [Line(1)]),
        (list[Line] | None, None),
        (Annotated[int, msgspec.Meta(ge=0)], 0),
    ],
)
def test_a_typed_argument_comes_back_as_it_was(annotation: Any, value: Any) -> None:
    again = called(taking(annotation), value)
    assert again == value
    assert type(again) is type(value)


@settings(deadline=None)
@given(
    st.uuids(),
    st.datetimes(timezones=st.just(UTC)),
    st.builds(Line, st.integers(-(2**63), 2**63 - 1), st.text(st.characters(codec="utf-8", exclude_characters="\0"))),
    st.sampled_from(Colour),
    st.binary(),
)
def test_typed_arguments_of_any_value_come_back(
    user: UUID, at: datetime, line: Line, colour: Colour, raw: bytes
) -> None:
    def function(user: UUID, /, at: datetime, *, line: Line, colour: Colour = Colour.RED, raw: bytes = b"") -> Any:
        return user, at, line, colour, raw

    assert called(function, user, at, line=line, colour=colour, raw=raw) == (user, at, line, colour, raw)


def test_an_argument_may_be_given_as_the_row_writes_it() -> None:
    assert called(taking(UUID), str(USER)) == USER
    assert called(taking(datetime), NOON.isoformat()) == NOON
    assert called(taking(Line), {"count": 3}) == Line(3)


@pytest.mark.parametrize(
    ("annotation", "wrong", "path"),
    [
        (int, "5", "$.value"),
        (int, True, "$.value"),
        (int, None, "$.value"),
        (int, 1.5, "$.value"),
        (str, 5, "$.value"),
        (list[int], [1, "2"], "$.value[1]"),
        (dict[str, int], {"a": "1"}, "$.value[...]"),
        (Literal["a"], "b", "$.value"),
        (dict[int, float], {"17": 2.0}, "$.value"),
        (dict[int, float], {17: "2"}, "$.value[...]"),
        (dict[UUID, dict[int, int]], {USER: {"1": 1}}, "$.value[...]"),
        (UUID, "nobody", "$.value"),
        (datetime, "tomorrow", "$.value"),
        (Colour, "blue", "$.value"),
        (Line, {"count": "3"}, "$.value.count"),
        (Line, Line("3"), "$.value.count"),  # type: ignore[arg-type]
        (Order, Order([Line(1), Line("2")], NOON), "$.value.lines[1].count"),  # type: ignore[arg-type]
        (Annotated[int, msgspec.Meta(ge=0)], -1, "$.value"),
    ],
)
def test_an_argument_of_the_wrong_type_is_named(annotation: Any, wrong: Any, path: str) -> None:
    with pytest.raises(ArgumentsError, match=r"^task 'mail.send': ") as caught:
        Signature(taking(annotation), "mail.send").bind((wrong,), {})
    assert str(caught.value).endswith(f"`{path}`")


@pytest.mark.parametrize("call", [(("7",), {}), ((), {"user_id": "7"})], ids=["by place", "by name"])
def test_a_wrong_argument_is_named_by_its_parameter(call: tuple[Any, Any]) -> None:
    def function(user_id: int) -> None: ...

    with pytest.raises(ArgumentsError, match=r"Expected `int`, got `str` - at `\$\.user_id`"):
        Signature(function, "t").bind(*call)


def test_a_row_of_another_type_is_refused_where_it_would_be_converted() -> None:
    with pytest.raises(ArgumentsError, match=r"Invalid UUID - at `\$\.value`"):
        Signature(taking(UUID), "t").unbind({"value": "nobody"})


def test_none_may_be_given_where_it_is_the_default() -> None:
    def function(user: UUID = None) -> Any:  # type: ignore[assignment] # noqa: RUF013
        return user

    assert called(function, None) is None
    assert called(function, USER) == USER


def test_an_untyped_argument_that_is_no_json_is_refused() -> None:
    def function(at: datetime, other: Any) -> None: ...

    with pytest.raises(ArgumentsError, match="object is not JSON; convert it, or annotate the parameter"):
        Signature(function, "t").bind((NOON, object()), {})


def order(user: Nowhere, at: datetime, note: Annotated[str, Private], ref: "5 +" = 0) -> UUID: ...  # type: ignore[name-defined, syntax] # noqa: F821, F722


def test_an_annotation_that_cannot_be_evaluated_leaves_the_others_as_they_are() -> None:
    with pytest.warns(RuntimeWarning) as warned:
        signature = Signature(order, "t")
    assert [str(each.message).split(";")[0] for each in warned] == [
        "annotation of user cannot be evaluated: name 'Nowhere' is not defined",
        "annotation of ref cannot be evaluated: Forward reference must be an expression -- got '5 +'",
    ]
    assert {(each.filename, each.lineno) for each in warned} == {(__file__, order.__code__.co_firstlineno)}
    assert "import it outside TYPE_CHECKING" in str(warned[0].message)
    assert signature.unbind(stored(signature, 5, NOON, "n")) == ((), {"user": 5, "at": NOON, "note": "n"})
    assert signature.private == {"user", "note", "ref"}
    assert signature.result_from_json(str(USER)) == USER
    with pytest.raises(ArgumentsError, match="note does not fit"):
        signature.bind((5, NOON, 5), {})


def test_a_result_whose_annotation_cannot_be_evaluated_leaves_the_arguments_as_they_are() -> None:
    def function(at: datetime) -> Nowhere: ...  # type: ignore[name-defined] # noqa: F821

    signature = Signature(function, "t")
    assert signature.unbind(stored(signature, NOON)) == ((), {"at": NOON})
    assert signature.result_from_json("x") == "x"


def test_a_type_that_json_cannot_check_is_not_checked() -> None:
    assert called(taking(type), 5) == 5


def test_what_is_built_in_cannot_be_a_task() -> None:
    with pytest.raises(TaskError, match="call it in a function of your own"):
        Signature(max, "x")


@pytest.mark.parametrize("error", [KeyError("secret"), SystemExit(1)])
def test_type_that_refuses_to_be_made_is_a_misfit(error: BaseException) -> None:
    @dataclasses.dataclass
    class Fussy:
        n: int

        def __post_init__(self) -> None:
            raise error

    with pytest.raises(ArgumentsError, match=r"task 't': (KeyError|SystemExit)"):
        Signature(taking(Fussy), "t").unbind({"value": {"n": 1}})
    with pytest.raises(ArgumentsError, match="is private, so no more is said"):
        Signature(taking(Fussy), "t", private=["value"]).unbind({"value": {"n": 1}})
