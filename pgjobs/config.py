"""Settings: where the database is, what the defaults are, how durations and names are written."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Final, LiteralString, TypeAlias
from urllib.parse import quote, unquote

from pgjobs.errors import ConfigurationError, OptionError
from pgjobs.wording import given

Duration: TypeAlias = float | timedelta | str
"""Seconds, a timedelta, or text such as ``"90s"``, ``"10m"``, ``"1h30m"``, ``"2d"``."""

DEFAULT_QUEUE: Final = "default"
DEFAULT_SCHEMA: Final = "pgjobs"
SYNCHRONOUS_COMMIT: Final[tuple[LiteralString, ...]] = ("on", "off", "local", "remote_write", "remote_apply")
"""What PostgreSQL's setting of that name may be."""

SCHEMA_REVISION: Final = "0018"
"""The migration that this release works with."""

UNREADABLE: Final = (
    "the database's URL cannot be read; write postgresql://user:password@host/name, with %40 for @ and %2F for /"
)
"""Said without the URL, whose password may stand anywhere in it."""

DEFAULT_TIMEOUT_S: Final = 3600.0
DEFAULT_RESULT_TTL_S: Final = 86_400.0
DEFAULT_FAILED_TTL_S: Final = 30 * 86_400.0
MAX_DOCUMENT_BYTES: Final = 1_000_000
MAX_DOCUMENT_DEPTH: Final = 64
MAX_PRIORITY: Final = 100
"""Priorities reach from its negative to it."""

MAX_DURATION_S: Final = 100 * 365 * 86_400.0

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)\s*")
_QUEUE: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/@-]{0,99}")
_SCHEMA: Final = re.compile(r"[a-z_][a-z0-9_]{0,39}")


def seconds(value: Duration, *, what: str = "duration") -> float:
    """Returns a duration in seconds.

    Raises:
        OptionError: negative, not finite, over a hundred years, or text in no known form.
    """
    if isinstance(value, timedelta):
        result = value.total_seconds()
    elif isinstance(value, str):
        result = _parse(value, what)
    elif isinstance(value, bool) or not isinstance(value, int | float):  # pyright: ignore[reportUnnecessaryIsInstance] - callers are not all typed
        raise OptionError(f"{what} is {given(value)}; give seconds, a timedelta, or text such as '10m'")
    else:
        result = float(value) if abs(value) <= MAX_DURATION_S else math.inf  # it may fit no float
    if not math.isfinite(result) or not 0 <= result <= MAX_DURATION_S:
        raise OptionError(f"{what} is {given(value)}; give a length of time from 0 to a hundred years")
    return result


def switch(value: bool, what: str) -> bool:
    """Returns what is either on or off, or raises OptionError; the text ``false`` would be on."""
    if not isinstance(value, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise OptionError(f"{what} is {given(value)}; give True or False")
    return value


def _parse(text: str, what: str) -> float:
    parts = _PART.findall(text)
    if not parts or _PART.sub("", text).strip():
        raise OptionError(f"{what} is {given(text)}; write it as '90s', '10m', '1h30m' or '2d'")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def queue_name(name: str) -> str:
    """Returns the name of a queue, or raises OptionError: letters, digits and ``_ . : / @ -``, 100 at most."""
    if not isinstance(name, str) or not _QUEUE.fullmatch(name):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise OptionError(
            f"queue {given(name)} is not a name; use letters, digits and _ . : / @ -, 100 characters at most"
        )
    return name


def schema_name(name: str) -> str:
    """Returns the name of a schema, or raises ConfigurationError: lower-case letters, digits and ``_``, 40 at most."""
    if not isinstance(name, str) or not _SCHEMA.fullmatch(name):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigurationError(
            f"schema {name!r} is not a name; use lower-case letters, digits and _, 40 characters at most"
        )
    return name


def find_url(environ: Mapping[str, str] = os.environ) -> str:
    """Returns the database's URL from PGJOBS_URL, DATABASE_URL or libpq's PG* variables.

    Raises:
        ConfigurationError: none of them is set.
    """
    for name in ("PGJOBS_URL", "DATABASE_URL"):
        if url := environ.get(name):
            return normal_url(url)
    if any(environ.get(name) for name in ("PGHOST", "PGSERVICE", "PGDATABASE", "PGUSER")):
        return ""
    raise ConfigurationError(
        "no database is named; set PGJOBS_URL or DATABASE_URL (postgresql://user@host/name), set PGHOST and its like, "
        "pass PgJobs('postgresql://…'), or use 'embedded:' for a server of your own "
        "(pip install 'pgjobs-queue[embedded]')"
    )


def normal_url(url: str) -> str:
    """Returns the URL as libpq reads it: SQLAlchemy's ``postgresql+driver://`` and ``postgres://`` are understood.

    So is its way to name several hosts, ``?host=a:5432&host=b:5432``, of which libpq would take the last alone.

    Raises:
        ConfigurationError: there is an @ too many, so that libpq would take a part of the password for the host.
    """
    url = re.sub(r"^postgres(?:ql)?(?:\+\w+)?://", "postgresql://", url)
    if url.startswith("postgresql://") and "@" in _behind_login(url):
        raise ConfigurationError(UNREADABLE)
    base, _, query = url.partition("?")
    options = query.split("&")
    hosts = [unquote(option.removeprefix("host=")) for option in options if option.startswith("host=")]
    if len(hosts) < 2:
        return url
    names, ports = zip(*(_host_and_port(host) for host in hosts), strict=True)
    others = [option for option in options if not option.startswith(("host=", "port="))]
    return f"{base}?" + "&".join([*others, f"host={quote(','.join(names), safe=',')}", f"port={','.join(ports)}"])


def _behind_login(url: str) -> str:
    """Host and name of a URL, where libpq sees them: the login ends with the first @, if no / comes before."""
    rest = url.removeprefix("postgresql://")
    login, at, behind = rest.partition("@")
    return (behind if at and "/" not in login else rest).partition("?")[0]


def _host_and_port(text: str) -> tuple[str, str]:
    """Splits ``host:port``; a port that is left out is libpq's own."""
    host, _, port = text.partition(":")
    return host, port
