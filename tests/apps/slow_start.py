"""The tasks of ``basic``, in a worker that takes a second from its first claim until it is said to have started."""

from __future__ import annotations

import time

from pgjobs.events import Event, WorkerStarted
from tests.apps.basic import jobs


def _take_a_second(event: Event) -> None:
    time.sleep(1.0)


jobs.subscribe(_take_a_second, WorkerStarted)
