"""What an editor sees: a task keeps its function's own signature and result."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
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


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A folder with what a user downloads."""
    build = [sys.executable, "-m", "build", "--wheel", "--sdist", "--no-isolation"]
    subprocess.run([*build, "--outdir", str(tmp_path / "dist"), str(ROOT)], check=True, capture_output=True)
    return tmp_path / "dist"


@pytest.fixture
def installed(built: Path, tmp_path: Path) -> Path:
    """The Python of an environment that has the package as a user has it, from the wheel."""
    environment = tmp_path / "venv"
    venv.create(environment)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(environment)}))
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    (wheel,) = built.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(packages)
    return environment / "bin" / "python"


@pytest.mark.slow
def test_what_is_published_says_that_it_is_typed(built: Path) -> None:
    (wheel,), (source,) = built.glob("*.whl"), built.glob("*.tar.gz")
    assert "pgjobs/py.typed" in zipfile.ZipFile(wheel).namelist()
    with tarfile.open(source) as files:
        assert any(name.endswith("/pgjobs/py.typed") for name in files.getnames())


@pytest.mark.slow
def test_signature_and_result_are_the_functions_own(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, "-m", "mypy", "--strict", "--python-executable", installed, "--config-file", ""]
    done = subprocess.run(
        [*command, "--cache-dir", tmp_path / "cache", "program.py"],
        cwd=tmp_path,
        env={"PATH": ""},
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
