"""``pgjobs top``: a full-screen view of queues, tasks, workers, jobs and failures, which can be steered from it.

``views`` says what is shown, and ``actions`` what can be done with it; both are data, and know nothing of the terminal.
``screen`` shows them, with Textual. A feature adds a View to ``views.VIEWS``.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pgjobs.app import PgJobs


def run(jobs: PgJobs, refresh_s: float, view: str) -> None:
    """Shows it until somebody quits.

    Raises:
        ConfigurationError: Textual is not installed.
    """
    from pgjobs.errors import ConfigurationError

    if find_spec("textual") is None:
        raise ConfigurationError("pgjobs top needs the extra tui; pip install 'pgjobs-queue[tui]'")
    from pgjobs.top.screen import Top

    Top(jobs, refresh_s, view).run()
