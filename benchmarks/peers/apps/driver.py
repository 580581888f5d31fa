"""Runs one side of a peer, in the peer's own environment: ``python driver.py MODULE VERB …``.

Every module beside this one gives the same things: ``prepare()`` makes the peer's tables, ``producing()`` is a context
that yields how to enqueue one job and how to enqueue many (None where the peer has no such call), and
``work(processes)`` runs workers until it is terminated. Each of them may be a coroutine.

    prepare             nothing is printed
    bulk COUNT          prints the seconds it took
    each COUNT PAUSE    prints the clock before each call, and after the last one, as JSON
    work PROCESSES
"""

import asyncio
import importlib
import inspect
import json
import sys
import time
from contextlib import AbstractContextManager


def main() -> None:
    module, verb, *rest = sys.argv[1:]
    app = importlib.import_module(module)
    if verb == "prepare":
        _run(app.prepare)
    elif verb == "work":
        _run(app.work, int(rest[0]))
    elif isinstance(producing := app.producing(), AbstractContextManager):
        with producing as (one, many):
            print(json.dumps(_bulk(one, many, int(rest[0])) if verb == "bulk" else _each(one, *rest)))
    else:
        asyncio.run(_produce(producing, verb, rest))


def _run(function, *args) -> None:
    done = function(*args)
    if inspect.isawaitable(done):
        _loop(done)


def _loop(awaitable) -> None:
    try:
        import uvloop
    except ImportError:
        asyncio.run(awaitable)
    else:
        uvloop.run(awaitable)


def _bulk(one, many, count: int) -> float:
    started = time.perf_counter()
    if many is not None:
        many(range(count))
    else:
        for i in range(count):
            one(i)
    return time.perf_counter() - started


def _each(one, count: str, pause: str) -> list[float]:
    clocks = []
    for i in range(int(count)):
        clocks.append(time.time())
        one(i)
        if float(pause):
            time.sleep(float(pause))
    return [*clocks, time.time()]


async def _produce(producing, verb: str, rest: list[str]) -> None:
    async with producing as (one, many):
        count = int(rest[0])
        if verb == "bulk":
            started = time.perf_counter()
            if many is not None:
                await many(range(count))
            else:
                for i in range(count):
                    await one(i)
            print(time.perf_counter() - started)
            return
        clocks = []
        for i in range(count):
            clocks.append(time.time())
            await one(i)
            if float(rest[1]):
                await asyncio.sleep(float(rest[1]))
        print(json.dumps([*clocks, time.time()]))


if __name__ == "__main__":
    main()
