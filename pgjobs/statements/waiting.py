"""Who waits for results, and how they are told."""

from __future__ import annotations

from collections.abc import Sequence

from pgjobs.statements.query import QUERIES, Statement, nothing


def wait_on(channel: str) -> Statement[None]:
    """Says that somebody listens on a channel for ends of jobs."""
    return Statement(QUERIES["wait_on"], {"channel": channel}, nothing)


def wait_no_more(channel: str) -> Statement[None]:
    """Says that nobody does any more."""
    return Statement(QUERIES["wait_no_more"], {"channel": channel}, nothing)


def tell(channels: Sequence[str], payloads: Sequence[str]) -> Statement[None]:
    """Sends each payload, ids in hex with spaces between, to each channel."""
    return Statement(
        QUERIES["tell"], {"channels": list(channels), "payloads": list(payloads)}, nothing, keeps_plan=True
    )
