"""A soft timeout arrives once, in the code that it is meant for, and leaves whoever stops the task for good alone."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Coroutine
from typing import Any

import pytest

from pgjobs import SoftTimeoutError
from pgjobs.worker.executors.soft import Softly, alarm, softly

LIMIT_S = 0.05


def test_an_alarm_rings_in_the_block_alone() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(SoftTimeoutError), alarm(LIMIT_S):
        time.sleep(5)
    with alarm(LIMIT_S):
        ring = signal.getsignal(signal.SIGALRM)
    assert signal.getsignal(signal.SIGALRM) == before
    assert callable(ring)
    assert ring(signal.SIGALRM, None) is None, "one that was on its way when the block ended"
    time.sleep(2 * LIMIT_S)


async def test_it_arrives_once() -> None:
    caught: list[BaseException] = []

    async def stubborn() -> str:
        for _ in range(2):
            try:
                await asyncio.sleep(4 * LIMIT_S)
            except SoftTimeoutError as error:
                caught.append(error)
        return "done"

    assert await softly(stubborn(), LIMIT_S) == "done"
    assert len(caught) == 1
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]


async def test_a_task_group_is_stopped_with_its_children() -> None:
    ended: list[str] = []

    async def child() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("child")

    async def grouped() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(child())

    with pytest.raises(SoftTimeoutError):
        await softly(grouped(), LIMIT_S)
    assert ended == ["child"]


async def ends_with(coroutine: Coroutine[Any, Any, Any], *, gives_way: bool) -> BaseException:
    with pytest.raises(BaseException) as ended:
        await Softly(coroutine, LIMIT_S, lambda: gives_way)
    return ended.value


async def test_it_gives_way_to_whoever_stops_the_task() -> None:
    assert isinstance(await ends_with(asyncio.sleep(60), gives_way=True), asyncio.CancelledError)
    task = asyncio.create_task(ends_with(asyncio.sleep(60), gives_way=False))
    await asyncio.sleep(0)
    task.cancel()
    assert isinstance(await task, asyncio.CancelledError), "a cancellation of before the limit is no soft timeout"


async def test_what_the_coroutine_waits_for_may_fail() -> None:
    async def waits() -> str:
        future = asyncio.get_running_loop().create_future()
        future.set_exception(ValueError("no"))
        await asyncio.sleep(0)
        try:
            await future
        except ValueError as error:
            return str(error)
        return ""

    assert await softly(waits(), 5.0) == "no"
