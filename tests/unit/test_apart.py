"""What a worker reads of a process of its pool."""

from __future__ import annotations

import json
import os
import socket

import pytest

from pgjobs.worker.executors import apart
from pgjobs.worker.executors.apart import _LARGE, _USUAL, PoolProcess  # pyright: ignore[reportPrivateUsage]


def listening() -> tuple[PoolProcess, socket.socket]:
    """A process of the pool that is only its socket, and the other end."""
    process = PoolProcess.__new__(PoolProcess)
    process.pipe, theirs = socket.socketpair()
    process._unread = b""  # pyright: ignore[reportPrivateUsage]
    return process, theirs


@pytest.mark.parametrize("size", [_USUAL - 1, _USUAL, _USUAL + 1])
def test_a_message_as_large_as_the_buffer_is_read_whole(size: int) -> None:
    process, theirs = listening()
    with theirs, process.pipe:
        line = json.dumps({"said": ""}).encode()
        theirs.sendall(line[:-2] + b"x" * (size - len(line) - 1) + line[-2:] + b"\n")
        (message,) = process.messages() or []
        assert len(json.dumps(message)) == size - 1
        assert process.messages() is None, "nothing more comes, so it has ended"


def test_a_message_that_is_larger_than_any_buffer_comes_in_pieces() -> None:
    process, theirs = listening()
    with process.pipe:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
        theirs.setblocking(False)
        rest = json.dumps("x" * (_LARGE * 2)).join(['{"result": ', "}\n"]).encode()
        found = list[dict[str, str]]()
        while not found:
            rest = rest[theirs.send(rest) :] if rest else rest
            messages = process.messages()
            assert messages is not None
            found += messages
        theirs.close()
    assert len(found[0]["result"]) == _LARGE * 2


def test_a_process_that_cannot_be_started_leaves_no_file_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(11, "no more of that")

    monkeypatch.setattr(apart, "_started", fail)
    files = os.listdir("/dev/fd")
    with pytest.raises(OSError, match="no more"):
        PoolProcess({}, 0)
    assert os.listdir("/dev/fd") == files
