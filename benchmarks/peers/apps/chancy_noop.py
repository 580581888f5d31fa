from contextlib import asynccontextmanager

from chancy import Chancy, Queue, Worker, job
from noting import POSTGRES, note


@job(queue="default")
async def noop(*, i: int) -> None:
    note(i)


async def prepare():
    async with Chancy(POSTGRES) as chancy:
        await chancy.migrate()
        await chancy.declare(
            Queue(
                "default",
                concurrency=1000,
                executor=Chancy.Executor.Async,
                eager_polling=True,
                polling_interval=1,
            )
        )


@asynccontextmanager
async def producing():
    async with Chancy(POSTGRES) as chancy:

        async def one(i):
            await chancy.push(noop.job.with_kwargs(i=i))

        async def many(numbers):
            async for _ in chancy.push_many([noop.job.with_kwargs(i=i) for i in numbers]):
                pass

        yield one, many


async def work(processes):
    async with Chancy(POSTGRES) as chancy, Worker(chancy) as worker:
        await worker.wait_for_shutdown()
