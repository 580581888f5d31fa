"""Classes whose methods run by reference."""

from __future__ import annotations

from pgjobs import PgJobs

jobs = PgJobs()


class Report:
    name = "report"

    @classmethod
    def make(cls, year: int) -> str:
        return f"{cls.name} of {year}"

    @staticmethod
    async def add(a: int, b: int) -> int:
        return a + b

    def method(self) -> None:
        raise AssertionError

    @classmethod
    def _private(cls) -> None:
        raise AssertionError

    class Inner:
        @classmethod
        def make(cls) -> str:
            return "inner"


class Special(Report):
    name = "special"
