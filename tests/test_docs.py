"""docs/jobs.md: every example runs, as a module of its own that begins with the page's first block."""

from __future__ import annotations

import importlib
import itertools
import re
import sys
from pathlib import Path

import pytest

from pgjobs.options import Options
from tests.processes import ROOT

PAGE = (ROOT / "docs" / "jobs.md").read_text()
BEGIN, *EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
_numbers = itertools.count()


def titles() -> list[str]:
    """For each example the heading that it stands under."""
    parts = re.split(r"^```python\n.*?^```", PAGE, flags=re.MULTILINE | re.DOTALL)[1:]
    found, last = [], ""
    for part in parts[: len(EXAMPLES)]:
        last = (re.findall(r"^##+ (.*)$", part, re.MULTILINE) or [last])[-1]
        found.append(last)
    return found


@pytest.mark.parametrize("example", EXAMPLES, ids=titles())
def test_example_does_what_it_says(
    example: str, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGJOBS_URL", database_url)
    monkeypatch.syspath_prepend(str(tmp_path))
    name = f"example_{next(_numbers)}"
    (tmp_path / f"{name}.py").write_text(BEGIN + "\n\n" + example)
    try:
        importlib.import_module(name).jobs.close()
    finally:
        sys.modules.pop(name, None)


def test_every_option_has_an_example() -> None:
    headings = ", ".join(re.findall(r"^### (.*)$", PAGE, re.MULTILINE)).split(", ")
    missing = Options.__annotations__.keys() - set(headings)
    assert not missing
