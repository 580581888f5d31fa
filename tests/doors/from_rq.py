"""RQ's first program. There: ``from redis import Redis; from rq import Queue; q = Queue(connection=Redis())``."""

import sys

from pgjobs import PgJobs, Queue
from tests.doors.words import count_words_at_url

rq = Queue(connection=PgJobs())

if __name__ == "__main__":
    job = rq.enqueue(count_words_at_url, sys.argv[1])
    print(job.id)
    print(job.get(timeout=30))
