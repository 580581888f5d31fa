"""Asks the advisory database about locked releases: fails on a finding, says SKIPPED where nobody answers.

Run as ``python requirements/audit.py BIN LOCK``.
"""

from __future__ import annotations

import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Final

ADVISORIES: Final = "https://api.osv.dev/v1/query"
LOOK_S: Final = 10.0


def out_of_reach() -> str | None:
    """Why the advisory database cannot be asked; None if it answers, be it with a refusal."""
    try:
        with urllib.request.urlopen(urllib.request.Request(ADVISORIES, data=b"{}"), timeout=LOOK_S):
            return None
    except urllib.error.HTTPError as error:
        return None if error.code == 400 else f"it answers {error.code}"
    except OSError as error:
        return str(getattr(error, "reason", error))


def main() -> int:
    bin_, lock = sys.argv[1:]
    if why := out_of_reach():
        print(f"SKIPPED: the audit of {lock}; the advisory database is out of reach ({why}).")
        return 0
    program = Path(bin_, "pip-audit")
    if not program.exists():
        install = [f"{bin_}/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "pip-audit"]
        subprocess.run(install, check=True)
    ask = [str(program), "--requirement", lock, "--require-hashes", "--disable-pip", "--vulnerability-service", "osv"]
    return subprocess.run(ask, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
