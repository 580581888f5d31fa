"""What a function's annotations mean, each for itself: one that cannot be evaluated says nothing of the others."""

from __future__ import annotations

import inspect
import types
import typing
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Unevaluated:
    """Stands for an annotation that cannot be evaluated."""

    why: str


def hints_of(function: Callable[..., Any], *, include_extras: bool = True) -> dict[str, Any]:
    """The annotations of parameters and result, by name."""
    try:
        return typing.get_type_hints(function, include_extras=include_extras)
    except Exception:  # whatever an annotation raises that is a text
        written: Mapping[str, Any] = getattr(function, "__annotations__", {})
        return {name: _alone(function, hint, include_extras) for name, hint in written.items()}


def _alone(function: Callable[..., Any], hint: Any, include_extras: bool) -> Any:
    scope = getattr(inspect.unwrap(function), "__globals__", {})
    generic = getattr(function, "__type_params__", ())
    one = types.SimpleNamespace(__annotations__={"hint": hint}, __globals__=scope, __type_params__=generic)
    try:
        return typing.get_type_hints(one, include_extras=include_extras)["hint"]
    except Exception as error:
        return Unevaluated(str(error) or type(error).__name__)


def warn_of_unevaluated(function: Callable[..., Any], hints: Mapping[str, Any], names: Collection[str]) -> None:
    """Warns, at the function's own line, of parameters whose arguments nobody can check."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    for name in names:
        if code is not None and isinstance(hint := hints.get(name), Unevaluated):
            warnings.warn_explicit(
                f"annotation of {name} cannot be evaluated: {hint.why}; import it outside TYPE_CHECKING, and define it "
                f"above {function.__qualname__}. Until then its values are not checked, and nowhere shown",
                RuntimeWarning,
                code.co_filename,
                code.co_firstlineno,
            )
