"""Worker processes for the tests: started as a user starts them, and never left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from tests.support import eventually

ROOT = Path(__file__).parents[1]
PGJOBS = [sys.executable, "-m", "pgjobs"]


def environment(url: str, **more: str) -> dict[str, str]:
    """The environment of a user whose database this is."""
    listen = "PGJOBS_LISTEN_URL"
    kept = {
        name: value
        for name, value in os.environ.items()
        if name == listen or not name.startswith(("PG", "DATABASE_", "COLUMNS"))
    }
    return {**kept, "PGJOBS_URL": url, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", **more}


def pgjobs(url: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Runs a command of pgjobs to its end."""
    return subprocess.run(
        [*PGJOBS, *arguments], env=environment(url, **more), capture_output=True, text=True, timeout=60, check=False
    )


class WorkerProcess:
    """``pgjobs worker`` in a process group of its own, with what it says."""

    def __init__(self, url: str, *arguments: str, app: str = "tests.apps.basic", cwd: Path = ROOT, **more: str) -> None:
        self.lines: list[str] = []
        self.popen = subprocess.Popen(
            [*PGJOBS, "worker", "-A", app, *arguments],
            env=environment(url, **more),
            cwd=cwd,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stderr is not None
        with self.popen.stderr as stderr:
            for line in stderr:
                self.lines.append(line.rstrip("\n"))

    def said(self, words: str) -> list[str]:
        """The lines that have these words."""
        return [line for line in self.lines if words in line]

    def ready(self, processes: int = 1) -> WorkerProcess:
        """Waits until its processes claim."""
        eventually(lambda: len(self.said(" ready: ")) >= processes or self.popen.poll() is not None, timeout_s=20)
        assert self.popen.poll() is None, "\n".join(self.lines)
        return self

    def children(self) -> list[int]:
        """The process ids of its children."""
        path = Path(f"/proc/{self.popen.pid}/task/{self.popen.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    def signal(self, number: int) -> None:
        """Sends the parent a signal."""
        self.popen.send_signal(number)

    def leave(self, timeout_s: float = 20.0) -> int:
        """Waits for its end; returns the exit code."""
        code = self.popen.wait(timeout_s)
        self._reader.join(5)
        return code

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(self, *ended: Any) -> None:
        if "COVERAGE_PROCESS_CONFIG" in os.environ:  # of the lines that it ran no killed process tells
            self._leave_in_order()
        if self.popen.poll() is None:
            os.killpg(self.popen.pid, signal.SIGKILL)
            self.popen.wait()
        self._reader.join(5)

    def _leave_in_order(self) -> None:
        for _ in "ab":
            self.popen.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.popen.wait(3)
