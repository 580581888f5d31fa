import asyncio
from contextlib import asynccontextmanager

from noting import POSTGRES, note
from oban import Oban, worker
from oban.schema import install


@worker()
class Noop:
    async def process(self, job):
        note(job.args["i"])


async def prepare():
    pool = await Oban.create_pool(dsn=POSTGRES)
    await install(pool)
    await pool.close()


@asynccontextmanager
async def producing():
    pool = await Oban.create_pool(dsn=POSTGRES)
    async with Oban(pool=pool) as oban:

        async def one(i):
            await Noop.enqueue({"i": i})

        async def many(numbers):
            for low in range(0, len(numbers), 1_000):
                await oban.enqueue_many([Noop.new({"i": i}) for i in numbers[low : low + 1_000]])

        yield one, many
    await pool.close()


async def work(processes):
    pool = await Oban.create_pool(dsn=POSTGRES)
    async with Oban(pool=pool, queues={"default": 100}):
        await asyncio.Event().wait()
