import os
import sys
from contextlib import asynccontextmanager

from arq import create_pool
from arq.connections import RedisSettings
from noting import REDIS, note

settings = RedisSettings.from_dsn(REDIS)


async def noop(ctx, i):
    note(i)


class WorkerSettings:
    functions = [noop]
    redis_settings = settings
    max_jobs = 100
    poll_delay = 0.02
    keep_result = 0


def prepare():
    pass


@asynccontextmanager
async def producing():
    pool = await create_pool(settings)

    async def one(i):
        await pool.enqueue_job("noop", i)

    yield one, None
    await pool.aclose()


def work(processes):
    os.execv(sys.executable, [sys.executable, "-m", "arq", "arq_noop.WorkerSettings"])
