import os
import sys
from contextlib import contextmanager

from huey import RedisHuey
from noting import REDIS, note

huey = RedisHuey("peers", url=REDIS, results=False)


@huey.task()
def noop(i):
    note(i)


def prepare():
    pass


@contextmanager
def producing():
    yield noop, None


def work(processes):
    consumer = os.path.join(os.path.dirname(sys.executable), "huey_consumer")
    arguments = ["huey_noop.huey", "-k", "process", "-w", str(processes), "-q"]
    os.execv(consumer, [consumer, *arguments])
