"""What the code of this process is doing: the stacks of its threads and coroutines, now, or sampled for a while.

No argument or variable is in them, only where the code stands.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any, Final

SAMPLE_S: Final = 0.01
MAX_S: Final = 300.0
"""The longest profile: whoever asks for more gets this."""

MAX_STACKS: Final = 2_000
"""So many different stacks are told apart in a profile."""

_WAITING: Final = frozenset({
    ("threading.py", "wait"), ("threading.py", "_wait_for_tstate_lock"), ("selectors.py", "select"),
    ("queue.py", "get"), ("thread.py", "_worker"), ("socketserver.py", "serve_forever"), ("socket.py", "readinto"),
    ("listener.py", "tick"), ("threads.py", "_main"), ("child.py", "_pulse"), ("waiting.py", "wait_selector"),
    ("waiting.py", "wait_poll"), ("eventloop.py", "run_forever"), ("loop.py", "_main"),
})  # fmt: skip
"""Innermost functions, by file, in which a thread of ours only waits for work."""


def ask(what: str, seconds: float, loop: asyncio.AbstractEventLoop | None, jobs: Mapping[Any, str]) -> dict[str, Any]:
    """Answers what an operator asks of a worker: its stacks, or a profile of some seconds.

    Args:
        loop: where coroutines run.
        jobs: the job that runs in a thread, by its ident, or in a task of the loop.
    """
    return profile(seconds) if what == "profile" else stacks(loop, jobs)


def stacks(loop: asyncio.AbstractEventLoop | None, jobs: Mapping[Any, str]) -> dict[str, Any]:
    """Every thread and every coroutine with its frames, the outermost first, and the job that runs in it."""
    own = threading.get_ident()
    threads = [
        {"name": name, "job": jobs.get(ident), "frames": _frames(frame)}
        for name, ident, frame in _threads()
        if ident != own
    ]
    tasks: set[asyncio.Task[Any]] = set() if loop is None or loop.is_closed() else asyncio.all_tasks(loop)
    coroutines = [{"name": _plain(task.get_name()), "job": jobs.get(task), "frames": _chain(task)} for task in tasks]
    return {"pid": os.getpid(), "threads": threads, "coroutines": coroutines}


def profile(seconds: float) -> dict[str, Any]:
    """How often each stack was met in samples taken for some seconds; threads that wait for work are left out.

    Stacks are in the collapsed form that flame graphs are drawn from: the thread and the frames, outermost first, with
    semicolons between.
    """
    own = threading.get_ident()
    started = time.monotonic()
    met: Counter[str] = Counter()
    samples = 0
    while (passed_s := time.monotonic() - started) < min(seconds, MAX_S):
        samples += 1
        for name, ident, frame in _threads():
            if ident != own and not _waits(frame):
                stack = ";".join((name, *_frames(frame)))
                met[stack if stack in met or len(met) < MAX_STACKS else f"{name};(others)"] += 1
        time.sleep(max(0.0, SAMPLE_S - (time.monotonic() - started - passed_s)))
    return {"pid": os.getpid(), "seconds": round(passed_s, 3), "samples": samples, "stacks": dict(met.most_common())}


def _threads() -> Iterator[tuple[str, int, FrameType]]:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sorted(sys._current_frames().items()):  # pyright: ignore[reportPrivateUsage] - documented
        yield _plain(names.get(ident, f"thread {ident}")), ident, frame


def _frames(frame: FrameType | None) -> list[str]:
    found: list[str] = []
    while frame is not None:
        found.append(_line(frame))
        frame = frame.f_back
    return found[::-1]


def _chain(task: asyncio.Task[Any]) -> list[str]:
    """The frames of a coroutine, and of all that it awaits."""
    found: list[str] = []
    inner: Any = task.get_coro()
    while inner is not None and len(found) < 1_000:
        if (frame := getattr(inner, "cr_frame", None)) is not None:
            found.append(_line(frame))
        inner = getattr(inner, "cr_await", None)
    return found


def _line(frame: FrameType) -> str:
    code = frame.f_code
    return _plain(f"{code.co_qualname} ({code.co_filename}:{frame.f_lineno})")


def _plain(text: str) -> str:
    """A text as JSON and PostgreSQL take it, and as the collapsed form does."""
    return text.encode("utf-8", "replace").decode().replace("\0", "").replace(";", ",")


def _waits(frame: FrameType) -> bool:
    code = frame.f_code
    return (os.path.basename(code.co_filename), code.co_name) in _WAITING
