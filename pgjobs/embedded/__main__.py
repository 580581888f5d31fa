"""The watcher: the parent of a postmaster, which it stops when the server's last user is gone.

``python -m pgjobs.embedded watch '{"home": …, "command": […], "grace_s": …}'`` is how the first user starts it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final, NoReturn

from pgjobs.embedded import locks
from pgjobs.embedded.cluster import Cluster, await_exit

_POLL_S: Final = 0.2


def main(arguments: list[str]) -> NoReturn:
    """Leaves the watcher behind and exits once it holds the server's lock, or exits with the usage."""
    if len(arguments) != 2 or arguments[0] != "watch":
        sys.exit("usage: python -m pgjobs.embedded watch PLAN (pgjobs itself does this)")
    plan = json.loads(arguments[1])
    cluster = Cluster(Path(plan["home"]))
    lock = cluster.claim()
    if os.fork() == 0:
        postmaster = cluster.spawn(plan["command"], lock)
        _watch(cluster, postmaster, plan["grace_s"])
    os._exit(0)


def _watch(cluster: Cluster, postmaster: subprocess.Popen[bytes], grace_s: float) -> None:
    while postmaster.poll() is None:
        time.sleep(_POLL_S)
        if not locks.is_free(cluster.users):
            continue
        time.sleep(grace_s)
        with locks.exclusive(cluster.boot):  # nobody becomes a user while this is decided
            if locks.is_free(cluster.users):
                postmaster.send_signal(signal.SIGINT)
                await_exit(postmaster)


if __name__ == "__main__":
    main(sys.argv[1:])
