"""What a task is given beside its arguments: by the application's lifespan, or by a function for each run."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

from pgjobs.arguments.annotations import hints_of
from pgjobs.errors import OptionError


class Wanted:
    """Stands as the default of a parameter that a worker fills; see ``Resource``."""

    __slots__ = ("factory", "name")

    def __init__(self, what: str | Callable[..., Any] | None) -> None:
        self.name = what if isinstance(what, str) else None
        self.factory = what if callable(what) else None

    def __repr__(self) -> str:
        return "Resource()"


def Resource(what: str | Callable[..., Any] | None = None) -> Any:
    """The default of a parameter that is no argument of the job: the worker fills it, a direct call passes it by hand.

    Args:
        what: the name of what ``PgJobs(lifespan=…)`` yields, by default the parameter's own, or else the one thing that
            has the annotated type; or a function that makes it for each run. A generator function cleans up after the
            run. Such a function may want resources too.
    """
    return Wanted(what)


class Want(NamedTuple):
    """A parameter that a worker fills."""

    name: str
    hint: Any
    wanted: Wanted


def wants_of(function: Callable[..., Any]) -> list[Want]:
    """The parameters of a function that a worker fills."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (ValueError, TypeError):
        return []
    wanted = [parameter for parameter in parameters if isinstance(parameter.default, Wanted)]
    hints = hints_of(function, include_extras=False) if wanted else {}
    return [Want(parameter.name, hints.get(parameter.name), parameter.default) for parameter in wanted]


def look_up(want: Want, resources: Any) -> Any:
    """Finds a resource: by name, else by type.

    Raises:
        OptionError: there is none.
    """
    name = want.wanted.name or want.name
    known = _members(resources)
    if name in known:
        return known[name]
    if want.wanted.name is None and isinstance(want.hint, type):
        fitting = [value for value in known.values() if isinstance(value, want.hint)]
        if len(fitting) == 1:
            return fitting[0]
    given = ", ".join(known) or "nothing"
    raise OptionError(
        f"parameter {want.name!r} wants resource {name!r}; PgJobs(lifespan=…), or jobs.inline(…), gives {given}"
    )


def _members(resources: Any) -> Mapping[str, Any]:
    if isinstance(resources, Mapping):
        return cast("Mapping[str, Any]", resources)
    return getattr(resources, "__dict__", {})


def check(function: Callable[..., Any], resources: Any) -> None:
    """Makes sure that all is there that a function wants.

    Raises:
        OptionError: something is not.
    """
    for want in wants_of(function):
        if want.wanted.factory is not None:
            check(want.wanted.factory, resources)
        else:
            look_up(want, resources)
