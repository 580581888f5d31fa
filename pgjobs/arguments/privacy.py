"""Arguments that nobody is to read over somebody's shoulder: which they are, and what stands in their place."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Collection, Mapping
from typing import Any, Final

from pgjobs.arguments.annotations import Unevaluated
from pgjobs.arguments.codec import Json
from pgjobs.errors import OptionError

MASK: Final = "[private]"
POSITIONALS: Final = "*"
"""The key in args under which positional arguments without a parameter name stand."""

ANY_NAME: Final = "**"
"""Stands among private names for all that a private ``**kwargs`` takes."""


class Private:
    """Marks a parameter whose values pgjobs is to show nowhere: ``password: Annotated[str, Private]``.

    They are stored like others; ``@jobs.task(encrypt=True)`` is for what the database is not to know.
    """


def private_names(
    function: Any, hints: Mapping[str, Any], parameters: Collection[inspect.Parameter], given: Collection[str]
) -> frozenset[str]:
    """The names in args whose values are private: the parameters that are marked, and those that are given by name.

    A parameter whose annotation cannot be evaluated may be marked, and so it counts as marked.

    Raises:
        OptionError: a given name is no parameter's.
    """
    given = {given} if isinstance(given, str) else set(given)
    found = {p.name for p in parameters if _is_marked(hints.get(p.name, p.annotation))}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    if not takes_any and (unknown := given - {p.name for p in parameters}):
        raise OptionError(f"private names {min(unknown)!r}, which is no parameter of {function.__qualname__}")
    return frozenset(_stored_name(name, parameters) for name in found | given)


def _is_marked(hint: Any) -> bool:
    if isinstance(hint, Unevaluated):
        return True
    if isinstance(hint, str):
        return re.search(rf"\b{Private.__name__}\b", hint) is not None
    if typing.get_origin(hint) is typing.Annotated:
        base, *marks = typing.get_args(hint)
        return any(mark is Private or isinstance(mark, Private) for mark in marks) or _is_marked(base)
    return any(_is_marked(inner) for inner in typing.get_args(hint) if not isinstance(inner, str))


def _stored_name(name: str, parameters: Collection[inspect.Parameter]) -> str:
    kind = next((p.kind for p in parameters if p.name == name), None)
    if kind is inspect.Parameter.VAR_POSITIONAL:
        return POSITIONALS
    return ANY_NAME if kind is inspect.Parameter.VAR_KEYWORD else name


def masked(args: Mapping[str, Json], names: Collection[str]) -> dict[str, Json]:
    """Arguments as they may be shown. What came by position and without a name may be any of them."""
    if not names:
        return dict(args)
    hidden = {POSITIONALS, *names}
    return {name: MASK if name in hidden or ANY_NAME in names else value for name, value in args.items()}


def unmasked(args: Mapping[str, Json], original: Mapping[str, Json]) -> dict[str, Json]:
    """Arguments changed by somebody who did not see the private ones: where the mask was left, they are as before."""
    return {name: original.get(name, value) if value == MASK else value for name, value in args.items()}


class _Mask:
    def __repr__(self) -> str:
        return MASK


def shown_signature(signature: inspect.Signature, names: Collection[str]) -> inspect.Signature:
    """The signature as a message may quote it: private parameters have defaults that may not be seen either."""
    return signature.replace(
        parameters=[
            parameter.replace(default=_Mask())
            if parameter.name in names and parameter.default is not parameter.empty
            else parameter
            for parameter in signature.parameters.values()
        ]
    )


_PLACE: Final = re.compile(r"- at `(?:key` in `)?\$(?:\.(\w+))?[^`]*`\Z")


def misfit(text: str, names: Collection[str], *, all_private: bool) -> str:
    """What may be said of an argument that does not fit: msgspec's text, which may quote it, or the name alone."""
    place = _PLACE.search(text)
    name = place[1] if place else None
    if not all_private and (not names or (name is not None and name not in names and ANY_NAME not in names)):
        return text
    return f"{name or 'an argument'} does not fit its annotation (it is private, so no more is said)"


def unstorable_name(path: str, names: Collection[str]) -> str | None:
    """The private argument that a path of JSON leads into, whose keys may be private too; None where it is none."""
    match = re.match(r"\$\.(\*|\w+)", path)
    if match is None or not (ANY_NAME in names or match[1] in names):
        return None
    return match[1]
