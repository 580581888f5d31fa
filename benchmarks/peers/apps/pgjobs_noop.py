import os
import sys
from contextlib import contextmanager

from noting import POSTGRES, note

from pgjobs import PgJobs, migrations

jobs = PgJobs(POSTGRES)


@jobs.task
async def noop(i: int) -> None:
    note(i)


def prepare():
    migrations.migrate(POSTGRES)


@contextmanager
def producing():
    yield noop.enqueue, lambda numbers: noop.enqueue_many((i,) for i in numbers)
    jobs.close()


def work(processes):
    command = [
        "-m",
        "pgjobs",
        "worker",
        "-A",
        "pgjobs_noop:jobs",
        "--processes",
        str(processes),
        "--log-level",
        "error",
    ]
    os.execv(sys.executable, [sys.executable, *command])
