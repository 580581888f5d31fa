"""What becomes of jobs for which there is no thread, or whose end cannot be told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from pgjobs.arguments.signature import Signature
from pgjobs.running.outcome import Outcome
from pgjobs.running.run import Run
from pgjobs.terms.retry import Retry
from pgjobs.worker.claiming.slots import Slots
from pgjobs.worker.executors import threads as module
from pgjobs.worker.executors.threads import KIND, ThreadExecutor
from tests.support import eventually
from tests.unit.ends import ENDS
from tests.unit.test_slots import a_run


def opened(count: int) -> tuple[Slots, ThreadExecutor]:
    slots = Slots(count, lambda: None)
    executor = ThreadExecutor(slots, lambda: None)
    slots.serve({KIND: executor})
    return slots, executor


def run_of(body: Callable[..., Any], timeout_s: float | None = None) -> Run:
    """A run of a function, which has one attempt."""
    run = a_run(time.perf_counter(), KIND, timeout_s)
    run.max_attempts = 1
    run.task = SimpleNamespace(  # type: ignore[assignment]
        body=body, throws=(), retry=Retry(1), signature=Signature(body, "t")
    )
    return run


def endings(slots: Slots, *runs: Run) -> list[tuple[str, str | None]]:
    found: dict[Run, Outcome] = {}

    def all_ended() -> bool:
        found.update((outcome.run, outcome) for outcome in slots.take_finished())
        return found.keys() >= set(runs)

    eventually(all_ended, timeout_s=5)
    return [(found[run].ending, found[run].reason) for run in runs]


def quick() -> str:
    return "done"


def fail_to_start(monkeypatch: pytest.MonkeyPatch, name: str) -> list[int]:
    """Has a thread of a name fail to start once for each item of the list."""
    fails: list[int] = []
    start = threading.Thread.start

    def started(thread: threading.Thread) -> None:
        if fails and thread.name.startswith(name):
            fails.pop()
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", started)
    return fails


@pytest.mark.parametrize("name", ["pgjobs-1", "pgjobs-deadlines"])
def test_job_that_finds_no_thread_goes_back_and_the_next_one_runs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    slots, executor = opened(1)
    first, second = run_of(quick, timeout_s=5), run_of(quick, timeout_s=5)
    fail_to_start(monkeypatch, name).append(1)
    slots.add([first])
    slots.add([second])
    assert endings(slots, first, second) == [
        ("scheduled", "cannot be started: can't start new thread"),
        ("succeeded", None),
    ]
    executor.close()


def test_job_that_finds_no_thread_in_the_place_of_a_deaf_one_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GRACE_S", 0.05)
    gate = threading.Event()
    slots, executor = opened(1)
    deaf, second, third = run_of(lambda: gate.wait(5), timeout_s=0.05), run_of(quick), run_of(quick)
    slots.add([deaf, second, third])
    fail_to_start(monkeypatch, "pgjobs-").append(1)
    try:
        assert endings(slots, deaf, second, third) == [
            ("failed", "timeout"),
            ("scheduled", "cannot be started: can't start new thread"),
            ("succeeded", None),
        ]
    finally:
        gate.set()
        executor.close()


@pytest.mark.parametrize("end", ENDS)
def test_end_of_which_an_outcome_is_hard_to_make_loses_no_slot(end: Any) -> None:
    slots, executor = opened(1)
    first, second = run_of(end), run_of(quick)
    slots.add([first, second])
    assert endings(slots, first, second) == [ENDS[end], ("succeeded", None)]
    executor.close()
