"""Finds the application that ``-A`` names: ``module:attribute``, a module, or a factory."""

from __future__ import annotations

import importlib
import os
import sys
from dataclasses import dataclass

from pgjobs.app import PgJobs
from pgjobs.errors import ConfigurationError
from pgjobs.queue import Queue
from pgjobs.running.registry import loaded_since
from pgjobs.task import Task


@dataclass(frozen=True, slots=True)
class Application:
    """An application's PgJobs, and the modules whose public functions may run."""

    jobs: PgJobs
    modules: frozenset[str]


def load(names: str) -> Application:
    """Imports the application.

    Args:
        names: ``module:attribute``, ``module`` or ``module:factory``; several, with commas, for tasks that stand in
            more modules.

    Raises:
        ConfigurationError: a module cannot be found, or has nothing of the sort; an error inside it is raised as it is.
    """
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    before = set(sys.modules)
    roots: list[str] = []
    found: list[PgJobs] = []
    for name in names.split(","):
        module_name, _, attribute = name.strip().partition(":")
        _import(module_name)
        roots.append(module_name)
        found += _instances(module_name, attribute)
    distinct = list(dict.fromkeys(found))
    if len(distinct) > 1:
        raise ConfigurationError(f"{names} has {len(distinct)} PgJobs; say which, as in -A {roots[0]}:jobs")
    return Application(distinct[0] if distinct else PgJobs(), frozenset(loaded_since(before, roots)))


def _import(name: str) -> None:
    if name.endswith(".py") or "/" in name or not all(name.split(".")):
        raise ConfigurationError(f"{name!r} is no module's name; {_as_module(name)}")
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise ConfigurationError(
                f"module {name!r} is not found from {os.getcwd()}; start in the project's folder, or install it"
            ) from None
        raise


def _as_module(file: str) -> str:
    path = os.path.relpath(file.removesuffix(".py") or "..")
    parts = [part for part in path.lstrip(".").split("/") if part not in ("", "__init__")]
    if parts and ".." not in path and all(part.isidentifier() for part in parts):
        return f"write -A {'.'.join(parts)}"
    return "start in the project's folder, and write -A app.tasks for app/tasks.py"


def _instances(module_name: str, attribute: str) -> list[PgJobs]:
    module = sys.modules[module_name]
    if not attribute:
        values = [value for name, value in vars(module).items() if not name.startswith("_")]
        return [value for value in values if isinstance(value, PgJobs)] or [
            value.jobs for value in values if isinstance(value, Queue)
        ]
    value = getattr(module, attribute, None)
    if callable(value) and not isinstance(value, PgJobs | Task):
        value = value()
    if isinstance(value, Queue):
        value = value.jobs
    if not isinstance(value, PgJobs):
        raise ConfigurationError(
            f"{module_name}:{attribute} is no PgJobs, nor does it return one; name the variable that holds it"
        )
    return [value]
