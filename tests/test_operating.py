"""docs/operating.md: its example runs, and what it says of the commands is so."""

from __future__ import annotations

import re

import pytest

from pgjobs import PgJobs
from pgjobs.cli.check import command
from pgjobs.doctor import CHECKS
from tests.processes import ROOT

PAGE = (ROOT / "docs" / "operating.md").read_text()


def test_example_runs(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGJOBS_URL", database_url)
    (example,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    names: dict[str, object] = {"__name__": "example"}
    exec(compile(example, "operating.md", "exec"), names)
    jobs = names["jobs"]
    assert isinstance(jobs, PgJobs)
    jobs.close()


def test_every_option_of_check_is_described_with_its_default() -> None:
    for option in command.params:
        name, default = option.opts[-1], option.default
        if name.startswith(("--max", "--min", "--within")):
            (row,) = re.findall(rf"^\| `{name} .*$", PAGE, re.MULTILINE)
            assert row.endswith(f"| `{default}` |") or (name == "--max-failed" and row.endswith("| not |")), row


def test_number_of_checks_is_that_of_the_example() -> None:
    assert f"findings in {len(CHECKS)} checks" in PAGE
