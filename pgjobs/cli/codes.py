"""Exit codes, and which error ends in which."""

from __future__ import annotations

import errno
from typing import Final

OK: Final = 0
FAILURE: Final = 1
USAGE: Final = 2
UNREACHABLE: Final = 3
OUT_OF_DATE: Final = 5

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Errors of a disk that is full, or as full as somebody may make it."""


def outage(error: Exception) -> str:
    """What is said of an error that a command outlives, because the database may come back.

    Raises:
        Exception: it is another one.
    """
    if of(error) != UNREACHABLE:
        raise error
    return f"the database is out of reach, trying again: {(str(error).splitlines() or [type(error).__name__])[0]}"


def said(error: BaseException) -> str:
    """An error as the command line says it."""
    from psycopg.errors import InsufficientPrivilege

    from pgjobs.connections.database import refused

    match error:
        case InsufficientPrivilege():
            return refused(error)
        case OSError() if error.errno in FULL:
            return f"what it writes finds no room: {error.strerror}"
        case _:
            return str(error).strip()


def of(error: BaseException) -> int | None:
    """The exit code for an error; None for one that is a fault of ours, and keeps its traceback."""
    from psycopg import OperationalError
    from psycopg.errors import InsufficientPrivilege

    from pgjobs import errors
    from pgjobs.connections.database import is_away
    from pgjobs.embedded import EmbeddedServerError

    usage = (
        errors.ConfigurationError,
        errors.OptionError,
        errors.TaskError,
        errors.ArgumentsError,
        errors.EncodingError,
    )
    match error:
        case errors.SchemaError():
            return OUT_OF_DATE
        case OperationalError() | EmbeddedServerError():
            return UNREACHABLE
        case _ if is_away(error):
            return UNREACHABLE
        case _ if isinstance(error, usage):
            return USAGE
        case errors.PgJobsError() | InsufficientPrivilege():
            return FAILURE
        case _:
            return FAILURE if isinstance(error, OSError) and error.errno in FULL else None
