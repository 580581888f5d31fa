"""The child processes that live."""

from __future__ import annotations

import selectors
import threading
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from pgjobs.supervisor.process import Process, Settings


class Children:
    """The processes that live, by process id: a number is in use twice while one follows another.

    The supervisor's loop starts them, listens to them and takes them out; the heartbeat asks for their lives.
    """

    def __init__(self, settings: Settings, supervisor_id: UUID, selector: selectors.BaseSelector) -> None:
        self._settings = settings
        self._supervisor_id = supervisor_id
        self._selector = selector
        self._by_pid: dict[int, Process] = {}
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[Process]:
        return iter(list(self._by_pid.values()))

    def __len__(self) -> int:
        return len(self._by_pid)

    @property
    def staying(self) -> list[Process]:
        """Those that were not asked to leave without anybody to follow."""
        return [child for child in self if not child.is_leaving]

    @property
    def is_any_ready(self) -> bool:
        """Whether one of them claims jobs."""
        return any(child.is_ready for child in self)

    def lives(self) -> dict[UUID, Process]:
        """Those that have registered, by the ids under which they work now; from any thread."""
        with self._lock:
            return {child.lives[-1]: child for child in self._by_pid.values() if child.lives}

    def start(self, number: int, max_jobs: int | None = None) -> Process:
        """Starts a process under a number.

        Raises:
            OSError: none can be started now.
        """
        child = Process(number, self._settings, self._supervisor_id, max_jobs)
        with self._lock:
            self._by_pid[child.popen.pid] = child
        self._selector.register(child.pipe, selectors.EVENT_READ, child)
        return child

    def listen_to(self, child: Process) -> list[dict[str, Any]]:
        """What it has said; its pipe is not waited for any more when it has closed its end and is about to exit."""
        messages = child.messages()
        if child.hung_up and child.popen.poll() is None:
            self._selector.unregister(child.pipe)
        return messages

    def begin_life(self, child: Process, life: UUID) -> None:
        """Notes the id under which it works from now on."""
        with self._lock:
            child.lives.append(life)

    def take_out(self, child: Process) -> None:
        """Takes one out that has exited; its pipe and board stay open."""
        if child.pipe in self._selector.get_map():
            self._selector.unregister(child.pipe)
        with self._lock:
            del self._by_pid[child.popen.pid]
