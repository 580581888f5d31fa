import asyncio
from contextlib import asynccontextmanager

from bullmq import Queue, Worker
from noting import REDIS, note


async def process(job, token):
    note(job.data["i"])


def prepare():
    pass


@asynccontextmanager
async def producing():
    queue = Queue("peers", {"connection": REDIS})

    async def one(i):
        await queue.add("noop", {"i": i}, {"removeOnComplete": True})

    async def many(numbers):
        for low in range(0, len(numbers), 1_000):
            await queue.addBulk(
                [
                    {"name": "noop", "data": {"i": i}, "opts": {"removeOnComplete": True}}
                    for i in numbers[low : low + 1_000]
                ]
            )

    yield one, many
    await queue.close()


async def work(processes):
    Worker("peers", process, {"connection": REDIS, "concurrency": 100})
    await asyncio.Event().wait()
