"""The demonstration's application: one task."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Final
from urllib.error import HTTPError
from urllib.request import urlopen

from pgjobs import PgJobs, Retry

SCHEMA: Final = "pgjobs_demo"

jobs = PgJobs(schema=SCHEMA)


class PageMissingError(Exception):
    """There is no such page; trying again does not help."""


@jobs.task(timeout=30, retry=Retry(max_attempts=3, backoff=0.5, not_on=(PageMissingError,)))
def count_words_at_url(url: str) -> int:
    """Counts the words of the text on a page."""
    try:
        with urlopen(url, timeout=10) as page:  # noqa: S310 - the demonstration's own server
            text = _text(page.read().decode())
    except HTTPError as error:
        if error.code == 404:
            raise PageMissingError(url) from error
        raise
    return len(re.findall(r"\w+", text))


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []

    def handle_data(self, data: str) -> None:
        self.parts.append(data)


def _text(html: str) -> str:
    parser = _Text()
    parser.feed(html)
    return " ".join(parser.parts)
