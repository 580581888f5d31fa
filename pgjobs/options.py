"""The options of a job, and what they make of its row."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Literal, TypedDict, cast
from uuid import UUID

from pgjobs.arguments import codec
from pgjobs.arguments.codec import Json
from pgjobs.config import (
    DEFAULT_QUEUE,
    DEFAULT_RESULT_TTL_S,
    DEFAULT_TIMEOUT_S,
    MAX_PRIORITY,
    Duration,
    queue_name,
    seconds,
    switch,
)
from pgjobs.errors import OptionError
from pgjobs.job import Template
from pgjobs.terms.depth import WhenFull, depth_of
from pgjobs.terms.keep import Keep, keep_of
from pgjobs.terms.results import ResultStorage
from pgjobs.terms.retry import Retry
from pgjobs.terms.unique import FOREVER, By, Unique, checked_key, unique_of
from pgjobs.webhooks import Hooks, hooks_of
from pgjobs.wording import given


class Options(TypedDict, total=False):
    """What can be said of a job, on the task or with ``using``; a key that is absent is unset.

    queue: its name. priority: -100…100, larger first. lifo: before all that waits in its queue and priority, the
    last one first. delay or run_at (aware): the earliest start. ttl: how long it may wait; on_expiry: whether it
    expires then, fails, or runs all the same. deadline: how long after its enqueue all its attempts must be over.
    timeout: how long one attempt may run, None for no limit; soft_timeout: when SoftTimeoutError is raised in it.
    retry: a policy, or the number of attempts. unique: a policy, or what it is unique by. idempotency_key: a key of
    the caller's own; while a job that has it is there, another enqueue returns that one. result_ttl: how long the
    ended job is kept; keep: how long by how it has ended. ignore_result: store none. meta: a JSON object of the
    caller's own. tags: words to find it by. context: what the carriers of the application set around its runs, beside
    what they find where it is enqueued. webhook: where a signed message goes when the job has ended. job_id: an id of
    the caller's own. here: the worker in this process starts it, right after the commit. max_depth: how many jobs may
    be queued there; when_full: raise, drop the new one, or block until there is room, for full_timeout at most.
    """

    queue: str
    priority: int
    lifo: bool
    delay: Duration
    run_at: datetime
    ttl: Duration
    on_expiry: Literal["expire", "fail", "run"]
    deadline: Duration
    timeout: Duration | None
    soft_timeout: Duration
    retry: Retry | int
    unique: Unique | By
    idempotency_key: str
    result_ttl: Duration
    keep: Keep
    ignore_result: bool
    meta: Mapping[str, Json]
    tags: Sequence[str]
    context: Mapping[str, Json]
    webhook: Hooks
    job_id: UUID | str
    here: bool
    max_depth: int
    when_full: WhenFull
    full_timeout: Duration


class TaskOptions(Options, total=False):
    """What can be said of a task beside the options of its jobs; it is not kept with them.

    capture_logs: what its code logs through ``logging``, from this level on, is kept with the job; the level of PgJobs
    by default. transaction: what opens a session or a connection; it is passed in, as ``session`` or the parameter that
    is annotated with such a type, the job completes in its transaction, and an exception rolls that back. results,
    results_over: where results of more than so many bytes are kept; those of PgJobs by default.
    """

    capture_logs: str | int | None
    transaction: Callable[[], Any]
    results: ResultStorage
    results_over: int


OF_ONE_JOB = ("job_id", "idempotency_key")
"""Options that no two jobs can share."""


def template(task: str, options: Options, *, stored_retry: bool, private: Collection[str] = ()) -> Template:
    """Merges options into what the rows will say.

    Args:
        stored_retry: keep the policy with the job, since its task does not have it.
        private: names of arguments that whoever shows the row is to leave out.

    Raises:
        OptionError: a value that cannot be meant.
    """
    retry = retry_of(options)
    unique = _unique(options)
    document: dict[str, Json] = {} if unique is None else unique.document()
    if lifo := _switch(options, "lifo"):
        document["lifo"] = True
    if stored_retry:
        document["retry"] = retry.document()
    if retry.for_ is not None:
        document["retry_for"] = seconds(retry.for_)
    if (keep := options.get("result_ttl")) is not None and (
        keep_s := seconds(keep, what="result_ttl")
    ) != DEFAULT_RESULT_TTL_S:
        document["keep"] = keep_s
    if private:
        document["private"] = sorted(private)
    document |= _said_of_the_end(options)
    if context := _object(options, "context"):
        document["context"] = context
    ttl_s, times = times_of(options)
    document |= times
    meta = _meta(options)
    return Template(
        task=task,
        queue=queue_name(options.get("queue", DEFAULT_QUEUE)),
        priority=priority_of(options.get("priority", 0)),
        max_attempts=retry.attempts,
        timeout=_timedelta(timeout_of(options), "timeout"),
        delay=_timedelta(options.get("delay"), "delay"),
        run_at=_run_at(options),
        ttl=_timedelta(ttl_s, "ttl"),
        options=codec.dumps(document, what="options") if document else None,
        meta=codec.dumps(meta, what="meta") if meta else None,
        lifo=lifo,
        unique=unique,
        here=_here(options),
        depth=depth_of(options),
    )


def _said_of_the_end(options: Options) -> dict[str, Json]:
    """What the row says of what becomes of the job when it has ended."""
    document: dict[str, Json] = {}
    if (by_end := keep_of(options.get("keep"))) is not None:
        document["keeps"] = dict(by_end.document())
    if _switch(options, "ignore_result"):
        document["ignore_result"] = True
    if (hooks := options.get("webhook")) is not None:
        document["webhook"] = hooks_of(hooks)
    return document


def _unique(options: Options) -> Unique | None:
    unique = unique_of(options.get("unique"))
    if options.get("idempotency_key") is None:
        return unique
    if unique is not None:
        raise OptionError("unique and idempotency_key are both given, and a job has one key; give one of them")
    return FOREVER


def of_one_job(options: Options) -> None:
    """Raises OptionError where options of a task say what no two jobs can share."""
    for name in OF_ONE_JOB:
        if name in options:
            raise OptionError(f"{name} belongs to one job; pass it with using({name}=…)")


def merged(own: Options, more: Options) -> Options:
    """A task's options under those of a call; of two that exclude each other, the call's."""
    options: Options = {**own, **more}
    if "delay" in more and "run_at" not in more:
        options.pop("run_at", None)
    if "run_at" in more and "delay" not in more:
        options.pop("delay", None)
    if more.get("idempotency_key") is not None and "unique" not in more:
        options.pop("unique", None)
    if isinstance(more.get("retry"), int) and isinstance(policy := own.get("retry"), Retry):
        options["retry"] = replace(policy, max_attempts=retry_of(more).attempts)
    return options


def keeps_retry(options: Options) -> bool:
    """Whether the options of a call have a policy that must be kept with the job."""
    return "retry" in options and not isinstance(options["retry"], int)


def retentions(options: Options) -> list[float]:
    """For how many seconds jobs are kept that have ended, each number that the options say."""
    ttl = options.get("result_ttl")
    keep = keep_of(options.get("keep"))
    said = [] if ttl is None else [seconds(ttl, what="result_ttl")]
    return said if keep is None else [*said, *keep.document().values()]


def own_key(options: Options, task: str) -> str | None:
    """The key that an idempotency key makes, if there is one."""
    key = options.get("idempotency_key")
    if key is None:
        return None
    if not isinstance(key, str) or not key:  # pyright: ignore[reportUnnecessaryIsInstance] - callers are not all typed
        raise OptionError(f"idempotency_key is {given(key)}; give a text of your own, such as str(request.id)")
    return checked_key(f"{task}:{key}", "idempotency_key")


def retry_of(options: Options) -> Retry:
    """The policy that options name, or the default.

    Raises:
        OptionError: neither a policy nor a number of attempts; None would be read as none, and mean without end.
    """
    value = options.get("retry", Retry())
    if isinstance(value, Retry):
        return value
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise OptionError(
            f"retry is {given(value)}; give the number of attempts, where 1 means no second one, or Retry(…)"
        )
    return Retry(value)


def log_level(value: str | int | None) -> int | None:
    """The number of one of logging's levels, in any case.

    Raises:
        OptionError: it is none.
    """
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    known = logging.getLevelNamesMapping()
    if not isinstance(value, str) or (number := known.get(value.upper())) is None:
        raise OptionError(f"level {given(value)} is not known; give one of debug, info, warning, error, critical")
    return number


def level_name(value: str | int) -> str:
    """The name of one of logging's levels, as it is stored; see ``log_level``."""
    return logging.getLevelName(log_level(value) or 0).lower()


def _timedelta(value: Duration | None, what: str) -> timedelta | None:
    return None if value is None else timedelta(seconds=seconds(value, what=what))


def timeout_of(options: Options) -> Duration | None:
    """How long an attempt may run.

    Raises:
        OptionError: no time at all.
    """
    timeout = options.get("timeout", DEFAULT_TIMEOUT_S)
    if timeout is not None and seconds(timeout, what="timeout") == 0:
        raise OptionError("timeout is 0; give the seconds that an attempt may run, or None for no limit")
    return timeout


def times_of(options: Options) -> tuple[float | None, dict[str, Json]]:
    """After how many seconds the job ends if it has not started, and what its row says of its times.

    A deadline ends a job that waits just as a ttl does, so the sooner of them counts. What runs late all the same is
    ended by nobody: its row says from when on it is late.

    Raises:
        OptionError: two of them cannot be meant together.
    """
    ttl_s = None if (ttl := options.get("ttl")) is None else seconds(ttl, what="ttl")
    deadline_s, soft_s = _positive(options, "deadline"), _positive(options, "soft_timeout")
    document: dict[str, Json] = {}
    on_expiry = options.get("on_expiry", "expire")
    if on_expiry not in ("expire", "fail", "run"):
        raise OptionError(f"on_expiry is {given(on_expiry)}; give 'expire', 'fail' or 'run'")
    if ttl_s == 0 and on_expiry != "run":
        raise OptionError("ttl is 0, and such a job could never start; give a length of time, or leave it out")
    if ttl_s is not None and on_expiry == "run":
        document["late"], ttl_s = ttl_s, None
    elif ttl_s is not None and on_expiry == "fail":
        document["on_expiry"] = on_expiry
    if deadline_s is not None:
        document["deadline"] = deadline_s
        ttl_s = deadline_s if ttl_s is None else min(ttl_s, deadline_s)
    if ttl_s is not None and (delay := options.get("delay")) is not None and seconds(delay, what="delay") >= ttl_s:
        what = "deadline" if ttl_s == deadline_s else "ttl"
        raise OptionError(
            f"delay is as long as the {what}, so no attempt could start; give a longer {what}, which counts from the "
            "enqueue, as the delay does"
        )
    if soft_s is not None:
        document["soft_timeout"] = soft_s
        timeout = timeout_of(options)
        if timeout is not None and seconds(timeout, what="timeout") <= soft_s:
            raise OptionError(
                "soft_timeout is as long as the timeout, which stops the attempt and is an hour where none is given; "
                "give a shorter one, or a longer timeout"
            )
    return ttl_s, document


def _positive(options: Options, name: Literal["deadline", "soft_timeout"]) -> float | None:
    if (value := options.get(name)) is None:
        return None
    if (value_s := seconds(value, what=name)) == 0:
        raise OptionError(f"{name} is 0; give a length of time, or leave it out")
    return value_s


def priority_of(value: int) -> int:
    """Returns a priority, or raises OptionError where it is none."""
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > MAX_PRIORITY:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise OptionError(f"priority is {given(value)}; give a whole number from -100 to 100, larger runs first")
    return value


def _run_at(options: Options) -> datetime | None:
    run_at = options.get("run_at")
    if run_at is None:
        return None
    if options.get("delay") is not None:
        raise OptionError("delay and run_at are both given; give one of them")
    if not isinstance(run_at, datetime) or run_at.utcoffset() is None:  # pyright: ignore[reportUnnecessaryIsInstance]
        what = ", without a time zone" if isinstance(run_at, datetime) else ""  # pyright: ignore[reportUnnecessaryIsInstance]
        raise OptionError(
            f"run_at is {given(run_at)}{what}; pass an aware datetime, such as datetime.now(UTC) + timedelta(hours=1)"
        )
    return run_at


def _here(options: Options) -> bool:
    if not _switch(options, "here"):
        return False
    for name in ("delay", "run_at", "lifo", "unique", "idempotency_key"):
        if options.get(name) not in (None, False):
            raise OptionError(f"here starts the job at once, and {name} is given too; give one of them")
    return True


def _switch(options: Options, name: Literal["lifo", "ignore_result", "here"]) -> bool:
    """An option that is either on or off, and off where it is not given."""
    value = options.get(name)
    return value is not None and switch(value, name)


def _object(options: Options, name: Literal["meta", "context"]) -> dict[str, Json]:
    value: Mapping[str, Json] | None = options.get(name)
    if value is not None and not isinstance(value, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise OptionError(f"{name} is {given(value)}; give a dict, which is stored as a JSON object")
    return dict(value or {})


def _meta(options: Options) -> dict[str, Json]:
    meta = _object(options, "meta")
    tags: Any = options.get("tags")
    if tags is None and (tags := meta.get("tags")) is None:
        return meta
    words = words_of(tags)
    return {**meta, "tags": words} if words else meta


def words_of(tags: object) -> list[str]:
    """Returns tags as they are stored, or raises OptionError where they are none."""
    several = isinstance(tags, list | tuple | set | frozenset)
    words: list[Any] = list(cast("Iterable[Any]", tags)) if several else [None]
    if not all(isinstance(word, str) and word for word in words):
        raise OptionError(f"tags are {given(tags)}; give a list of words")
    return words
