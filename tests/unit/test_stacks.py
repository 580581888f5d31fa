"""Where the code of this process stands."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

from pgjobs.worker import stacks


def wait_here(gate: threading.Event) -> None:
    gate.wait(30)


def spin_here(gate: threading.Event) -> None:
    while not gate.is_set():
        sum(range(1_000))


@contextmanager
def running(target: Callable[[threading.Event], None], name: str) -> Generator[threading.Thread]:
    gate = threading.Event()
    thread = threading.Thread(target=target, args=(gate,), name=name)
    thread.start()
    try:
        yield thread
    finally:
        gate.set()
        thread.join()


def test_every_thread_is_shown_with_its_job() -> None:
    with running(wait_here, "mine;\udc80") as thread:
        facts = stacks.stacks(None, {thread.ident: "mail.send 1"})
        (mine,) = (each for each in facts["threads"] if each["name"].startswith("mine"))
    assert (mine["name"], mine["job"]) == ("mine,?", "mail.send 1")
    assert any("wait_here" in frame and "test_stacks.py:" in frame for frame in mine["frames"])
    assert not [each for each in facts["threads"] if "stacks.stacks" in each["frames"][-1]], "whoever asks is not shown"
    assert facts["coroutines"] == []
    json.dumps(facts).encode()


async def test_coroutine_is_shown_down_to_where_it_waits() -> None:
    async def inner(gate: asyncio.Event) -> None:
        await gate.wait()

    async def outer(gate: asyncio.Event) -> None:
        await inner(gate)

    gate = asyncio.Event()
    task = asyncio.create_task(outer(gate), name="mine")
    await asyncio.sleep(0)
    facts = await asyncio.to_thread(stacks.stacks, asyncio.get_running_loop(), {task: "mail.send 2"})
    (mine,) = (each for each in facts["coroutines"] if each["name"] == "mine")
    gate.set()
    await task
    assert mine["job"] == "mail.send 2"
    assert [frame.split(" ")[0].rpartition(".")[2] for frame in mine["frames"]] == ["outer", "inner", "wait"]


def test_profile_counts_what_runs_and_leaves_out_what_waits() -> None:
    with running(wait_here, "idle"), running(spin_here, "spinning"):
        facts = stacks.profile(0.3)
    assert facts["samples"] >= 5
    names = {stack.split(";")[0] for stack in facts["stacks"]}
    assert "spinning" in names
    assert "idle" not in names
    spun = sum(count for stack, count in facts["stacks"].items() if stack.startswith("spinning;"))
    assert spun == facts["samples"], "once in each sample"
