"""An application that starts a thread when it is imported."""

from __future__ import annotations

import threading

from pgjobs import PgJobs

jobs = PgJobs()
threading.Thread(target=threading.Event().wait, name="its own", daemon=True).start()


@jobs.task(executor="fork", retry=1)
def work() -> None: ...
