"""Shell jobs: programs that are run for their exit code and their output."""

from __future__ import annotations

import subprocess
from typing import Any, Final

from pgjobs.errors import ProcessDiedError

TASK: Final = "pgjobs.shell"
"""The task that runs them; a worker has it where it was started with ``--allow-shell``."""


def run(command: list[str], check: bool = False) -> dict[str, Any]:
    """Runs a program; returns ``{"exit_code": …}``, negative where a signal ended it.

    It belongs to the process group of the job, which ends as a whole: when the job does, is cancelled or over its
    timeout.

    Args:
        command: the program and its arguments; no shell reads them, unless it is the program: ``["sh", "-c", "…"]``.
        check: fail where the exit code is not 0.

    Raises:
        ProcessDiedError: it failed, and is to be checked.
    """
    code = subprocess.run(command, check=False).returncode
    if check and code:
        raise ProcessDiedError(f"exit code {code}")
    return {"exit_code": code}
