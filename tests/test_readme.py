"""What the README says: its code runs, its SQL answers, and its links lead to tests that exist."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from pgjobs import PgJobs, Status, current_job
from pgjobs.cli import COMMANDS
from tests.processes import ROOT, WorkerProcess, environment

README = (ROOT / "README.md").read_text()
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert found
    return found


class Base(DeclarativeBase):
    pass


class Customer(Base):
    __tablename__ = "customers"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Charge(Base):
    __tablename__ = "charges"
    order: Mapped[int] = mapped_column(primary_key=True)


@pytest.mark.server
def test_code_of_the_readme_runs(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, conn: psycopg.Connection[Any]
) -> None:
    app, later, in_transaction, exactly_once, executors = blocks("python")
    monkeypatch.setenv("PGJOBS_URL", database_url)
    monkeypatch.chdir(tmp_path)
    Path("customers.csv").write_text("ann\nbob\n")
    Path("ann.csv").write_text("ann\n")
    engine = sa.create_engine(database_url.replace("postgresql://", "postgresql+psycopg://"))
    Base.metadata.create_all(engine)
    names: dict[str, Any] = {"__name__": "app", "Session": Session, "engine": engine, "Customer": Customer}
    names |= {"Charge": Charge, "current_job": current_job}
    exec(compile(app, "app.py", "exec"), names)
    jobs: PgJobs = names["jobs"]
    names["job_id"] = names["upload"]("customers.csv")
    exec(in_transaction, names)
    exec(exactly_once, names)
    exec(executors, names)
    assert names["render"].executor == "process"
    del jobs.tasks[names["render"].name]  # what exec has defined no process can import
    charge = names["charge"].enqueue(7)
    jobs.worker(burst=True).run()
    exec(later, names)
    assert names["job"].result == 2
    assert charge.refresh().status is Status.SUCCEEDED
    assert conn.execute("SELECT count(*) FROM charges").fetchone() == (1,)
    assert conn.execute("SELECT name FROM customers").fetchall() == [("Ann",)]
    assert conn.execute("SELECT result FROM pgjobs.jobs WHERE priority = 10").fetchone() == (1,)
    jobs.close()
    engine.dispose()


@pytest.mark.server
def test_sql_of_the_readme_answers(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    from_sql, reports = blocks("sql")
    conn.execute(from_sql.encode())
    assert conn.execute("SELECT task, status FROM pgjobs.jobs").fetchall() == [("app.import_customers", "scheduled")]
    seen: list[int] = []

    @jobs.task(retry=1)
    def look(fail: bool) -> None:
        if fail:
            raise ValueError
        for query in reports.split(";")[:-1]:
            with psycopg.connect(jobs.database.url) as own:
                seen.append(len(own.execute(query.encode()).fetchall()))

    look.enqueue(True)
    look.enqueue(False)
    jobs.worker(burst=True, concurrency=1).run()
    look.enqueue(False)
    seen.clear()
    jobs.worker(burst=True, concurrency=1).run()
    assert len(seen) == 5
    assert all(seen), "each report has something to say"


def test_commands_of_the_readme_are_there() -> None:
    used = set(
        re.findall(r"pgjobs (\w+)", "\n".join(re.findall(r"`pgjobs [^`]*`|^\$ pgjobs .*$", README, re.MULTILINE)))
    )
    assert used >= {"worker", "info", "jobs", "enqueue", "migrate"}
    assert used <= set(COMMANDS)


def functions(code: str) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(code)) if isinstance(node, ast.FunctionDef)}


def anchors(text: str) -> set[str]:
    """What GitHub names the headings of a document."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", document.read_text()):
        if target.startswith("https://"):
            continue
        path, _, name = target.partition("#")
        file = document.parent / path
        assert file.exists(), target
        if name:
            assert name in (anchors if file.suffix == ".md" else functions)(file.read_text()), target


def test_every_promise_and_every_claim_has_its_test() -> None:
    promises = README.split("| Promise | Test |")[1].split("\n\n")[0].splitlines()[2:]
    claims = README.split("| Complaint | Here |")[1].split("\n\n")[0].splitlines()[2:]
    assert len(promises) >= 8
    assert len(claims) >= 8
    for line in promises + [claim for claim in claims if "**Ours:**" not in claim]:
        assert "](tests/" in line, line


def test_readme_is_read_in_fifteen_minutes() -> None:
    assert len(re.findall(r"\w+", README)) < 3_000, "at 200 words a minute"


@pytest.mark.server
@pytest.mark.slow
def test_examples_run(database_url: str, conn: psycopg.Connection[Any]) -> None:
    examples = ROOT / "examples"

    def run(name: str) -> str:
        return subprocess.run(
            [sys.executable, f"{name}.py"],
            cwd=examples,
            env=environment(database_url),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout

    assert {path.stem for path in examples.glob("*.py")} == {"quickstart", "exactly_once"}
    with WorkerProcess(database_url, app="quickstart", cwd=examples).ready():
        assert "imported: 500" in run("quickstart")
    run("exactly_once")
    with WorkerProcess(database_url, "--burst", app="exactly_once", cwd=examples) as worker:
        assert worker.leave() == 0
    assert conn.execute("SELECT order_no, cents FROM charges").fetchall() == [(1, 995)]
    assert conn.execute("SELECT result FROM pgjobs.jobs WHERE task LIKE '%%charge'").fetchone() == ({"charged": 995},)
