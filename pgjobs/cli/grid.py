"""Tables and lines for terminals of any width: columns are dropped in an order, and nothing ever wraps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from rich.text import Text

from pgjobs.insight.bars import cells
from pgjobs.wording import one_line

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

GAP: Final = 2
LEAST_NAME: Final = 8
LEAST_BAR: Final = 6
GOOD_BAR: Final = 20
LONGEST_BAR: Final = 40
SOLID: Final = "▇"
SHADES: Final = "█▓▒░"
ASCII: Final = "#=-."


@dataclass(frozen=True)
class Column:
    """A column of texts. The one of the highest rank is dropped first; the first column has rank 0, and is cut."""

    title: str
    texts: Sequence[Text]
    rank: int
    right: bool = True

    def __post_init__(self) -> None:
        for text in self.texts:
            text.plain = one_line(text.plain)

    @property
    def width(self) -> int:
        """How many cells its widest text has."""
        return max(len(self.title), *(text.cell_len for text in self.texts), 0)


@dataclass(frozen=True)
class Bars:
    """A column of bars of several parts: counts by row, and a style for each part."""

    rows: Sequence[Sequence[int]]
    styles: Sequence[str]

    def draw(self, width: int, glyphs: str) -> list[Text]:
        """The bars, the longest of them so wide."""
        longest = max((sum(row) for row in self.rows), default=0)
        drawn: list[Text] = []
        for row in self.rows:
            bar = Text()
            for count, glyph, style in zip(cells(row, longest, width), glyphs, self.styles, strict=True):
                bar.append(glyph * count, style)
            drawn.append(bar)
        return drawn


@dataclass(frozen=True)
class Grid:
    """Columns beside each other, as many as there is room for, and the bars in the rest, after the first column."""

    columns: Sequence[Column]
    bars: Bars | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        room = options.max_width
        least = max(LEAST_BAR, min(GOOD_BAR, room // 8))
        bar = least + GAP if self.bars else 0
        first, *others = self._fitted(room - bar)
        spare = room - bar - _wide([first, *others])
        wanted = self.columns[0]
        first = _cut(wanted, first.width + max(0, spare - (GOOD_BAR - least if self.bars else 0)))
        if self.bars is not None:
            rest = room - _wide([first, *others]) - GAP
            bars = self.bars.draw(min(LONGEST_BAR, rest), glyphs(console))
            others = [Column("", bars, 1, right=False), *others]
        columns = [first, *others]
        yield _line([(Text(column.title, "dim"), column) for column in columns])
        for index in range(len(first.texts)):
            yield _line([(column.texts[index], column) for column in columns])

    def _fitted(self, room: int) -> list[Column]:
        """The columns that there is room for; the first one may have a quarter of it."""
        first, *others = self.columns
        kept = [_cut(first, max(LEAST_NAME, room // 4)), *others]
        while _wide(kept) > room and (last := max(kept, key=lambda column: column.rank)).rank > 0:
            kept.remove(last)
        return kept


def _wide(columns: Sequence[Column]) -> int:
    return sum(column.width for column in columns) + GAP * (len(columns) - 1)


def _cut(column: Column, width: int) -> Column:
    """A column that is so wide at most, its texts cut."""
    if column.width <= width:
        return column
    texts = [text.copy() for text in column.texts]
    for text in texts:
        text.truncate(width, overflow="ellipsis")
    return Column(column.title[:width], texts, column.rank, column.right)


def _line(texts: Sequence[tuple[Text, Column]]) -> Text:
    line = Text(no_wrap=True, overflow="crop")
    for index, (text, column) in enumerate(texts):
        pad = column.width - text.cell_len
        line.append(" " * (GAP if index else 0) + " " * (pad if column.right else 0))
        line.append_text(text)
        if not column.right and index < len(texts) - 1:
            line.append(" " * pad)
    line.rstrip()
    return line


@dataclass(frozen=True)
class Flow:
    """Short texts one after the other, each with what stands before it on its line; lines break between them alone."""

    parts: list[tuple[str, Text]] = field(default_factory=list[tuple[str, Text]])

    def add(self, before: str, texts: Iterable[Text | str]) -> None:
        """Adds texts with commas between, the first of them after another separator."""
        for text in texts:
            part = Text(text) if isinstance(text, str) else text
            part.plain = one_line(part.plain)
            self.parts.append((before, part))
            before = ", "

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        line = Text(no_wrap=True, overflow="ellipsis")
        for before, text in self.parts:
            if line and line.cell_len + len(before) + text.cell_len >= options.max_width:  # a comma may follow
                line.append(before.rstrip(" ·"))
                yield line
                line = Text(no_wrap=True, overflow="ellipsis")
            line.append(before if line else "", "dim")
            line.append_text(text)
        yield line


def glyphs(console: Console) -> str:
    """What the parts of a bar are drawn with: shades where no colours tell them apart."""
    if not console.encoding.lower().startswith("utf"):
        return ASCII
    return SHADES if console.no_color or console.color_system is None else SOLID * len(SHADES)
