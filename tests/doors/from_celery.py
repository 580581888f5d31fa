"""Celery's first program. There: ``from celery import Celery; celery = Celery('words', broker='redis://')``."""

import sys
from urllib.request import urlopen

from pgjobs import PgJobs

celery = PgJobs()


@celery.task
def count_words_at_url(url):
    with urlopen(url) as response:
        return len(response.read().decode().split())


if __name__ == "__main__":
    result = count_words_at_url.delay(sys.argv[1])
    print(result.id)
    print(result.get(timeout=30))
