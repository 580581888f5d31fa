"""The event loop that coroutine functions run on."""

from __future__ import annotations

import asyncio
import importlib
from typing import Any


def new_loop() -> asyncio.AbstractEventLoop:
    """Makes an event loop: uvloop's, where that is installed."""
    try:
        uvloop: Any = importlib.import_module("uvloop")
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
