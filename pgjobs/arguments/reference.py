"""Functions by reference, ``module:function`` or ``module:Class.method``: how they are named, and found."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any

from pgjobs.errors import TaskError


def reference(function: Callable[..., Any]) -> str:
    """The name under which a worker finds an undecorated function, classmethod or staticmethod.

    Raises:
        TaskError: a worker could not find it.
    """
    module, path = _place(function)
    why: str | None = None
    if not callable(function) or not (inspect.isfunction(function) or _is_classmethod(function)):
        why = "is not a plain function"
    elif "<lambda>" in path:
        why = "is a lambda, which has no name to import"
    elif "<locals>" in path:
        why = "is defined inside a function, where a worker cannot import it from"
    elif module == "__main__":
        why = "stands in the script that is running, which a worker cannot import"
    elif "." in path and resolve(module, path) is None:
        why = "is a method of an object, which a worker could not find; pgjobs.contrib.orm is for methods of rows"
    if why:
        raise TaskError(
            f"{path or repr(function)} {why}; move it to a module that the worker loads with -A, or decorate it"
        )
    return f"{module}:{path}"


def resolve(module: str, path: str) -> Any:
    """What stands under a path in a loaded module: a function, or a class's own class- or staticmethod; else None.

    Nothing is imported, and nothing that begins with an underscore or comes from another module is found.
    """
    *classes, last = path.split(".")
    owner: Any = sys.modules.get(module)
    for name in classes:
        owner = None if name.startswith("_") else getattr(owner, name, None)
        if not inspect.isclass(owner) or owner.__module__ != module:
            return None
    if last.startswith("_"):
        return None
    if classes and not isinstance(inspect.getattr_static(owner, last, None), classmethod | staticmethod):
        return None
    return getattr(owner, last, None)


def _place(function: Callable[..., Any]) -> tuple[str, str]:
    """The module and the path; a classmethod's is that of the class through which it was taken."""
    if _is_classmethod(function):
        owner: Any = function.__self__  # type: ignore[attr-defined] # pyright: ignore[reportFunctionMemberAccess]
        return owner.__module__, f"{owner.__qualname__}.{function.__name__}"
    return getattr(function, "__module__", ""), getattr(function, "__qualname__", "")


def _is_classmethod(function: object) -> bool:
    return inspect.ismethod(function) and inspect.isclass(function.__self__)
