"""Results that are kept elsewhere than in the row: large ones, or all."""

from __future__ import annotations

import inspect
from typing import Any, Final, Protocol, cast
from uuid import UUID

from pgjobs.arguments import codec
from pgjobs.arguments.codec import Json
from pgjobs.errors import OptionError, ResultStorageError
from pgjobs.wording import given

RESULTS_OVER: Final = 100_000
"""Bytes of JSON from which on a result goes to the storage, if there is one."""

_KEY: Final = "$stored"


class ResultStorage(Protocol):
    """Where results can be kept: an object store, a file system. Both methods are called from any thread."""

    def get(self, job_id: UUID) -> bytes | None:
        """What was stored for a job; None if it is gone."""
        ...

    def set(self, job_id: UUID, data: bytes, ttl_s: float) -> None:
        """Stores the result of a job, in place of an earlier one, for so long at least."""
        ...


def storage_of(value: Any) -> ResultStorage | None:
    """What ``results`` may be.

    Raises:
        OptionError: it is no storage.
    """
    if value is not None and not (callable(getattr(value, "get", None)) and callable(getattr(value, "set", None))):
        raise OptionError(f"results is {given(value)}; give an object with get(job_id) and set(job_id, data, ttl_s)")
    if value is not None and (inspect.iscoroutinefunction(value.get) or inspect.iscoroutinefunction(value.set)):
        raise OptionError(
            f"results is {given(value)}, whose get or set is async; give plain functions, which are called on threads"
        )
    return cast("ResultStorage | None", value)


def over_of(value: Any, what: str = "results_over") -> int:
    """What ``results_over`` may be, or another limit.

    Raises:
        OptionError: it is no number of bytes.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise OptionError(f"{what} is {given(value)}; give a number of bytes")
    return value


def is_reference(value: Json) -> bool:
    """Whether a result only says that it is kept elsewhere."""
    return isinstance(value, dict) and list(cast("dict[str, Any]", value)) == [_KEY]


def put(storage: ResultStorage, job_id: UUID, value: Json, text: str, over: int, ttl_s: float) -> Json:
    """Stores the text of a result that is larger than so many bytes; returns what the row shall hold.

    Raises:
        ResultStorageError: the storage has failed; the attempt has too, and is tried again as its policy says.
    """
    data = text.encode()
    if len(data) <= over and not is_reference(value):
        return value
    try:
        returned: Any = cast("Any", storage).set(job_id, data, ttl_s)
        if inspect.isawaitable(returned):
            raise TypeError("set returns what would have to be awaited, and stores nothing")
    except Exception as error:
        raise ResultStorageError(
            f"the result of job {job_id} ({len(data):,} bytes) could not be stored by "
            f"{type(storage).__name__}: {error}; the attempt has failed, rather than to lose it"
        ) from error
    return {_KEY: {"bytes": len(data)}}


def fetch(storage: ResultStorage | None, job_id: UUID, value: Json) -> Json:
    """Reads what a reference stands for.

    Raises:
        ResultStorageError: there is no storage, it has failed, or the result is gone.
    """
    if storage is None:
        return value
    try:
        data = storage.get(job_id)
    except Exception as error:
        raise ResultStorageError(
            f"the result of job {job_id} could not be read by {type(storage).__name__}: {error}; try again"
        ) from error
    if data is None:
        raise ResultStorageError(f"the result of job {job_id} is gone from {type(storage).__name__}; keep it longer")
    given_back: Any = data
    result = codec.loads(given_back) if isinstance(given_back, bytes | str) else codec.Unreadable()
    if isinstance(result, codec.Unreadable):
        raise ResultStorageError(
            f"what {type(storage).__name__} has for job {job_id} is not what was stored, no JSON; have get return "
            "the bytes that set was given"
        )
    return result
