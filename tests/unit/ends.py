"""Ends of a function of which an outcome is hard to make."""

from __future__ import annotations

from typing import Any


class UntouchableError(Exception):
    """Nothing can be asked of it."""

    def __getattribute__(self, name: str) -> Any:
        raise SystemExit(name)


class TracelessError(Exception):
    """Its traceback cannot be asked for."""

    def __getattribute__(self, name: str) -> Any:
        if name == "__traceback__":
            raise LookupError(name)
        return super().__getattribute__(name)


class Exiting:
    """A model of the application that ends its process when it is made into JSON."""

    def model_dump(self, mode: str) -> Any:
        raise SystemExit(mode)

    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        return {}


def nested(error: Exception, depth: int = 3_000) -> Exception:
    """An exception in a group in a group, and so on."""
    for _ in range(depth):
        error = ExceptionGroup("", [error])
    return error


def raise_nested() -> None:
    raise nested(ValueError("innermost"))


def raise_untouchable() -> None:
    raise UntouchableError


def raise_traceless() -> None:
    raise TracelessError("it has a text")


def give_exiting() -> Exiting:
    return Exiting()


ENDS: dict[Any, tuple[str, str]] = {
    raise_nested: ("failed", "error"),
    raise_untouchable: ("failed", "error"),
    raise_traceless: ("failed", "error"),
    give_exiting: ("failed", "unstorable result"),
}
