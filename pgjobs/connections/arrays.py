"""Arrays as PostgreSQL's binary protocol has them, made in one piece: psycopg dumps a list element by element.

For a batch of completions that took more of the interpreter than running the jobs.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg.adapt import Dumper
from psycopg.pq import Format

_UUID, _TEXT, _FLOAT8 = 2950, 25, 701
_HEADER: Final = struct.Struct(">iiIii")
_DOUBLE: Final = struct.Struct(">d")
_LENGTH: Final = struct.Struct(">i")
_SIXTEEN: Final = _LENGTH.pack(16)
_EIGHT: Final = _LENGTH.pack(8)
_NULL: Final = _LENGTH.pack(-1)


class _Array:
    """A dumped array; the subclass says of what."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


class Uuids(_Array):
    """uuid[]"""


class Texts(_Array):
    """text[]"""


class Floats(_Array):
    """float8[]"""


def uuids(values: Sequence[UUID]) -> Uuids:
    """Dumps ids."""
    return Uuids(_SIXTEEN.join([_header(_UUID, len(values)), *[value.bytes for value in values]]))


def floats(values: Sequence[float]) -> Floats:
    """Dumps numbers."""
    return Floats(_EIGHT.join([_header(_FLOAT8, len(values)), *map(_DOUBLE.pack, values)]))


def texts(values: Sequence[str | None]) -> Texts:
    """Dumps texts, None as NULL."""
    return Texts(b"".join([_header(_TEXT, len(values)), *_texts(values)]))


def _texts(values: Iterable[str | None]) -> Iterable[bytes]:
    for value in values:
        if value is None:
            yield _NULL
        else:
            data = value.encode()
            yield _LENGTH.pack(len(data))
            yield data


def _header(oid: int, count: int) -> bytes:
    """Dimensions, whether there may be NULLs, the element's type, the length and the lower bound."""
    return _HEADER.pack(1, 1, oid, count, 1)


class _Dumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: Any) -> bytes:
        data: bytes = obj.data
        return data


class _UuidsDumper(_Dumper):
    oid = 2951


class _TextsDumper(_Dumper):
    oid = 1009


class _FloatsDumper(_Dumper):
    oid = 1022


def register(conn: psycopg.Connection[Any]) -> None:
    """Lets a connection take these arrays."""
    for kind, dumper in ((Uuids, _UuidsDumper), (Texts, _TextsDumper), (Floats, _FloatsDumper)):
        conn.adapters.register_dumper(kind, dumper)
