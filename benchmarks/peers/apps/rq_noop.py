from contextlib import contextmanager

import tasks_of_rq
from noting import REDIS
from redis import Redis
from rq import Queue, SimpleWorker


def prepare():
    pass


@contextmanager
def producing():
    queue = Queue(connection=Redis.from_url(REDIS))

    def many(numbers):
        for low in range(0, len(numbers), 1_000):
            queue.enqueue_many([Queue.prepare_data(tasks_of_rq.noop, (i,)) for i in numbers[low : low + 1_000]])

    yield lambda i: queue.enqueue(tasks_of_rq.noop, i), many


def work(processes):
    SimpleWorker(["default"], connection=Redis.from_url(REDIS)).work(logging_level="ERROR")
