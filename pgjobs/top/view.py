"""What a view is: a title, columns, where its rows come from, and what can be done with one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

if TYPE_CHECKING:
    from rich.text import Text

    from pgjobs.app import PgJobs
    from pgjobs.statements import Steps

R = TypeVar("R")

Section: TypeAlias = tuple[str, "Text | str"]
"""A part of the details: a heading, and what stands under it."""


@dataclass(frozen=True)
class Column(Generic[R]):
    """A column: what it shows of a row, and what it sorts by. Where it is narrow the highest rank is dropped first.

    width is in cells; None for the view's one column that takes what is left.
    """

    title: str
    show: Callable[[R], Text | str]
    sort: Callable[[R], Any]
    rank: int = 0
    width: int | None = None
    right: bool = False
    parts: Callable[[R], Sequence[int]] | None = None
    """Of a bar, that is drawn in the place of what show says."""


@dataclass(frozen=True)
class Action(Generic[R]):
    """What can be done with a row.

    Attributes:
        key: of the keyboard.
        verb: as the help and the footer name it.
        ask: the question before it is done, which names what and how many; None where the row does not allow it.
        do: does it, and returns what was done, as a sentence.
    """

    key: str
    verb: str
    ask: Callable[[R], str | None]
    do: Callable[[PgJobs, R], Awaitable[str]]


@dataclass(frozen=True)
class View(Generic[R]):
    """One of the screens.

    Attributes:
        title: its name, as tabs show it and ``--view`` takes it.
        read: the statements that its rows are read with.
        key: what makes a row the same when it is read again.
        detail: reads more of a row, for the view of one; None where there is no more.
        every_s: it is read this often at most, because it reads much.
        sorted_by: the column that it is sorted by at first, and whether downwards.
    """

    title: str
    columns: Sequence[Column[R]]
    read: Callable[[PgJobs], Steps[list[R]]]
    key: Callable[[R], str]
    actions: Sequence[Action[R]] = ()
    detail: Callable[[PgJobs, R], Steps[list[Section]]] | None = None
    every_s: float = 0.0
    sorted_by: tuple[int, bool] = (0, False)
    empty: str = "nothing"


def fitted(columns: Sequence[Column[R]], room: int, least: int = 12, gap: int = 2) -> list[Column[R]]:
    """The columns that there is room for, those of the highest rank dropped; what has no width takes least at least."""
    kept = list(columns)
    while len(kept) > 1:
        wide = sum((column.width or least) + gap for column in kept)
        last = max(kept, key=lambda column: column.rank)
        if wide <= room or last.rank == 0:
            break
        kept.remove(last)
    return kept


def matching(view: View[R], rows: Sequence[R], words: str) -> list[R]:
    """The rows in which every one of some words stands, in any column."""
    wanted = words.lower().split()
    if not wanted:
        return list(rows)
    texts = [" ".join([view.key(row), *(str(column.show(row)) for column in view.columns)]).lower() for row in rows]
    return [row for row, text in zip(rows, texts, strict=True) if all(word in text for word in wanted)]


def ordered(view: View[R], rows: Sequence[R], by: int, *, down: bool) -> list[R]:
    """The rows in the order of a column; where it has nothing, at the end."""
    sort = view.columns[by].sort
    known = [row for row in rows if sort(row) is not None]
    return sorted(known, key=sort, reverse=down) + [row for row in rows if sort(row) is None]
