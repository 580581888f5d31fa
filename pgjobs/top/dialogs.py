"""What stands over the table for a moment: a question, the details of a row, the help."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from pgjobs.top.view import Section


class Confirm(ModalScreen[bool]):
    """Asks before something is done; only y says yes."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "yes"),
        Binding("n,escape,q", "answer(False)", "no"),
    ]

    def __init__(self, question: str) -> None:
        super().__init__()
        self.question = question

    def compose(self) -> ComposeResult:
        with Vertical(id="question"):
            yield Static(Text(self.question))
            yield Static(Text.assemble(("y", "bold yellow"), " yes    ", ("n", "bold yellow"), " no"), classes="keys")

    def action_answer(self, answer: bool) -> None:
        """Closes it."""
        self.dismiss(answer)


class Pages(ModalScreen[None]):
    """Sections of text, to be read and scrolled."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,enter,question_mark", "close", "close"),
        Binding("j", "scroll(1)", "down", show=False),
        Binding("k", "scroll(-1)", "up", show=False),
    ]

    def __init__(self, title: str, sections: Sequence[Section]) -> None:
        super().__init__()
        self.heading = title
        self.sections = sections

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="pages") as pages:
            pages.border_title = self.heading
            pages.border_subtitle = "esc closes"
            for title, text in self.sections:
                yield Static(Text(title, "bold"), classes="heading")
                yield Static(Text(text) if isinstance(text, str) else text)

    def action_close(self) -> None:
        """Closes it."""
        self.dismiss(None)

    def action_scroll(self, lines: int) -> None:
        """Moves the text by some lines."""
        self.query_one("#pages", VerticalScroll).scroll_relative(y=lines, animate=False)
