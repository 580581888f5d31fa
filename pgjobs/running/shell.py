"""Shell jobs: programs that are run for their exit code and their output."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from typing import IO, Any, Final

from pgjobs.errors import ProcessDiedError
from pgjobs.running.current import current_job

TASK: Final = "pgjobs.shell"
"""The task that runs them; a worker has it where it was started with ``--allow-shell``."""

LAST_WORDS_S: Final = 1.0
"""How long the output of an ended program is read on: others that it has left behind may hold it open."""


def run(command: list[str], check: bool = False) -> dict[str, Any]:
    """Runs a program; returns ``{"exit_code": …}``, negative where a signal ended it.

    It belongs to the process group of the job, which ends as a whole: when the job does, is cancelled or over its
    timeout. Each line that it writes is a log line of the job at once, and all of them are its output in the end.

    Args:
        command: the program and its arguments; no shell reads them, unless it is the program: ``["sh", "-c", "…"]``.
        check: fail where the exit code is not 0.

    Raises:
        ProcessDiedError: it failed, and is to be checked.
    """
    program = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert program.stdout is not None  # noqa: S101 - a pipe, as was asked
    telling = threading.Thread(target=_tell, args=(program.stdout, current_job().log), daemon=True)
    telling.start()
    code = program.wait()
    telling.join(LAST_WORDS_S)
    if check and code:
        raise ProcessDiedError(f"exit code {code}")
    return {"exit_code": code}


def _tell(lines: IO[bytes], log: Callable[[str], None]) -> None:
    with lines:
        for line in lines:
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
            log(line.decode(errors="replace").rstrip("\r\n"))
