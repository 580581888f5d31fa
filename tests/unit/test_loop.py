"""What becomes of coroutines that are cancelled, late or stopped at odd moments, on an event loop without a worker."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, get_type_hints

import pytest

from pgjobs.arguments.signature import Signature
from pgjobs.running.outcome import Outcome
from pgjobs.running.run import Run
from pgjobs.terms.retry import Retry
from pgjobs.worker.claiming.slots import Slots
from pgjobs.worker.executors import loop as module
from pgjobs.worker.executors.loop import KIND, AsyncExecutor
from tests.support import eventually
from tests.unit.ends import ENDS
from tests.unit.test_slots import a_run


class Floor:
    """An executor with its slots, and the outcomes so far."""

    def __init__(self, count: int) -> None:
        self.slots = Slots(count, lambda: None)
        self.executor = AsyncExecutor(self.slots)
        self.slots.serve({KIND: self.executor})
        self.executor.open()

    def run(self, body: Callable[..., Any], timeout_s: float | None = None) -> Run:
        """A run of a coroutine function, which has one attempt."""
        run = a_run(time.perf_counter(), KIND, timeout_s)
        run.max_attempts = 1
        run.task = SimpleNamespace(  # type: ignore[assignment]
            body=body, throws=(), retry=Retry(1), signature=Signature(body, "t")
        )
        return run

    def endings(self, *runs: Run) -> list[tuple[str, str | None]]:
        """Waits for the outcomes of runs, and says how they ended."""
        found: dict[Run, Outcome] = {}

        def all_ended() -> bool:
            found.update((outcome.run, outcome) for outcome in self.slots.take_finished())
            return found.keys() >= set(runs)

        eventually(all_ended, timeout_s=5)
        return [(found[run].ending, found[run].reason) for run in runs]


@pytest.fixture
def floor(request: pytest.FixtureRequest) -> Iterator[Floor]:
    """A floor with one slot, or as many as the test asks for."""
    floor = Floor(getattr(request, "param", 1))
    yield floor
    floor.executor.close()
    assert not floor.slots.running


async def quick() -> str:
    return "done"


class Blocker:
    """A coroutine function that blocks the loop at its end, until it is let go."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.gate = threading.Event()

    async def __call__(self) -> str:
        await asyncio.sleep(0)
        self.began.set()
        assert self.gate.wait(5)
        time.sleep(module.SLICE_S * 2)
        return "done"


def test_cancellation_that_comes_too_late_for_its_run_does_not_hit_the_next_one(floor: Floor) -> None:
    blocker = Blocker()
    first, second, third = floor.run(blocker), floor.run(quick), floor.run(quick)
    floor.slots.add([first, second, third])
    assert blocker.began.wait(5)
    floor.executor.cancel(first)
    blocker.gate.set()
    assert floor.endings(first, second, third) == [("succeeded", None)] * 3


@pytest.mark.parametrize("floor", [2], indirect=True)
def test_run_that_is_cancelled_before_its_first_step_does_not_begin(floor: Floor) -> None:
    called: list[int] = []

    async def never() -> None:
        called.append(1)

    blocker = Blocker()
    first, second = floor.run(blocker), floor.run(never)
    floor.slots.add([first])
    assert blocker.began.wait(5)
    floor.slots.add([second])
    floor.executor.cancel(second)
    blocker.gate.set()
    assert floor.endings(first, second) == [("succeeded", None), ("cancelled", "cancelled")]
    assert not called


def test_run_that_a_stop_finds_before_its_first_step_goes_back(floor: Floor) -> None:
    blocker = Blocker()
    first, second = floor.run(blocker), floor.run(quick)
    floor.slots.add([first, second])
    assert blocker.began.wait(5)
    floor.executor.interrupt()
    blocker.gate.set()
    assert floor.endings(first, second) == [("succeeded", None), ("released", None)]


def test_coroutine_that_cancels_its_task_and_returns_leaves_no_cancellation_to_the_next_one(floor: Floor) -> None:
    async def cancels_itself() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()

    async def waits() -> None:
        await asyncio.sleep(0.001)

    first, second = floor.run(cancels_itself), floor.run(waits)
    floor.slots.add([first, second])
    assert floor.endings(first, second) == [("succeeded", None)] * 2


@pytest.mark.parametrize("floor", [2], indirect=True)
def test_run_whose_task_somebody_cancels_before_its_first_step_runs_all_the_same(floor: Floor) -> None:
    blocker = Blocker()

    async def cancels_all_others() -> None:
        await blocker()
        await asyncio.sleep(0)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    first, second = floor.run(cancels_all_others), floor.run(quick)
    floor.slots.add([first])
    assert blocker.began.wait(5)
    floor.slots.add([second])
    blocker.gate.set()
    assert floor.endings(first, second) == [("succeeded", None)] * 2


async def turns_into_another_error() -> None:
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError as error:
        raise ConnectionError("the connection was closed") from error


def test_stop_burns_no_attempt_of_a_coroutine_that_makes_another_error_of_it(floor: Floor) -> None:
    run = floor.run(turns_into_another_error)
    floor.slots.add([run])
    eventually(floor.executor.running)
    floor.executor.interrupt()
    assert floor.endings(run) == [("released", None)]


def test_coroutine_that_makes_another_error_of_its_timeout_has_timed_out(floor: Floor) -> None:
    run = floor.run(turns_into_another_error, timeout_s=0.05)
    floor.slots.add([run])
    assert floor.endings(run) == [("failed", "timeout")]


def test_task_factory_of_a_job_is_none_of_the_slots(floor: Floor) -> None:
    async def sets_one() -> None:
        def factory(loop: asyncio.AbstractEventLoop, coroutine: Any) -> asyncio.Task[Any]:
            return asyncio.Task(coroutine, loop=loop)  # as they were written before a task could be given a context

        asyncio.get_running_loop().set_task_factory(factory)  # type: ignore[arg-type]

    first, second = floor.run(sets_one), floor.run(quick)
    floor.slots.add([first])
    assert floor.endings(first) == [("succeeded", None)]
    floor.slots.add([second])
    assert floor.endings(second) == [("succeeded", None)]


@pytest.mark.parametrize("end", ENDS)
def test_end_of_which_an_outcome_is_hard_to_make_loses_no_slot(end: Any, floor: Floor) -> None:
    async def ends() -> Any:
        return end()

    ends.__annotations__ = get_type_hints(end)
    first, second = floor.run(ends), floor.run(quick)
    floor.slots.add([first, second])
    assert floor.endings(first, second) == [ENDS[end], ("succeeded", None)]
