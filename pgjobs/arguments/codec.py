"""JSON, checked as PostgreSQL's jsonb will check it, so that nothing is refused after it was accepted."""

from __future__ import annotations

import inspect
import json
import json.encoder
import math
from collections.abc import Callable, Iterable
from typing import Any, Final, cast

import msgspec

from pgjobs.config import MAX_DOCUMENT_BYTES, MAX_DOCUMENT_DEPTH
from pgjobs.errors import EncodingError, OptionError
from pgjobs.wording import given

Json = Any
"""A value that JSON can hold: None, bool, int, float, str, and lists and string-keyed dicts of them."""


def _refuse(value: object) -> Json:
    raise TypeError(f"{type(value).__name__} is not JSON")


def _make_encoder() -> Callable[[Json], str]:
    """Builds the C encoder once: building it for every call, as json.dumps does here, takes longer than the call."""
    make = cast(
        "Callable[..., Callable[[Json, int], Iterable[str]]] | None", getattr(json.encoder, "c_make_encoder", None)
    )
    if make is None:
        return json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode
    # markers, default, encoder, indent, key separator, item separator, sort keys, skip keys, allow NaN
    encode = make(None, _refuse, json.encoder.encode_basestring, None, ":", ",", False, False, False)
    return lambda value: "".join(encode(value, 0))


_encode: Final = _make_encoder()


class Unreadable(dict[str, str]):
    """Stands for a document that PostgreSQL holds and Python cannot: SQL may write deeper and larger than ``dumps``.

    One such row must not fail the batch that it was read with.
    """


def loads(data: bytes | str) -> Json:
    """Reads what PostgreSQL has stored as JSON; Unreadable stands for what is too deep, or has too long a number."""
    try:
        value: Json = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError):  # a number that no float holds
        try:
            value = json.loads(data)
        except (ValueError, RecursionError) as error:
            return Unreadable(unreadable=str(error))
    return value


def dumps(value: Json, *, what: str = "value", limit: int | None = MAX_DOCUMENT_BYTES) -> str:
    """Returns the value as JSON text that jsonb accepts.

    Args:
        what: how an error names the value: ``arguments``, ``result``.
        limit: bytes; None for any number.

    Raises:
        EncodingError: not JSON, NaN or infinite, a NUL or lone surrogate in a text, nested over 64 deep, or over 1 MB.
    """
    try:
        text = _encode(value)
        size = len(text) if text.isascii() else len(text.encode())
    except (TypeError, ValueError, RecursionError, UnicodeEncodeError) as error:
        raise _explain(value, what) or EncodingError(f"{what} cannot be stored as JSON: {error}") from None
    if limit is not None and size > limit:
        raise EncodingError(f"{what} takes {size:,} bytes, over {limit:,}; store it elsewhere and pass its key")
    suspicious = "\\u0000" in text or text.count("[") + text.count("{") > MAX_DOCUMENT_DEPTH
    if suspicious and (problem := _explain(value, what)):
        raise problem
    return text


def _explain(value: Json, what: str) -> EncodingError | None:
    """Finds what is wrong with a value, by walking it; None where nothing is."""
    stack: list[tuple[Json, str, int]] = [(value, "$", 1)]
    while stack:
        item, path, depth = stack.pop()
        if depth > MAX_DOCUMENT_DEPTH + 1:
            return EncodingError(f"{what} is nested over {MAX_DOCUMENT_DEPTH} deep at {path[:60]}…; flatten it", path)
        if problem := _problem(item, what):
            return EncodingError(f"{what} cannot be stored as JSON: {problem} at {path}", path)
        if isinstance(item, dict):
            members: dict[Any, Json] = item  # pyright: ignore[reportUnknownVariableType]
            for key, inner in members.items():
                if problem := _problem(key, what, key=True):
                    return EncodingError(f"{what} cannot be stored as JSON: {problem} as a key at {path}", path)
                stack.append((inner, f"{path}.{key}", depth + 1))
        elif isinstance(item, list | tuple):
            stack.extend((inner, f"{path}[{i}]", depth + 1) for i, inner in enumerate(cast("list[Any]", item)))
    return None


def text_of(value: object, what: str) -> str:
    """Returns a text that PostgreSQL can hold.

    Raises:
        OptionError: it is none.
    """
    if not isinstance(value, str) or "\0" in value or not is_encodable(value):
        raise OptionError(f"{what} is {given(value)}; give a text without NUL and lone surrogates")
    return value


def is_encodable(text: str) -> bool:
    """Whether a text is free of lone surrogates, which UTF-8 has no bytes for."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _problem(item: Json, what: str, *, key: bool = False) -> str | None:
    if isinstance(item, str):
        if "\0" in item:
            return r"\u0000 in a text, which PostgreSQL cannot hold,"
        if not is_encodable(item):
            return "a lone surrogate in a text"
        return None
    if isinstance(item, float) and not math.isfinite(item):
        return f"{item!r}, which JSON has no word for,"
    if item is None or isinstance(item, bool | int | float) or (not key and isinstance(item, dict | list | tuple)):
        return None
    return f"{type(item).__name__} ({_remedy(item, what)})"


def _remedy(item: Json, what: str) -> str:
    if inspect.isawaitable(item):
        return "await it"
    if "arguments" in what:
        return "convert it, or annotate the parameter with a type that says so, such as dict[str, datetime]"
    if "result" in what:
        return "convert it, or annotate what the function returns with its type, such as a dataclass"
    return "convert it yourself"
