"""A server for crash tests."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

from pgjobs.embedded import locks
from pgjobs.embedded.cluster import Cluster, await_exit
from pgjobs.embedded.locks import EmbeddedServerError

_LINGER_S: Final = 10.0


class ControlledServer:
    """A server that is this process's child, to be stopped, crashed and started again in place.

    It shares its home with nobody, ``server`` and ``url`` included.

    Args:
        home: its directory, made if absent.
        settings: PostgreSQL's, as on its command line.
    """

    def __init__(self, home: Path, settings: Mapping[str, str] | None = None) -> None:
        self._cluster = Cluster(home, settings)
        self._postmaster: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it and waits until it takes connections, through crash recovery if need be.

        Raises:
            EmbeddedServerError: it has been started, or it does not start.
        """
        if self._postmaster is not None:
            raise EmbeddedServerError(f"the server of {self._cluster.home} has been started; stop it first")
        command = self._cluster.prepare()
        postmaster = self._postmaster = self._cluster.spawn(command, self._cluster.claim())
        try:
            self._cluster.await_ready(lambda: postmaster.poll() is None)
        except BaseException:
            self.stop("immediate")
            raise

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stops it if it was started: ``fast`` ends the sessions in order, ``immediate`` is a crash."""
        postmaster, self._postmaster = self._postmaster, None
        if postmaster is None:
            return
        postmaster.send_signal(signal.SIGINT if mode == "fast" else signal.SIGQUIT)
        await_exit(postmaster)
        # The backends of a postmaster that was killed outlive it for a moment.
        os.close(locks.take(self._cluster.running, _LINGER_S))

    def restart(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stops it in this mode, and starts it."""
        self.stop(mode)
        self.start()

    @property
    def url(self) -> str:
        """Its libpq URL, the same whether it runs or not."""
        return self._cluster.url

    @property
    def pid(self) -> int:
        """The postmaster's process id.

        Raises:
            EmbeddedServerError: it has not been started.
        """
        if self._postmaster is None:
            raise EmbeddedServerError(f"the server of {self._cluster.home} does not run; start it first")
        return self._postmaster.pid

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
