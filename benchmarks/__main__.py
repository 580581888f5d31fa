"""Takes the figures of docs/performance.md: ``python -m benchmarks`` (``make bench``), on an embedded PostgreSQL.

Durable: the server has its own defaults, in a directory of its own. Writes the table into the document, and every round
into docs/performance.json.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import tempfile
from pathlib import Path

from pgjobs import bench, embedded
from pgjobs.bench import Report

DOCS = Path(__file__).parents[1] / "docs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=50_000)
    options = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="pgjobs-bench-"))
    home.chmod(0o711)
    try:
        with embedded.server(home / "home") as url:
            report = bench.run(url, bench.standard(options.jobs), options.rounds, lambda name: print(f"  {name} ..."))
    finally:
        shutil.rmtree(home, ignore_errors=True)
    (DOCS / "performance.json").write_text(json.dumps(report.document(), indent=1) + "\n")
    write(report)


def write(report: Report) -> None:
    """Puts the table between the marks of the document."""
    path = DOCS / "performance.md"
    text = path.read_text()
    path.write_text(
        re.sub(
            r"(<!-- figures -->\n).*?(<!-- end of figures -->)",
            lambda match: match[1] + table(report) + match[2],
            text,
            flags=re.DOTALL,
        )
    )


def table(report: Report) -> str:
    """The figures in Markdown, with the shape of the machine."""
    shape = report.shape
    settings = ", ".join(f"`{name}` {value}" for name, value in shape["settings"].items())
    lines = [
        f"{shape['date'][:10]}; {shape['machine']}; Python {shape['python']}; {shape['server']}; {settings}.",
        "",
        "| What | Median | Rounds | |",
        "|---|---:|---|---|",
    ]
    for name, values in report.medians().items():
        (first, middle), *others = values.items()
        unit = report.units[name]
        rounds = sorted(taken[first] for taken in report.rounds[name])
        spread = f"{figure(rounds[0], unit)} – {figure(rounds[-1], unit)}"
        more = ", ".join(f"{key} {small(value)}" for key, value in others)
        lines.append(f"| {name.strip()} | {figure(middle, unit)} {unit} | {spread} | {more} |")
    return "\n".join(lines) + "\n"


def figure(value: float, unit: str) -> str:
    """A figure to three digits, as far as they mean something."""
    return f"{round(value, -2):,.0f}" if unit == "jobs/s" and value >= 1_000 else f"{value:,.1f}"


def small(value: float) -> str:
    """A figure beside another one."""
    return f"{value:,.0f}" if value >= 100 else f"{value:,.1f}" if value >= 1 else f"{value:.3f}"


if __name__ == "__main__":
    main()
