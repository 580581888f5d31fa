"""Private arguments: which they are, and that no message quotes them."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any, Literal, Optional

import pytest

from pgjobs import ArgumentsError, EncodingError, OptionError, PgJobs, Private
from pgjobs.arguments.privacy import ANY_NAME, MASK, POSITIONALS, masked
from pgjobs.arguments.signature import Signature

CANARY = "canary-77b0"


class Kind(Enum):
    GOOD = "good"


def login(
    user: str,
    password: Annotated[str, Private],
    level: Annotated[Literal["low", "high"], Private] = "low",
    tags: Annotated[dict[str, int], Private()] | None = None,
    *codes: Annotated[int, Private],
    kind: Annotated[Kind, Private] = Kind.GOOD,
) -> None: ...


def plain(user: str, password: str = CANARY, count: Literal[1, 2] = 1) -> None: ...


def unevaluated(user: Missing, name: str, password: Annotated[str, Private]) -> None: ...  # type: ignore[name-defined]  # noqa: F821


def anything(**fields: Annotated[str, Private]) -> None: ...


def test_parameters_are_private_by_annotation_or_by_name() -> None:
    assert Signature(login, "t").private == {"password", "level", "tags", POSITIONALS, "kind"}
    assert Signature(plain, "t").private == frozenset()
    assert Signature(plain, "t", private=("password",)).private == {"password"}
    assert Signature(anything, "t").private == {ANY_NAME}
    with pytest.warns(RuntimeWarning, match="annotation of user cannot be evaluated"):
        assert Signature(unevaluated, "t").private == {"user", "password"}


@pytest.mark.parametrize("names", [("pasword",), "pasword"])
def test_name_that_is_no_parameter_is_refused(names: Any) -> None:
    with pytest.raises(OptionError, match="'pasword', which is no parameter of plain"):
        Signature(plain, "t", private=names)


@pytest.mark.parametrize(
    "arguments",
    [
        {"password": [CANARY]},
        {"password": {CANARY: 1}},
        {"password": "p", "level": CANARY},
        {"password": "p", "tags": {CANARY: CANARY}},
        {"password": "p", "kind": CANARY},
    ],
)
def test_message_about_a_private_argument_names_it_and_does_not_quote_it(arguments: dict[str, Any]) -> None:
    signature = Signature(login, "t")
    for refuse in (signature.bind, lambda _, named: signature.unbind(named)):
        with pytest.raises(ArgumentsError, match=f"{list(arguments)[-1]} does not fit") as caught:
            refuse((), {"user": "ann", **arguments})
        assert CANARY not in str(caught.value)


def test_message_about_an_open_argument_stays_as_helpful_as_it_was() -> None:
    with pytest.raises(ArgumentsError, match=r"Expected `str`, got `int` - at `\$\.user`"):
        Signature(login, "t").bind((1, CANARY), {})
    with pytest.raises(ArgumentsError, match=r"Invalid enum value 3"):
        Signature(plain, "t", private=["password"]).bind(("ann", "p", 3), {})


def test_default_of_a_private_parameter_is_in_no_message() -> None:
    with pytest.raises(ArgumentsError, match="its signature is ") as caught:
        Signature(plain, "t", private=["password"]).bind((), {})
    assert CANARY not in str(caught.value)
    assert MASK in str(caught.value)


@pytest.mark.parametrize("value", [{CANARY: object()}, {CANARY: float("nan")}, {CANARY: "\ud800"}])
def test_what_cannot_be_stored_is_refused_without_the_keys_inside(value: Any) -> None:
    def send(payload: Annotated[Any, Private]) -> None: ...

    with pytest.raises((EncodingError, ArgumentsError)) as caught:
        signature = Signature(send, "t")
        signature.encode(signature.bind((value,), {}))
    assert CANARY not in f"{caught.value} {getattr(caught.value, 'path', '')}"
    assert "payload" in str(caught.value)


def test_call_of_enqueue_many_that_is_no_tuple_is_not_quoted() -> None:
    task = PgJobs("postgresql://127.0.0.1:1/none").task(plain)
    with pytest.raises(ArgumentsError, match="a str is neither a tuple nor a dict") as caught:
        call = task.using()
        list(call._drafts([CANARY], call._draft))  # type: ignore[list-item]
    assert CANARY not in str(caught.value)


def test_masked_arguments_keep_what_is_open() -> None:
    args = {"user": "ann", "password": CANARY, POSITIONALS: [CANARY]}
    assert masked(args, {"password"}) == {"user": "ann", "password": MASK, POSITIONALS: MASK}
    assert masked(args, {ANY_NAME}) == dict.fromkeys(args, MASK)
    assert masked(args, ()) == args


def test_rows_say_which_arguments_are_private_and_others_say_nothing() -> None:
    jobs = PgJobs("postgresql://127.0.0.1:1/none")
    assert jobs.task(login)._template.options == ('{"private":["*","kind","level","password","tags"]}')
    assert jobs.call(login)._template.options == ('{"private":["*","kind","level","password","tags"]}')
    assert jobs.task(plain)._template.options is None
    assert jobs.task(private=["user"], name="other")(plain).using(priority=1)._template.options == (
        '{"private":["user"]}'
    )


def test_mark_is_found_in_every_style_of_annotation() -> None:
    def old(
        a: Optional[Annotated[str, Private]] = None,  # noqa: UP045
        b: list[Annotated[str, Private]] | None = None,
        c: dict[str, list[Annotated[str, Private] | None]] | None = None,
    ) -> None: ...

    assert Signature(old, "t").private == {"a", "b", "c"}
