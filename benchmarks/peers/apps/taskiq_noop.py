import os
import sys
from contextlib import asynccontextmanager

from noting import REDIS, note
from taskiq_redis import RedisStreamBroker

broker = RedisStreamBroker(url=REDIS)


@broker.task(task_name="noop")
async def noop(i: int) -> None:
    note(i)


def prepare():
    pass


@asynccontextmanager
async def producing():
    await broker.startup()
    yield noop.kiq, None
    await broker.shutdown()


def work(processes):
    options = ["--max-async-tasks", "100", "--max-prefetch", "100", "--log-level", "ERROR"]
    command = ["-m", "taskiq", "worker", "taskiq_noop:broker", "--workers", str(processes), *options]
    os.execv(sys.executable, [sys.executable, *command])
