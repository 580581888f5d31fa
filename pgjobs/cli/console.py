"""What people read on a terminal holds nothing that steers it, whoever has written it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.segment import Segment

from pgjobs.wording import harmless

if TYPE_CHECKING:
    from rich.console import ConsoleOptions, RenderableType


class Harmless(Console):
    """A console that steers the terminal itself, and shows as signs what its texts would steer it with."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(harmless(segment.text), segment.style)
