"""Runs the same job through pgjobs and its peers: ``python -m benchmarks.peers`` (a part of ``make bench``).

Everything is on this machine: an embedded PostgreSQL with its own defaults, durable, and a Redis with an append-only
file. The peers take turns within each round, so that a slow minute of the machine hits all of them. Their virtual
environments are kept in .peers, which git ignores. Writes the table into docs/performance.md.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg

from benchmarks import document
from benchmarks.peers.catalogue import OURS, PEERS, Peer
from benchmarks.peers.environment import Bench, Unavailable, python_of, redis
from benchmarks.peers.measuring import MEASURES, Values
from pgjobs import __version__, embedded
from pgjobs.bench import measures

HOME = Path(__file__).parents[2] / ".peers"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[], metavar="PEER", help="beside pgjobs itself")
    parser.add_argument("--parts", nargs="*", default=list(MEASURES), choices=MEASURES)
    parser.add_argument("--home", type=Path, default=HOME, help="of the virtual environments")
    parser.add_argument("--dry", action="store_true", help="print, and write nothing")
    options = parser.parse_args()
    chosen = [OURS, *(peer for peer in PEERS if not options.only or peer.name in options.only)]
    found = run(chosen, options.rounds, options.parts, options.home)
    print(document.peers(found))
    if not options.dry:
        document.store("peers", found)


def run(peers: list[Peer], rounds: int, parts: list[str], home: Path) -> dict[str, Any]:
    """Measures peers; returns the values of each one's rounds, and by peer and part why there is none."""
    rows: dict[str, list[Values]] = defaultdict(list)
    missing: dict[str, dict[str, str]] = defaultdict(dict)
    directory = Path(tempfile.mkdtemp(prefix="pgjobs-peers-"))
    directory.chmod(0o711)
    memory = Path("/dev/shm") if Path("/dev/shm").is_dir() else directory
    notes = memory / f"{directory.name}.notes"
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        stack.callback(notes.unlink, missing_ok=True)
        server = stack.enter_context(embedded.server(directory / "home"))
        (directory / "redis").mkdir()
        redis_url = stack.enter_context(redis(directory / "redis"))
        benches: dict[str, Bench] = {}
        for peer in peers:
            try:
                benches[peer.name] = Bench(peer, python_of(peer, home), server, redis_url, notes)
            except Unavailable as reason:
                missing[peer.name]["all"] = str(reason)
        for _ in range(rounds):
            for name, bench in benches.items():
                values: Values = {}
                for part in parts:
                    if part in missing[name] or (part == "held" and bench.peer.on_redis):
                        continue
                    try:
                        values |= MEASURES[part](bench)
                    except Unavailable as reason:
                        missing[name][part] = str(reason)
                    print(f"  {name:14} {part:8}", {key: round(value, 1) for key, value in values.items()}, flush=True)
                rows[name].append(values)
        shape = _shape(server)
    about = {
        peer.name: {
            "on": "Redis" if peer.on_redis else "PostgreSQL",
            "needs": ", ".join(peer.needs) or f"pgjobs {__version__}",
            "settings": peer.settings,
            "source": peer.source,
        }
        for peer in peers
    }
    return {
        "shape": shape,
        "rounds": rows,
        "missing": {name: why for name, why in missing.items() if why},
        "peers": about,
    }


def _shape(server: str) -> dict[str, Any]:
    with psycopg.connect(server, autocommit=True) as conn:
        return measures.machine(conn)


if __name__ == "__main__":
    main()
