"""``python -m tests.chaos``: injects faults under load, and prints what became of the promises.

The faults, their order and what they hit follow from the seed; when a fault meets which statement depends on the
machine.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from tests import clock
from tests.chaos import document, ledger, tasks
from tests.chaos.faults import FAULTS, Fault
from tests.chaos.scene import scene

LATE: Final = 3
"""The exit code where nothing is broken but how long something took, on a machine that others share."""

TIMED: Final = ("rescue after SIGKILL, other faults included", "back at work after a crash of the server")


def plan(rng: random.Random, share: float, only: list[str]) -> list[Fault]:
    """The faults of a run, in a random order: each kind at least once."""
    chosen = [fault for fault in FAULTS if not only or any(word in fault.name for word in only)]
    if reason := clock.missing():
        print(f"left out: wrong clock ({reason})", file=sys.stderr)
        chosen = [fault for fault in chosen if fault.name != "wrong clock"]
    faults = [fault for fault in chosen for _ in range(max(1, round(fault.in_a_million * share)))]
    rng.shuffle(faults)
    return faults


def run(
    jobs: int, seed: int, share: float, *, calm: bool, only: list[str], verbose: bool, evidence: bool
) -> dict[str, Any]:
    """One campaign."""
    started = time.monotonic()
    faults = [] if calm else plan(random.Random(seed), share, only)
    with scene(seed, jobs, tasks.CALM if calm else tasks.KINDS) as made:
        made.begin()
        for index, fault in enumerate(faults):
            made.allowed = int(jobs * (index + 1) / len(faults))
            if verbose:
                print(f"{time.monotonic() - started:7.1f} s  {made.produced:9,} jobs  {fault.name}", flush=True)
            if fault.isolates:
                made.wait_until_all_beat(15)
            fault.inject(made)
        made.allowed = jobs
        ended = made.wait_until_all_ended(180)
        made.wait_until_all_hear(30)
        codes = made.leave()
        promises = ledger.check(made, ended, codes)
        if evidence or not all(promise.kept for promise in promises):
            path = Path(tempfile.gettempdir(), f"pgjobs-chaos-{seed}-{os.getpid()}.txt")
            path.write_text(ledger.evidence(made))
            print(f"evidence: {path}", file=sys.stderr)
        if calm:
            promises.append(ledger.once(made.runs))
    return {
        "jobs": jobs,
        "seed": seed,
        "calm": calm,
        "minutes": round((time.monotonic() - started) / 60, 1),
        "faults": dict(Counter(fault.name for fault in faults)),
        "promises": [asdict(promise) for promise in promises],
    }


def main() -> int:
    """Runs what the command line asks for; 1 says that a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--jobs", type=int, default=50_000, help="so many are enqueued, by two producers (50,000)")
    parser.add_argument(
        "--share", type=float, help="of the faults of a million jobs; by default as many as fit the jobs"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--calm", action="store_true", help="no faults: every job runs once")
    parser.add_argument(
        "--only", nargs="*", default=[], metavar="FAULT", help="kinds of faults, by a word of their name"
    )
    parser.add_argument("--write", action="store_true", help="keep the result in docs/reliability.md")
    parser.add_argument("--evidence", action="store_true", help="also where nothing is broken")
    parser.add_argument("--quiet", action="store_true", help="say nothing before the end")
    chosen = parser.parse_args()
    share = chosen.jobs / 1_000_000 if chosen.share is None else chosen.share
    result = run(
        chosen.jobs,
        chosen.seed,
        share,
        calm=chosen.calm,
        only=chosen.only,
        verbose=not chosen.quiet,
        evidence=chosen.evidence,
    )
    print(document.campaign(result))
    if chosen.write:
        document.keep("calm" if chosen.calm else "chaos", result)
    if broken := [promise for promise in result["promises"] if not promise["kept"]]:
        print(f"\n{len(broken)} broken:", json.dumps(broken, indent=2), file=sys.stderr)
    late = [promise for promise in broken if promise["name"] in TIMED]
    return (LATE if late == broken else 1) if broken else 0


if __name__ == "__main__":
    sys.exit(main())
