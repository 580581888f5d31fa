"""The stacks that faulthandler writes for a process in which no Python code can tell them."""

from __future__ import annotations

import faulthandler
import os
import threading

import pytest

from pgjobs.worker import dump

pytestmark = pytest.mark.skipif(dump.SIGNAL is None, reason="needs Linux")


def test_what_the_interpreter_writes_is_read_innermost_last_and_once() -> None:
    fd = dump.make_file()
    assert fd is not None
    over = threading.Event()
    other = threading.Thread(target=over.wait)
    other.start()
    try:
        faulthandler.dump_traceback(fd, all_threads=True)
        facts = dump.take(fd, 7)
        assert (facts["pid"], facts["coroutines"]) == (7, [])
        assert len(facts["threads"]) >= 2
        (own,) = [thread for thread in facts["threads"] if thread["name"].startswith("Current thread")]
        assert own["frames"][-1].startswith("test_what_the_interpreter_writes_is_read_innermost_last_and_once (")
        assert __file__ in own["frames"][-1]
        others = [thread for thread in facts["threads"] if thread is not own]
        assert any(thread["frames"][0].startswith("_bootstrap ") for thread in others), "the outermost comes first"
        assert dump.take(fd, 7)["threads"] == []
    finally:
        over.set()
        other.join()
        os.close(fd)


def test_anything_else_in_the_file_is_passed_over() -> None:
    fd = dump.make_file()
    assert fd is not None
    os.write(
        fd, b'  File "before.py", line 1 in any thread\n\0\xffnoise\nThread 0x1 (most recent call first):\nwhat?\n'
    )
    assert dump.take(fd, 7)["threads"] == [{"name": "Thread 0x1", "job": None, "frames": []}]
    os.close(fd)
