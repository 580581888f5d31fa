import os
import sys
from contextlib import contextmanager

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from noting import REDIS, note

dramatiq.set_broker(RedisBroker(url=REDIS))


@dramatiq.actor
def noop(i):
    note(i)


def prepare():
    pass


@contextmanager
def producing():
    yield noop.send, None


def work(processes):
    os.environ["dramatiq_queue_prefetch"] = "256"
    command = ["-m", "dramatiq", "dramatiq_noop", "--processes", str(processes), "--threads", "8"]
    os.execv(sys.executable, [sys.executable, *command])
