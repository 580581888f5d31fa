"""JSON as rows hold it, for those who read them: SQL may write deeper and longer than Python can follow.

What cannot be read is Unreadable, so that one such row keeps nobody from seeing the others.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, TypeAlias, cast

import psycopg
from psycopg.types.json import JsonbBinaryLoader, JsonbLoader

from pgjobs.arguments import codec
from pgjobs.arguments.codec import Json, Unreadable

DEEPEST: Final = 200
"""Levels beyond which nothing is shown: what shows it recurses too, with several calls a level."""

Context: TypeAlias = (
    psycopg.Connection[Any] | psycopg.AsyncConnection[Any] | psycopg.Cursor[Any] | psycopg.AsyncCursor[Any]
)


def loads(data: bytes | bytearray | memoryview | str) -> Json:
    """Reads a document; Unreadable stands for one that is too deep, or has too long a number."""
    text = data if isinstance(data, str) else bytes(data)
    value = codec.loads(text)
    opened = text.count("[") + text.count("{") if isinstance(text, str) else text.count(b"[") + text.count(b"{")
    if opened > DEEPEST and _is_deep(value):
        return Unreadable(unreadable=f"nested over {DEEPEST} deep")
    return value


def _is_deep(value: Json) -> bool:
    level: list[Json] = [value]
    for _ in range(DEEPEST):
        level = [inner for item in level for inner in _inner(item) if isinstance(inner, dict | list)]
        if not level:
            return False
    return True


def _inner(item: Json) -> Iterable[Json]:
    if isinstance(item, dict):
        return cast("dict[str, Json]", item).values()
    items: list[Json] = item if isinstance(item, list) else []  # pyright: ignore[reportUnknownVariableType]
    return items


class _Text(JsonbLoader):
    _loads = staticmethod(loads)


class _Binary(JsonbBinaryLoader):
    _loads = staticmethod(loads)


def register(context: Context) -> None:
    """Lets a connection or a cursor read documents so."""
    context.adapters.register_loader("jsonb", _Text)
    context.adapters.register_loader("jsonb", _Binary)
