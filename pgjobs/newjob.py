"""A job on its way into the table: what middleware sees of it, and what is written in the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from pgjobs.errors import OptionError
from pgjobs.job import Draft, Template
from pgjobs.options import Options


@dataclass(slots=True)
class NewJob:
    """A job that is about to be enqueued; middleware may change all but its task.

    Attributes:
        task: the name of its task.
        args, kwargs: of the call, as the caller wrote them.
        options: the task's own under those of the call; see Options.
    """

    task: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    options: Options

    def note(self, **meta: Any) -> None:
        """Adds to its meta."""
        self.options["meta"] = {**self.options.get("meta", {}), **meta}


class Prepared(NamedTuple):
    """A job that can be written: checked, bound and encoded."""

    row: Template
    draft: Draft


def checked(value: object, middleware: object) -> Prepared:
    """Returns what a middleware has returned from around an enqueue.

    Raises:
        OptionError: it is not what ``call_next`` gave it; a job would be lost in silence.
    """
    if not isinstance(value, Prepared):
        raise OptionError(
            f"{type(middleware).__name__}.enqueue returned {value!r:.40}; return what call_next(job) returns, "
            "or raise to refuse the job"
        )
    return value


def copied(options: Options) -> Options:
    """Options that can be changed without the task's own changing with them."""
    return cast("Options", dict(options))
