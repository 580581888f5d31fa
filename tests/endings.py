"""docs/endings.md: what is in it, read and written. ``python -m tests.endings`` takes it anew."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "endings.md"
EXECUTORS = ("async", "thread", "process")

HEAD = """\
# Every way a run can end

Each cell is a test (`tests/test_endings.py`), which fails if what it sees is not what stands here; the times are from
the last `make endings`, on two shared cores, and each row has the limit that its tests hold it to.

A cell says how the job stands in the table (and why), `a` its attempts, `c` its crashes, what two neighbours in the
same process have seen, and how long it took from the cause (where another worker starts: from when it is ready) until
the outcome stood in the table. Neighbours:
*undisturbed* ran on; *run again* were given back and started anew, with nothing charged; *charged* had a crash charged,
ran again in a process of their own, and succeeded. "For long" is a minute (twelve seconds in the suite). Jobs have one
attempt (`retry=1`) unless the row says otherwise; a crash is no attempt, and a job is given up after three.

"""


@dataclass(frozen=True)
class Cell:
    """What became of one job. seconds is from the cause to the outcome."""

    row: str
    executor: str
    status: str
    reason: str | None
    attempts: int
    crashes: int
    neighbours: str
    limit_s: float
    seconds: float

    @property
    def outcome(self) -> str:
        """All but the time, as the document says it."""
        why = f" ({self.reason})" if self.reason else ""
        return f"{self.status}{why}, a {self.attempts}, c {self.crashes}; {self.neighbours}"

    def __str__(self) -> str:
        return f"{self.outcome}; {self.seconds:.1f} s"


def known() -> dict[tuple[str, str], str]:
    """The outcomes that stand in the document, by row and executor."""
    found: dict[tuple[str, str], str] = {}
    for line in DOCUMENT.read_text().splitlines() if DOCUMENT.exists() else []:
        columns = [column.strip() for column in line.strip("|").split(" | ")]
        if len(columns) == 5:
            found |= {
                (columns[0], executor): re.sub(r"; [\d.]+ s$", "", text)
                for executor, text in zip(EXECUTORS, columns[2:], strict=True)
            }
    return found


def main() -> None:
    """Runs the tests and writes what they have seen."""
    with tempfile.TemporaryDirectory() as directory:
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-n",
            "2",
            "tests/test_endings.py",
            "-k",
            "run_that",
            *sys.argv[1:],
        ]
        subprocess.run(
            command, cwd=ROOT, env={"PGJOBS_LONG_S": "60", **os.environ, "PGJOBS_ENDINGS": directory}, check=True
        )
        cells = [Cell(**json.loads(path.read_text())) for path in Path(directory).iterdir()]
    from tests.test_endings import ROWS

    lines = ["| the run | limit | async | thread | process |", "|---|---|---|---|---|"]
    for row in ROWS:
        of_row = {cell.executor: cell for cell in cells if cell.row == row.title}
        columns = [str(of_row.get(executor, "does not apply")) for executor in EXECUTORS]
        lines.append(f"| {row.title} | {row.limit_s:g} s | {' | '.join(columns)} |")
    DOCUMENT.write_text(HEAD + "\n".join(lines) + "\n")


def keep(cell: Cell) -> None:
    """Writes a cell for ``main``, where it asks for it."""
    if directory := os.environ.get("PGJOBS_ENDINGS"):
        name = re.sub(r"\W+", "_", f"{cell.row} {cell.executor}")
        Path(directory, name).write_text(json.dumps(asdict(cell)))


if __name__ == "__main__":
    main()
