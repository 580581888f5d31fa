"""Where the database is: what the application passed, or what the environment says."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgjobs import embedded
from pgjobs.config import find_url, normal_url
from pgjobs.errors import OptionError

if TYPE_CHECKING:
    from psycopg_pool import AsyncConnectionPool, ConnectionPool

Kind: TypeAlias = Literal["engine", "pool", "async-pool"]

_KINDS: dict[tuple[str, str], Kind] = {
    ("sqlalchemy", "Engine"): "engine",
    ("sqlalchemy", "AsyncEngine"): "engine",
    ("psycopg_pool", "ConnectionPool"): "pool",
    ("psycopg_pool", "AsyncConnectionPool"): "async-pool",
}


@dataclass(frozen=True, slots=True)
class Source:
    """A database as libpq finds it, with the application's own pool for it where it has given one."""

    url: str
    pool: ConnectionPool[Any] | None = None
    async_pool: AsyncConnectionPool[Any] | None = None


def find(given: object) -> Source:
    """Finds the database: from a URL, an Engine or a pool; from the environment where nothing is given.

    Starts the embedded server, or joins it, where the URL is ``embedded:``.

    Raises:
        ConfigurationError: nothing names a database.
        OptionError: the value cannot name one.
        EmbeddedServerError: the embedded server cannot be started.
    """
    if given is None:
        return Source(_writable(embedded.resolve(find_url())))
    if isinstance(given, str):
        return Source(_writable(embedded.resolve(normal_url(given))))
    known = cast("Any", given)
    match kind_of(given):
        case "engine":
            return Source(_writable(normal_url(known.url.render_as_string(hide_password=False))))
        case "pool":
            return Source(known.conninfo, pool=known)
        case "async-pool":
            return Source(known.conninfo, async_pool=known)
        case None:
            raise OptionError(
                f"{type(given).__name__} is no database; pass a URL, an Engine, an AsyncEngine or a psycopg pool"
            )


def _writable(url: str) -> str:
    """Of several hosts the one that takes writes is meant, unless the URL or the environment says otherwise."""
    if "," not in url or "PGTARGETSESSIONATTRS" in os.environ:
        return url
    known = conninfo_to_dict(url)
    if "," not in str(known.get("host") or "") or "target_session_attrs" in known:
        return url
    return make_conninfo(url, target_session_attrs="read-write")


def kind_of(value: object) -> Kind | None:
    """What kind of source an object is; None for what is none, a URL included."""
    for cls in type(value).__mro__:
        if kind := _KINDS.get((cls.__module__.split(".")[0], cls.__name__)):
            return kind
    return None
