"""Signals, whose handlers run between any two lines of what the same thread is doing."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from pgjobs.worker.bell import Bell
from tests.processes import ROOT


@pytest.mark.parametrize("who", ["worker", "child"])
def test_it_may_be_asked_to_stop_whatever_its_thread_is_doing(who: str) -> None:
    program = [sys.executable, "-m", "tests.apps.signalled", who]
    assert subprocess.run(program, cwd=ROOT, timeout=60, check=False).returncode == 0


def test_bell_that_has_rung_before_somebody_waits_is_heard_once() -> None:
    bell = Bell()
    bell.ring()
    bell.ring()
    began = time.monotonic()
    bell.wait(10)
    assert time.monotonic() - began < 5
    bell.wait(0.1)
    assert time.monotonic() - began >= 0.1
