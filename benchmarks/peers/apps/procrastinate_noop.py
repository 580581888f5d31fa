from contextlib import asynccontextmanager

from noting import POSTGRES, note
from procrastinate import App, PsycopgConnector

app = App(connector=PsycopgConnector(conninfo=POSTGRES))


@app.task
async def noop(i: int) -> None:
    note(i)


async def prepare():
    async with app.open_async():
        await app.schema_manager.apply_schema_async()


@asynccontextmanager
async def producing():
    async def one(i):
        await noop.defer_async(i=i)

    async def many(numbers):
        await noop.batch_defer_async(*({"i": i} for i in numbers))

    async with app.open_async():
        yield one, many


async def work(processes):
    async with app.open_async():
        await app.run_worker_async(concurrency=10)
