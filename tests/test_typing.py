"""What an editor sees: a task keeps its function's own signature and result."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT

PROGRAM = """
from pgjobs import PgJobs, Queue

jobs = PgJobs()

@jobs.task
def add(a: int, b: int = 2) -> str: ...

@jobs.task(queue="mail", priority=3)
async def send(to: str) -> list[int]: ...

def plain(a: int) -> bytes: ...

async def aplain(to: str) -> set[str]: ...

async def use() -> None:
    reveal_type(add(1))
    reveal_type(add.enqueue(1, b=2).get())
    reveal_type(await send("ann"))
    reveal_type(await (await send.aenqueue("ann")).aget())
    reveal_type(add.using(delay="10m").enqueue(1).get())
    reveal_type(jobs.enqueue(plain, 1).get())
    reveal_type(jobs.enqueue(send, "ann").get())
    reveal_type(jobs.enqueue(aplain, "ann").get())
    reveal_type(Queue().enqueue(plain, 1).get())
    reveal_type(add.enqueue_many([(1,), {"a": 2}]))
    add.enqueue("x")
    send.using(priority=1).enqueue(1)
    add.using(colour="red")
    jobs.enqueue(plain, "x")
    jobs.task(executor="nowhere")(plain)
"""

TYPES = [
    "str",
    "str",
    "list[int]",
    "list[int]",
    "str",
    "bytes",
    "Any",  # mypy, for want of a choice between overloads that both fit a coroutine; pyright finds list[int]
    "set[str]",
    "bytes",
    "list[uuid.UUID]",
]


@pytest.mark.slow
def test_signature_and_result_are_the_functions_own(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file", "", "--cache-dir", tmp_path, "program.py"],
        cwd=tmp_path,
        env={"MYPYPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("program.py")]
    revealed = [line.split('"')[1].replace("builtins.", "") for line in lines if "Revealed type" in line]
    errors = [line.split(" error: ")[1] for line in lines if " error: " in line and "empty-body" not in line]
    assert revealed == TYPES, done.stdout
    assert len(errors) == 5, done.stdout
    for error, words in zip(
        errors,
        ('"str"; expected "int"', '"int"; expected "str"', "colour", "No overload", "No overload"),
        strict=True,
    ):
        assert words in error
