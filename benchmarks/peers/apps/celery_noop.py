import os
import sys
from contextlib import contextmanager

from celery import Celery
from noting import REDIS, note

app = Celery("celery_noop", broker=REDIS)
app.conf.update(
    task_ignore_result=True,
    worker_prefetch_multiplier=128,
    broker_connection_retry_on_startup=True,
)


@app.task(name="noop")
def noop(i):
    note(i)


def prepare():
    pass


@contextmanager
def producing():
    yield noop.delay, None


def work(processes):
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "error"]
    command = ["-m", "celery", "-A", "celery_noop", "worker", "-c", str(processes), *quiet]
    os.execv(sys.executable, [sys.executable, *command])
