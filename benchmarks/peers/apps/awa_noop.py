import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass

import awa
from noting import POSTGRES, note

URL = POSTGRES.replace("@/", "@localhost/")  # its driver wants a host, though the socket's directory goes before


@dataclass
class Noop:
    i: int


async def prepare():
    await awa.migrate(URL)
    await (await _worker()).shutdown()  # the first one brings in the queue storage


async def _worker():
    client = awa.AsyncClient(URL)

    @client.task(Noop)
    async def noop(job):
        note(job.args.i)

    await client.start([("default", 256)], poll_interval_ms=50)
    return client


@asynccontextmanager
async def producing():
    client = awa.AsyncClient(URL)

    async def one(i):
        await client.insert(Noop(i))

    async def many(numbers):
        await client.enqueue_many_copy([Noop(i) for i in numbers])

    yield one, many
    await client.close()


async def work(processes):
    await _worker()
    await asyncio.Event().wait()
