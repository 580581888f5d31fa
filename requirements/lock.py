"""Writes the lock: what the test extra needs, pinned, with the hashes that PyPI has."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

HEAD = """\
# What the test extra of pyproject.toml needs, for Python 3.11: pinned, with the hashes of every file of each release,
# so that Linux and macOS on x86_64 and aarch64 install from it alike. `make lock` writes it anew.
"""


def main() -> None:
    if sys.version_info[:2] != (3, 11):
        sys.exit("the lock is for Python 3.11; make PYTHON=python3.11")
    with tempfile.TemporaryDirectory() as directory:
        made = Path(directory, "lock.txt")
        subprocess.run(
            [sys.executable, "-m", "piptools", "compile", "--quiet", "--generate-hashes", "--extra", "test",
             "--strip-extras", "--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-trusted-host",
             "--no-emit-find-links", "--unsafe-package", "pgjobs-queue", "--output-file", str(made), "pyproject.toml"],
            check=True,
        )  # fmt: skip
        # The package itself, which pip-tools can only comment on, is installed beside the lock.
        lines = [line for line in made.read_text().splitlines() if line and not line.startswith("#")]
    Path(sys.argv[1]).write_text(HEAD + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
