"""What workers answer to those who ask them something, on its way to the database."""

from __future__ import annotations

import json
import logging
from collections import deque
from typing import Any
from uuid import UUID

import psycopg

from pgjobs import statements
from pgjobs.connections.database import is_away
from pgjobs.connections.link import Link

logger = logging.getLogger("pgjobs.worker")


class Answers:
    """Takes answers from any thread; ``write`` writes them down, on the connection of a service that beats."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[UUID, str, str]] = deque()

    def add(self, worker: UUID, question: str, facts: Any) -> None:
        """Takes an answer."""
        self._waiting.append((worker, question, json.dumps(facts)))

    def write(self, link: Link) -> None:
        """Writes down what there is. An answer that the database cannot take is dropped, and said to be."""
        while self._waiting:
            try:
                link.one(statements.answer(*self._waiting[0]))
            except psycopg.Error as error:
                if is_away(error):
                    raise
                logger.warning("an answer to `pgjobs workers` could not be written (%s)", type(error).__name__)
            self._waiting.popleft()
