import asyncio
import os
from contextlib import asynccontextmanager
from datetime import timedelta

import asyncpg
from noting import POSTGRES, note
from pgqueuer import AsyncpgDriver, PgQueuer, Queries

BATCH = int(os.environ.get("PEERS_BATCH", "100"))


async def prepare():
    queries = Queries(AsyncpgDriver(await asyncpg.connect(POSTGRES)))
    await queries.install()
    await queries.optimize_autovacuum()


@asynccontextmanager
async def producing():
    connection = await asyncpg.connect(POSTGRES)
    queries = Queries(AsyncpgDriver(connection))

    async def one(i):
        await queries.enqueue("noop", b"%d" % i)

    async def many(numbers):
        for low in range(0, len(numbers), 5_000):
            share = numbers[low : low + 5_000]
            await queries.enqueue(["noop"] * len(share), [b"%d" % i for i in share], [0] * len(share))

    yield one, many
    await connection.close()


async def work(processes):
    async def consume():
        queuer = PgQueuer(AsyncpgDriver(await asyncpg.connect(POSTGRES)))

        @queuer.entrypoint("noop")
        async def noop(job) -> None:
            note(int(job.payload))

        await queuer.run(dequeue_timeout=timedelta(seconds=30), batch_size=BATCH)

    await asyncio.gather(consume())
