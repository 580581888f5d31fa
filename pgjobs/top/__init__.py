"""``pgjobs top``: a full-screen view of queues, tasks, workers, jobs and failures, which can be steered from it.

``views`` says what is shown, and ``actions`` what can be done with it; both are data, and know nothing of the terminal.
``screen`` shows them, with Textual. A feature adds a View to ``views.VIEWS``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pgjobs.app import PgJobs


def run(jobs: PgJobs, refresh_s: float, view: str) -> None:
    """Shows it until somebody quits.

    Raises:
        ConfigurationError: Textual is not installed.
    """
    from pgjobs.errors import ConfigurationError

    try:
        from pgjobs.top.screen import Top
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "textual":
            raise
        raise ConfigurationError("pgjobs top needs the extra tui; pip install 'pgjobs-queue[tui]'") from None

    Top(jobs, refresh_s, view).run()
