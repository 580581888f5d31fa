"""docs/reliability.md: what stands between its marks is written from docs/reliability.json."""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from tests.chaos.faults import FAULTS

DOCS: Final = Path(__file__).parents[2] / "docs"
DATA: Final = DOCS / "reliability.json"
PAGE: Final = DOCS / "reliability.md"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def campaign(result: dict[str, Any]) -> str:
    """What was injected, and what was found."""
    title = f"{result['jobs']:,} jobs, seed {result['seed']}, {result['minutes']} minutes"
    if "date" in result:
        title += f"; {result['date']}, {result['machine']}"
    parts = [title + "."]
    what = {fault.name: fault.what for fault in FAULTS}
    if result["faults"]:
        rows = [[name, what[name], str(result["faults"][name])] for name in what if name in result["faults"]]
        parts.append(table(["Fault", "", "Times"], rows))
    rows = [
        [promise["name"], promise["tried"], promise["found"], "" if promise["kept"] else "**broken**"]
        for promise in result["promises"]
    ]
    parts.append(table(["Promise", "Put to the test", "Found", ""], rows))
    return "\n\n".join(parts)


def keep(name: str, result: dict[str, Any]) -> None:
    """Keeps a campaign's result, and writes the page anew."""
    data = json.loads(DATA.read_text()) if DATA.exists() else {}
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    data[name] = result | {"date": datetime.now(UTC).date().isoformat(), "machine": machine}
    DATA.write_text(json.dumps(data, indent=1) + "\n")
    replace(name, campaign(data[name]))


def replace(name: str, text: str) -> None:
    """Writes what stands between two marks of the page."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    page = PAGE.read_text()
    before, rest = page.split(begin)
    PAGE.write_text(f"{before}{begin}\n{text}\n{end}{rest.split(end)[1]}")
