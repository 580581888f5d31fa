"""A PostgreSQL server of one's own: its first user starts it, and it stops after its last one.

Its processes are children of a watcher in a session of its own, so that Ctrl-C in a user's terminal does not reach
them. Users are counted by a lock that the kernel drops with its holder, so a ``kill -9`` leaves no wrong count behind.

PostgreSQL refuses to run as root. Root starts it in a user namespace, or as ``nobody`` where namespaces are forbidden.
No permission of a file that was there before is changed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pgjobs.embedded import installation, locks
from pgjobs.embedded.cluster import Cluster
from pgjobs.embedded.controlled import ControlledServer
from pgjobs.embedded.installation import binaries, version
from pgjobs.embedded.locks import EmbeddedServerError

__all__ = ["ControlledServer", "EmbeddedServerError", "binaries", "default_home", "resolve", "server", "url", "version"]

_SCHEME: Final = "embedded:"
_GRACE_S: Final = 1.0
"""How long a server waits for another user after the last one: the commands of a script follow each other closely."""

_kept: dict[Path, int] = {}


@contextmanager
def server(home: Path | None = None, *, settings: Mapping[str, str] | None = None) -> Generator[str]:
    """Starts the server of this home, or joins it, and yields its libpq URL.

    Args:
        home: its directory, made if absent; by default one for each user and version of PostgreSQL.
        settings: PostgreSQL's, as on its command line; without effect on a server that runs already.

    Raises:
        EmbeddedServerError: there is no PostgreSQL, no place for its files, or it does not start.
    """
    cluster = Cluster(home or default_home(), settings)
    lease = _join(cluster)
    try:
        yield cluster.url
    finally:
        os.close(lease)


def url(home: Path | None = None) -> str:
    """Returns the libpq URL of the server of this home, started or joined, which is kept until this process ends.

    Called again, it starts a server that has died. A forked child keeps the server as well, by the descriptor that it
    inherits; its end takes nothing from its parent.

    Raises:
        EmbeddedServerError: as ``server`` does.
    """
    cluster = Cluster(home or default_home())
    lease = _join(cluster)
    # The kernel gives the lease back, so that no way to end is forgotten. Threads race for the place in the dict, which
    # is safe; a fork could inherit a threading.Lock in the hands of a thread that it does not have.
    if _kept.setdefault(cluster.home, lease) != lease:
        os.close(lease)
    return cluster.url


def resolve(url_: str) -> str:
    """Returns a libpq URL for ``embedded:`` and ``embedded:/some/home``, as ``url`` does, and others unchanged."""
    if not url_.startswith(_SCHEME):
        return url_
    home = url_.removeprefix(_SCHEME)
    return url(Path(home).expanduser() if home else None)


def default_home() -> Path:
    """Returns PGJOBS_EMBEDDED_HOME, or a directory among the user's data, one for each version of PostgreSQL."""
    if given := os.environ.get("PGJOBS_EMBEDDED_HOME"):
        return Path(given).expanduser()
    name = f"pg{version(binaries())}"
    if installation.account().owner:
        installation.make(installation.SHARED, 0o755)
        return installation.SHARED / name
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "pgjobs" / name


def _join(cluster: Cluster) -> int:
    """Makes this process a user of the server, which is started if it is down; returns what ends that when closed."""
    cluster.make_home()
    with locks.exclusive(cluster.boot):
        # Before there is a server, so that its watcher never finds it without a user.
        lease = locks.share(cluster.users)
        try:
            if cluster.listening() is None:
                _start(cluster)
        except BaseException:
            os.close(lease)
            raise
    return lease


def _start(cluster: Cluster) -> None:
    plan = {"home": str(cluster.home), "command": cluster.prepare(bound=True), "grace_s": _GRACE_S}
    paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    with cluster.open_log() as log:
        # It returns when the watcher, whom it leaves behind, has the server's lock.
        done = subprocess.run(
            [sys.executable, "-P", "-m", "pgjobs.embedded", "watch", json.dumps(plan)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd="/",
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            check=False,
        )
    if done.returncode != 0:
        raise cluster.start_error()
    cluster.await_ready(alive=lambda: not locks.is_free(cluster.running))
