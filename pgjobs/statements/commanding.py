"""What operators ask of workers, and how workers hear of it: with the beat."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

from pgjobs.statements.claiming import LOWEST
from pgjobs.statements.query import QUERIES, Rows, Statement, column


class Question(NamedTuple):
    """What an operator wants to know of a worker: its ``stacks``, or a ``profile`` of some seconds."""

    id: str
    what: str
    seconds: float


class Orders(NamedTuple):
    """What is asked of a worker: to claim no more, to leave, to answer a question."""

    quiet: bool
    leave: bool
    question: Question | None


class Reply(NamedTuple):
    """What became of a question: whether it still stands, the answer, and whether the worker lives."""

    stands: bool
    answer: Any
    lives: bool


def beat(workers: Sequence[UUID], leaving: Sequence[UUID] = ()) -> Statement[dict[UUID, Orders]]:
    """Says that workers live, and which of them leave; returns the orders of those that count as alive."""
    params = {"workers": list(workers), "leaving": list(leaving)}
    return Statement(QUERIES["beat"], params, _orders)


def make_quiet(workers: Sequence[UUID], *, quiet: bool) -> Statement[Sequence[UUID]]:
    """Has workers claim no more, or claim again; returns those that live."""
    return _order(workers, quiet=quiet)


def dismiss(workers: Sequence[UUID]) -> Statement[Sequence[UUID]]:
    """Has workers leave; returns those that live."""
    return _order(workers, leave=True)


def ask(workers: Sequence[UUID], question: Question) -> Statement[Sequence[UUID]]:
    """Asks workers something; returns those that live."""
    return _order(workers, question=json.dumps(question._asdict()))


def _order(
    workers: Sequence[UUID], *, quiet: bool | None = None, leave: bool = False, question: str | None = None
) -> Statement[Sequence[UUID]]:
    params = {"workers": list(workers), "quiet": quiet, "leave": leave, "question": question}
    return Statement(QUERIES["order"], params, column)


def answer(worker: UUID, question: str, answer: str) -> Statement[Sequence[UUID]]:
    """Answers a question by its id; returns the worker if the question stood."""
    return Statement(QUERIES["answer"], {"worker": worker, "question": question, "answer": answer}, column)


def answers(workers: Sequence[UUID], question: str) -> Statement[dict[UUID, Reply]]:
    """What became of a question, by worker."""
    params = {"workers": list(workers), "question": question}
    return Statement(QUERIES["answers"], params, lambda rows: {row[0]: Reply(*row[1:]) for row in rows})


def forget_question(workers: Sequence[UUID], question: str) -> Statement[Sequence[UUID]]:
    """Takes a question and its answers away; returns the workers where it stood."""
    return Statement(QUERIES["forget_question"], {"workers": list(workers), "question": question}, column)


def longest_wait() -> Statement[dict[str, float]]:
    """For how many seconds the longest waiting of the first jobs of each queue waits."""
    return Statement(QUERIES["longest_wait"], {"lowest": LOWEST}, _waits)


def _orders(rows: Rows) -> dict[UUID, Orders]:
    return {row[0]: Orders(row[1], row[2], _question(row[3])) for row in rows}


def _question(document: Any) -> Question | None:
    """The question that stands in a row; None where SQL has written something else there."""
    match document:
        case {"id": str(id_), "what": "stacks" | "profile" as what, "seconds": int(seconds) | float(seconds)} if (
            id_.isalnum()
        ):
            return Question(id_, what, seconds)
        case _:
            return None


def _waits(rows: Rows) -> dict[str, float]:
    return {row[0]: row[1] for row in rows}
