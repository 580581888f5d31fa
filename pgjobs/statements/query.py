"""A named text of ``pgjobs/sql``, and a statement: that text with its parameters and what reads its rows."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Generic, LiteralString, NamedTuple, TypeAlias, TypeVar

from pgjobs.errors import OptionError

T = TypeVar("T")
Row: TypeAlias = tuple[Any, ...]
Rows: TypeAlias = Sequence[Row]


class Query:
    """A named text of ``pgjobs/sql``, with psycopg's named parameters, for any schema."""

    __slots__ = ("_text", "name")

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self._text = text

    def __repr__(self) -> str:
        return f"<Query {self.name}>"

    @lru_cache(maxsize=512)  # noqa: B019 - queries live as long as the program
    def text(self, schema: str) -> LiteralString:
        """The text with ``%(name)s`` parameters, for psycopg and psycopg2."""
        own: Any = self._text if schema == "pgjobs" else _TOKEN.sub(f"{schema}.", self._text)
        text: LiteralString = own  # schema is a checked name, and the rest is ours
        return text

    def where(self, condition: str | None) -> Query:
        """The query with a condition of the caller's, at the place that it has for one.

        Raises:
            OptionError: it holds a semicolon, so it is more than a condition.
        """
        if condition is None:
            return self
        if ";" in condition:
            raise OptionError(
                "the condition has a semicolon; write one SQL expression, such as args->>'user_id' = '42'"
            )
        return Query(self.name, self._text.replace(_PLACE, "({}\n)".format(condition.replace("%", "%%"))))

    def alike(self, fingerprint: str | None) -> Query:
        """The query for jobs that have failed so alone, where a fingerprint is given, at its place for that."""
        if fingerprint is None:
            return self
        return Query(self.name, self._text.replace(_ALIKE, QUERIES["alike"]._text))

    @lru_cache(maxsize=512)  # noqa: B019
    def numbered(self, schema: str) -> tuple[str, tuple[str, ...]]:
        """The text with ``$1`` parameters, for the protocol and asyncpg, and the parameters' names in that order."""
        names: list[str] = []

        def number(match: re.Match[str]) -> str:
            if match[1] not in names:
                names.append(match[1])
            return f"${names.index(match[1]) + 1}"

        return _PARAMETER.sub(number, self.text(schema)).replace("%%", "%"), tuple(names)


_PLACE: Final = "true /* where */"
_ALIKE: Final = "true /* alike */"
_LEAPS: Final = "SELECT queue, priority FROM pgjobs.lanes /* leaps */"
_NAME: Final = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)
_SHOWN: Final = re.compile(r"pgjobs\.shown\((\w+)\)")
_FIRST, _LAST = "timestamptz '0001-01-02 00:00+00'", "timestamptz '9999-12-30 00:00+00'"
_TOKEN: Final = re.compile(r"\bpgjobs\.")
_PARAMETER: Final = re.compile(r"%\((\w+)\)s")


@dataclass(frozen=True, slots=True)
class Statement(Generic[T]):
    """A query with its parameters and the function that reads its rows."""

    query: Query
    params: Mapping[str, Any]
    read: Callable[[Rows], T]
    keeps_plan: bool = False
    """Whether one plan may serve for any values. Of others one made while the table was empty scans it when it is huge;
    tests/test_budgets.py has the proof for these."""


class Rest(NamedTuple):
    """A rest between two statements."""

    seconds: float


Steps: TypeAlias = Generator["Statement[Any] | Rest", Any, T]
"""Statements that depend on each other: each is yielded, and what it returned is sent back."""


def _load() -> Iterator[tuple[str, Query]]:
    texts = dict(_read())
    for name, text in texts.items():
        yield name, Query(name, _SHOWN.sub(_as_shown, text.replace(_LEAPS, texts["leaps"])))


def _as_shown(call: re.Match[str]) -> str:
    """The body of ``pgjobs.shown``: to put it in takes the planner six times as long as the rest of a job's query."""
    return f"CASE WHEN {call[1]} > {_LAST} THEN {_LAST} WHEN {call[1]} < {_FIRST} THEN {_FIRST} ELSE {call[1]} END"


def _read() -> Iterator[tuple[str, str]]:
    for file in sorted(Path(__file__).parents[1].joinpath("sql").glob("*.sql")):
        _, *parts = _NAME.split(file.read_text(encoding="utf-8"))
        for name, text in zip(parts[::2], parts[1::2], strict=True):
            yield name, _without_comments(text)


def _without_comments(text: str) -> str:
    return "\n".join(line for line in text.strip().splitlines() if not line.startswith("--"))


QUERIES: Final[Mapping[str, Query]] = dict(_load())


def rows(rows: Rows) -> Rows:
    return rows


def nothing(rows: Rows) -> None:
    return None


def scalar(rows: Rows) -> Any:
    return rows[0][0] if rows else None


def column(rows: Rows) -> list[Any]:
    return [row[0] for row in rows]


def is_true(rows: Rows) -> bool:
    return bool(rows and rows[0][0])
