"""Takes the figures of docs/performance.md: ``python -m benchmarks`` (``make bench``), on an embedded PostgreSQL.

Durable: the server has its own defaults, in a directory of its own. Writes the table into the document, and every round
into docs/performance.json.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from benchmarks import document
from pgjobs import bench, embedded


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
    document.store("own", report.document())


if __name__ == "__main__":
    main()
