"""The views on a terminal, with Textual."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

import psycopg
from rich.terminal_theme import TerminalTheme
from rich.text import Text
from textual.app import App
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import DataTable, Input, Static

from pgjobs import statements
from pgjobs.connections.database import is_away
from pgjobs.errors import PgJobsError
from pgjobs.insight.bars import cells
from pgjobs.insight.overview import WorkerLine
from pgjobs.top.dialogs import Confirm, Pages
from pgjobs.top.view import Action, Column, Section, View, fitted, matching, ordered
from pgjobs.top.views import STATE_STYLES, VIEWS
from pgjobs.wording import about, plural

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.events import Key, Resize
    from textual.timer import Timer

    from pgjobs.app import PgJobs
    from pgjobs.statements import Mark, Pace, Steps

PATIENCE_S: Final = 5.0
"""A database that has not answered by then counts as away; the next look asks again."""

LEAVING_S: Final = 0.5
KEPT_S: Final = 4.0
PARTS: Final = ("cyan", "yellow", "blue", "magenta")
INTERVALS_S: Final = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
LEAST: Final = 12

STYLE: Final = """
Main { background: $background; }
#head, #tabs, #keys, #message { height: 1; padding: 0 1; text-wrap: nowrap; text-overflow: ellipsis; }
#head { background: $surface; }
#tabs { margin: 1 0 1 0; }
#message { color: $text-muted; }
#filter { height: 1; border: none; padding: 0 1; background: $surface; display: none; }
#filter:focus { border: none; }
#keys { background: $surface; color: $text-muted; }
DataTable { height: 1fr; background: $background; scrollbar-size-vertical: 1; }
DataTable:focus { background-tint: $foreground 0%; }
DataTable > .datatable--header { background: $background; color: $text-muted; text-style: none; }
DataTable > .datatable--cursor { background: $primary 30%; text-style: none; }
DataTable > .datatable--hover { background: $background; }
Confirm, Pages { align: center middle; background: $background 60%; }
#question { width: 64; max-width: 90%; height: auto; padding: 1 2; background: $surface; border: round $warning; }
#question .keys { margin-top: 1; }
#pages { width: 90%; max-width: 120; height: 85%; padding: 0 2; background: $surface; border: round $primary; }
#pages .heading { margin-top: 1; color: $text-muted; }
"""

PALETTE: Final = TerminalTheme(
    (24, 26, 31),
    (200, 204, 212),
    [(24, 26, 31), (224, 108, 117), (152, 195, 121), (229, 192, 123),
     (97, 146, 215), (180, 124, 205), (86, 182, 194), (200, 204, 212)],
    [(92, 99, 112), (224, 108, 117), (152, 195, 121), (229, 192, 123),
     (97, 146, 215), (180, 124, 205), (86, 182, 194), (255, 255, 255)],
)  # fmt: skip
"""What the names of colours mean here: muted, and each as it is in the bars of pgjobs info."""

GENERAL_KEYS: Final = (
    ("1 … 9, tab", "another view"),
    ("↑ ↓ PgUp PgDn", "another row"),
    ("enter", "details of the row"),
    ("/", "filter: rows that have all of some words; esc clears it"),
    ("s, S", "sort by the next column; the other way round"),
    ("+, -", "look less often, more often"),
    ("F5", "look now"),
    ("?", "this help"),
    ("q, ctrl+c", "quit"),
)


class Top(App[None]):
    """The application: one main screen, and dialogs over it."""

    TITLE = "pgjobs top"
    CSS: ClassVar[str] = STYLE
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [Binding("ctrl+c", "quit", "quit", priority=True, show=False)]

    def __init__(self, jobs: PgJobs, refresh_s: float, view: str) -> None:
        super().__init__()
        self.ansi_theme_dark = PALETTE
        self.jobs = jobs
        self._refresh_s = refresh_s
        self._first = view

    def get_default_screen(self) -> Screen[Any]:
        return Main(self.jobs, self._refresh_s, [view.title for view in VIEWS].index(self._first))

    async def action_quit(self) -> None:
        """Ends it, once what is being read has come: psycopg warns of a query that is cut off."""
        main = self.screen_stack[0]
        deadline = time.monotonic() + LEAVING_S
        while isinstance(main, Main) and main.is_loading and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        self.exit()

    async def on_unmount(self) -> None:
        """Closes the pool while its loop runs."""
        await self.jobs.database.aclose()


class Rows(DataTable[Any]):
    """The table."""


class Main(Screen[None]):
    """The rows of one view, read again and again."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "app.quit", "quit"),
        Binding("question_mark", "help", "help"),
        Binding("slash", "filter", "filter"),
        Binding("escape", "clear", "clear", show=False),
        Binding("s", "sort", "sort"),
        Binding("S", "reverse", "reverse"),
        Binding("tab", "step(1)", "next view", show=False),
        Binding("shift+tab", "step(-1)", "previous view", show=False),
        Binding("plus,equals_sign", "pace(1)", "slower", show=False),
        Binding("minus", "pace(-1)", "faster", show=False),
        Binding("f5", "look", "look now", show=False),
    ]

    def __init__(self, jobs: PgJobs, refresh_s: float, index: int) -> None:
        super().__init__(id="_default")
        self._jobs = jobs
        self._refresh_s = refresh_s
        self._index = index
        self._rows: list[Any] = []
        self._shown: list[Any] = []
        self._columns: list[Column[Any]] = []
        self._words = ""
        self._sorting = {view.title: view.sorted_by for view in VIEWS}
        self._read_at: float | None = None
        self.is_loading = False
        self._timer: Timer | None = None
        self._kept_until = 0.0

    def compose(self) -> ComposeResult:
        yield Static(id="head")
        yield Static(id="tabs")
        yield Rows(cursor_type="row", cursor_foreground_priority="renderable")
        yield Static(id="message")
        yield Input(placeholder="words that a row must have", id="filter")
        yield Static(id="keys")

    def on_mount(self) -> None:
        """Begins to look."""
        self._timer = self.set_interval(self._refresh_s, self._look)
        self.query_one("#head", Static).update(Text(self._jobs.database.where))
        self._open(self._index)

    def on_resize(self, event: Resize) -> None:
        """Fits the columns."""
        self._draw()

    @property
    def _top(self) -> Top:
        return cast("Top", self.app)  # pyright: ignore[reportUnknownMemberType] - a screen knows not whose it is

    @property
    def view(self) -> View[Any]:
        """What is shown."""
        return VIEWS[self._index]

    # -- reading

    def _open(self, index: int) -> None:
        self._index = index
        self._rows, self._shown, self._read_at = [], [], None
        self._draw()
        self._say("reading …")
        self._look()

    def _look(self, *, now: bool = False) -> None:
        """Reads again, unless that is under way, or the view asks for some rest."""
        is_due = self._read_at is None or now or time.monotonic() - self._read_at >= self.view.every_s
        if is_due and not self.is_loading:
            self.is_loading = True
            self.run_worker(self._load(), group="load")

    async def _load(self) -> None:
        view = self.view
        try:
            async with asyncio.timeout(PATIENCE_S):
                rows = await self._jobs.database.alook(view.read(self._jobs))
                head = await self._jobs.database.alook(_heading())
        except Exception as error:
            self._say(_trouble(error), "red")
            return
        finally:
            self.is_loading = False
        if not self.query("#head"):
            return  # it was closed meanwhile
        if view is not self.view:
            self._look()
            return
        self._rows, self._read_at = rows, time.monotonic()
        where = Text().append(self._jobs.database.where, "dim").append("  ·  ")
        self.query_one("#head", Static).update(where.append_text(head))
        self._draw()
        if time.monotonic() >= self._kept_until:
            self._say()

    # -- drawing

    def _draw(self) -> None:
        """Draws the rows; the cursor stays on its row, wherever that is now."""
        view, table = self.view, self.query_one(Rows)
        under = self._row()
        by, down = self._sorting[view.title]
        self._shown = ordered(view, matching(view, self._rows, self._words), by, down=down)
        room = self._top.size.width - 1
        self._columns = fitted(view.columns, room, LEAST)
        free = room - 2 - sum(column.width + 2 for column in self._columns if column.width is not None)
        scroll_y = table.scroll_y
        with self._top.batch_update():
            table.clear(columns=True)
            for column in self._columns:
                width = max(1, free) if column.width is None else column.width
                table.add_column(self._title(column, view.columns[by], down=down), width=width, key=column.title)
            drawn = [_cells(column, self._shown) for column in self._columns]
            for index, row in enumerate(self._shown):
                table.add_row(*(texts[index] for texts in drawn), key=view.key(row))
            keys = [view.key(row) for row in self._shown]
            if under is not None and (old := view.key(under)) in keys:
                table.move_cursor(row=keys.index(old), animate=False)
            table.scroll_to(y=scroll_y, animate=False)
        self.query_one("#tabs", Static).update(self._tabs())
        self.query_one("#keys", Static).update(self._keys())

    @staticmethod
    def _title(column: Column[Any], by: Column[Any], *, down: bool) -> Text:
        title = column.title + (" ▾" if down else " ▴") if column is by else column.title
        return Text(title, justify="right" if column.right else "left", no_wrap=True)

    def _tabs(self) -> Text:
        text = Text(no_wrap=True, overflow="ellipsis")
        for number, view in enumerate(VIEWS):
            style = "bold reverse" if number == self._index else ""
            text.append(f" {number + 1} {view.title} ", style).append(" ")
        return text

    def _keys(self) -> Text:
        text = Text(no_wrap=True, overflow="ellipsis")
        own = [(action.key, action.verb) for action in self.view.actions]
        if self.view.detail is not None:
            own.append(("⏎", "details"))
        for key, verb in (*own, ("/", "filter"), ("s", "sort"), ("?", "help"), ("q", "quit")):
            text.append(key, "bold yellow").append(f" {verb}   ")
        return text

    def _keep(self, text: str, style: str = "") -> None:
        """Says what came of somebody's key, long enough to be read."""
        self._say(text, style)
        self._kept_until = time.monotonic() + KEPT_S

    def _say(self, text: str | None = None, style: str = "") -> None:
        """Says something below the table; what the rows are where there is nothing else."""
        if text is None:
            by, down = self._sorting[self.view.title]
            order = f"by {self.view.columns[by].title or 'backlog'}{', downwards' if down else ''}"
            words = f"  ·  filter: {self._words}" if self._words else ""
            rows = f"{plural(len(self._shown), 'row')} {order}" if self._rows else self.view.empty
            text = f"{rows}{words}  ·  every {self._refresh_s:g} s"
        for line in self.query("#message").results(Static):  # none is left where it is closed meanwhile
            line.update(Text(text, style, no_wrap=True, overflow="ellipsis"))

    # -- keys

    def on_key(self, event: Key) -> None:
        """Another view, or an action of this one."""
        if event.character and event.character.isdigit() and 0 < int(event.character) <= len(VIEWS):
            event.stop()
            self._open(int(event.character) - 1)
            return
        for action in self.view.actions:
            if event.key == action.key:
                event.stop()
                self._ask(action)

    def action_step(self, by: int) -> None:
        """Shows the next view, or the one before."""
        self._open((self._index + by) % len(VIEWS))

    def action_look(self) -> None:
        """Reads again, now."""
        self._look(now=True)

    def action_pace(self, by: int) -> None:
        """Looks less often, or more often."""
        nearest = min(range(len(INTERVALS_S)), key=lambda index: abs(INTERVALS_S[index] - self._refresh_s))
        self._refresh_s = INTERVALS_S[max(0, min(len(INTERVALS_S) - 1, nearest + by))]
        if self._timer is not None:
            self._timer.stop()
        self._timer = self.set_interval(self._refresh_s, self._look)
        self._say()

    def action_sort(self) -> None:
        """Sorts by the next column that is shown."""
        by, _ = self._sorting[self.view.title]
        places = [self.view.columns.index(column) for column in self._columns]
        after = [place for place in places if place > by]
        chosen = after[0] if after else places[0]
        self._sorting[self.view.title] = chosen, self.view.columns[chosen].right
        self._draw()
        self._say()

    def action_reverse(self) -> None:
        """Sorts the other way round."""
        by, down = self._sorting[self.view.title]
        self._sorting[self.view.title] = by, not down
        self._draw()
        self._say()

    def action_filter(self) -> None:
        """Asks for the words of a filter."""
        box = self.query_one("#filter", Input)
        box.display = True
        self.query_one("#keys").display = False
        box.focus()

    def action_clear(self) -> None:
        """Shows all rows again."""
        self.query_one("#filter", Input).value = ""
        self._words = ""
        self._leave_filter()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filters while it is typed."""
        self._words = event.value
        self._draw()
        self._say()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Keeps the filter."""
        self._leave_filter()

    def _leave_filter(self) -> None:
        self.query_one("#filter", Input).display = False
        self.query_one("#keys").display = True
        self.query_one(Rows).focus()
        self._draw()
        self._say()

    def action_help(self) -> None:
        """Shows the keys."""
        own = [(action.key, action.verb) for view in VIEWS for action in view.actions if view is self.view]
        sections: list[Section] = [("everywhere", _keys_of(GENERAL_KEYS))]
        if own:
            sections.insert(0, (f"in {self.view.title}", _keys_of(own)))
        sections.append(("jobs", "The latest 300, and those that run. For others: pgjobs jobs list --status failed"))
        self._top.push_screen(Pages("help", sections))

    # -- rows

    def _row(self) -> Any:
        place = self.query_one(Rows).cursor_row
        return self._shown[place] if 0 <= place < len(self._shown) else None

    def on_data_table_row_selected(self, event: Rows.RowSelected) -> None:
        """Shows the details of a row."""
        row, detail = self._row(), self.view.detail
        if row is not None and detail is not None:
            self.run_worker(self._detail(self.view.title, detail(self._jobs, row)))

    async def _detail(self, title: str, steps: Steps[list[Section]]) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                sections = await self._jobs.database.alook(steps)
        except Exception as error:
            self._say(_trouble(error), "red")
            return
        self._top.push_screen(Pages(title, sections))

    def _ask(self, action: Action[Any]) -> None:
        row = self._row()
        if row is None:
            return
        question = action.ask(row)
        if question is None:
            self._keep(f"this one allows no {action.verb}", "yellow")
            return

        def answered(answer: bool | None) -> None:
            if answer:
                self.run_worker(self._do(action, row))
            else:
                self._keep("nothing was done")

        self._top.push_screen(Confirm(question), answered)

    async def _do(self, action: Action[Any], row: Any) -> None:
        self._say(f"{action.verb} …")
        try:
            said = await action.do(self._jobs, row)
        except Exception as error:
            self._say(_trouble(error), "red")
            return
        self._keep(said, "green")
        self._look(now=True)


def _heading() -> Steps[Text]:
    """Reads what stands at the top of every view: workers, the last hour, the last mark."""
    rows: Any = yield statements.workers()
    paces: list[Pace] = yield statements.pace()
    mark: Mark | None = yield statements.last_mark()
    states = Counter(WorkerLine(*row).state for row in rows)
    text = Text().append(plural(len(rows), "worker"))
    for state, style in STATE_STYLES.items():
        if states[state]:
            text.append(", ").append(f"{states[state]:,} {state}", style)
    hour = {status: sum(pace.hour for pace in paces if pace.status == status) for status in ("succeeded", "failed")}
    text.append("  ·  last hour: ").append(f"{hour['succeeded']:,} succeeded")
    if hour["failed"]:
        text.append(", ").append(f"{hour['failed']:,} failed", "red")
    if mark is not None:
        since_s = time.time() - mark.at.timestamp()
        text.append("  ·  ").append(mark.text, "bold").append(f", {about(since_s)} ago")
    return text


def _cells(column: Column[Any], rows: Sequence[Any]) -> list[Text]:
    """A column as text, bars to the scale of the longest."""
    if column.parts is not None:
        counts = [column.parts(row) for row in rows]
        longest = max((sum(each) for each in counts), default=0)
        return [_bar(each, longest, column.width or LEAST) for each in counts]
    texts: list[Text] = []
    for row in rows:
        shown = column.show(row)
        text = Text(shown) if isinstance(shown, str) else shown
        text.justify, text.no_wrap, text.overflow = "right" if column.right else "left", True, "ellipsis"
        texts.append(text)
    return texts


def _bar(counts: Sequence[int], longest: int, width: int) -> Text:
    bar = Text(no_wrap=True)
    for share, style in zip(cells(counts, longest, width), PARTS, strict=True):
        bar.append("▇" * share, style)
    return bar


def _keys_of(keys: Sequence[tuple[str, str]]) -> Text:
    text = Text()
    for key, verb in keys:
        text.append(f"{key:16}", "bold yellow").append(f"{verb}\n")
    text.rstrip()
    return text


def _trouble(error: Exception) -> str:
    """What is said of an error; one that is a fault of ours is raised again.

    Raises:
        Exception: it is neither the database's nor one that says its remedy.
    """
    said = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if isinstance(error, TimeoutError | psycopg.OperationalError) or is_away(error):
        return f"the database is out of reach, trying again: {said}"
    if isinstance(error, PgJobsError | psycopg.Error):
        return said
    raise error
