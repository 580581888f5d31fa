"""Keeps what was measured in docs/performance.json, and writes it into docs/performance.md: tables and plots."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

DOCS: Final = Path(__file__).parents[1] / "docs"
FIGURES: Final = DOCS / "performance.json"
ACCENT: Final = "#2563eb"
MUTED: Final = "#94a3b8"
HEADS: Final = ("jobs/s", "p50", "supervisor MB")
"""The values that stand for a measure, where it has several."""


def store(part: str, found: Any) -> None:
    """Keeps the findings of one part, and writes the document anew."""
    kept = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    kept[part] = found
    FIGURES.write_text(json.dumps(kept, indent=1) + "\n")
    write()


def merged(part: str, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows that were kept, with those of the same name replaced, and new ones behind."""
    kept = json.loads(FIGURES.read_text()).get(part, {"rows": []})["rows"] if FIGURES.exists() else []
    return list({row["name"]: row for row in (*kept, *rows)}.values())


def write() -> None:
    """Puts every part between its marks of the document, and draws the plots."""
    kept = json.loads(FIGURES.read_text())
    path = DOCS / "performance.md"
    text = path.read_text()
    for part, table in (("own", own), ("peers", peers), ("flat", flat), ("reports", reports)):
        if part in kept:
            text = _between(text, part, table(kept[part]))
    if {"own", "peers", "flat"} <= kept.keys():
        text = _between(text, "goals", goals(kept))
    path.write_text(text)
    plots(kept)


def _between(text: str, mark: str, table: str) -> str:
    before, after = f"<!-- {mark} -->\n", f"<!-- end of {mark} -->"
    head, _, rest = text.partition(before)
    return head + before + table + after + rest.partition(after)[2]


def shape(found: Mapping[str, Any]) -> str:
    """The machine, the versions and the settings."""
    settings = ", ".join(f"`{name}` {value}" for name, value in found["settings"].items())
    return f"{found['date'][:10]}; {found['machine']}; Python {found['python']}; {found['server']}; {settings}."


def own(found: Mapping[str, Any]) -> str:
    """The figures of pgjobs itself."""
    lines = [shape(found["shape"]), "", "| What | Median | Rounds | |", "|---|---:|---|---|"]
    for line in found["figures"]:
        first = next(key for key in HEADS if key in line["medians"])
        middle, unit = line["medians"][first], line["unit"]
        others = [(key, value) for key, value in line["medians"].items() if key != first]
        rounds = sorted(values[first] for values in line["rounds"])
        spread = f"{figure(rounds[0], unit)} – {figure(rounds[-1], unit)}"
        more = ", ".join(f"{key} {small(value)}" for key, value in others)
        lines.append(f"| {line['name'].strip()} | {figure(middle, unit)} {unit} | {spread} | {more} |")
    return "\n".join(lines) + "\n"


def flat(found: Mapping[str, Any]) -> str:
    """What is left of the clean speed."""
    lines = [shape(found["shape"]), "", "| A drain … | Jobs/s | Of clean | |", "|---|---:|---:|---|"]
    for row in found["rows"]:
        rate = f"{round(row['jobs/s'], -2):,.0f}" if "jobs/s" in row else ""
        ratio = f"{row['ratio']:.2f}" if "ratio" in row else ""
        lines.append(f"| {row['name']} | {rate} | {ratio} | {row['note']} |")
    return "\n".join(lines) + "\n"


def reports(found: Mapping[str, Any]) -> str:
    """How long the reports take."""
    lines = [shape(found["shape"]), f"{found['finished']:,} finished and {found['queued']:,} queued jobs.", ""]
    lines += ["| Report | Median | Goal | |", "|---|---:|---:|---|"]
    for row in found["rows"]:
        goal = row.get("goal")
        missed = "**missed**" if goal is not None and row["ms"] > goal else ""
        lines.append(f"| {row['name']} | {row['ms']:,.1f} ms | {'' if goal is None else f'≤ {goal} ms'} | {missed} |")
    return "\n".join(lines) + "\n"


def goals(kept: Mapping[str, Any]) -> str:
    """What was aimed at, and what the figures say."""
    own_ones = {line["name"].strip(): line["medians"] for line in kept["own"]["figures"]}
    others = peer_medians(kept["peers"])
    ours = others.pop("pgjobs")

    def taken(words: str, value: str = "") -> float:
        values = next(values for name, values in own_ones.items() if words in name)
        return float(values[value or "jobs/s"])

    def beside(words: str) -> float:
        return float(next(row["ratio"] for row in kept["flat"]["rows"] if words in row["name"]))

    floor = taken("bare claim")
    one, two = taken("coroutines, 1 process"), taken("coroutines, 2 processes")
    fastest = {key: max(values.get(key, 0.0) for values in others.values()) for key in ("drain 1", "drain 2")}
    single, bulk = taken("enqueue one by one"), taken("in bulk")
    rows: list[tuple[str, str, str, bool]] = []

    def goal(what: str, least: str, value: str, met: bool) -> None:
        rows.append((what, least, value, met))

    def at_least(what: str, least: float, value: float, form: str = ",.2f") -> None:
        goal(what, f"≥ {least:{form}}", f"{value:{form}}", value >= least)

    def at_most(what: str, most: float, value: float, unit: str) -> None:
        goal(what, f"≤ {most:g} {unit}", f"{value:,.3g} {unit}", value <= most)

    at_least("drain, 1 process, of the bare-SQL floor", 0.60, one / floor)
    at_least("drain, 1 process, of the fastest peer", 1.75, ours["drain 1"] / fastest["drain 1"])
    at_least("drain, 2 processes, of the floor of one client", 1.10, two / floor)
    at_least("drain, 2 processes, of the fastest peer", 2.00, ours["drain 2"] / fastest["drain 2"])
    at_least("drain, threads, 1 process, jobs/s", 20_000, taken("functions in threads"), ",.0f")
    at_least("drain, process pool of two, jobs/s", 10_000, taken("pool processes"), ",.0f")
    at_least("enqueue one by one, of a bare INSERT", 0.85, single / taken("bare INSERT"))
    at_least("enqueue in bulk, jobs/s", 100_000, bulk, ",.0f")
    at_least("enqueue in bulk, of a bare COPY", 0.50, bulk / taken("bare COPY"))
    at_most("pick-up, idle worker, p50", 2.0, taken("idle worker", "p50"), "ms")
    at_most("pick-up, idle worker, p99", 5.0, taken("idle worker", "p99"), "ms")
    at_most("pick-up from the caller's COMMIT, p50", 3.0, taken("COMMIT", "p50"), "ms")
    at_most("pick-up from the caller's COMMIT, longest", 1_300, taken("COMMIT", "max"), "ms")
    at_most("enqueue → get, p50", 3.5, taken("→ get", "p50"), "ms")
    at_most("scheduled start, late by at p99", 100, taken("scheduled", "p99"), "ms")
    at_most("commits of a drain, by job", 0.02, taken("coroutines, 1 process", "commits/job"), "")
    for words in ("snapshot held", "finished jobs", "queued jobs"):
        name = next(row["name"] for row in kept["flat"]["rows"] if words in row["name"])
        at_least(f"drain {'' if 'snapshot' in name else 'beside '}{name}, of clean", 0.90, beside(words))
    at_most("memory of a worker process", 60, taken("memory", "child MB"), "MB")
    at_most("memory of a supervisor", 30, taken("memory", "supervisor MB"), "MB")
    lines = ["| | Goal | Figure | |", "|---|---:|---:|---|"]
    lines += [f"| {what} | {least} | {value} | {'' if met else '**missed**'} |" for what, least, value, met in rows]
    return "\n".join(lines) + "\n"


PEERS: Final = ("drain 1", "drain 2", "held", "enqueue", "bulk", "p50", "p99")


def peer_medians(found: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """For each peer the medians of its rounds, the fastest first, pgjobs before all."""
    medians = {
        name: {
            key: statistics.median(values) for key in PEERS if (values := [one[key] for one in rounds if key in one])
        }
        for name, rounds in found["rounds"].items()
    }
    return dict(sorted(medians.items(), key=lambda item: (item[0] != "pgjobs", -item[1].get("drain 1", 0.0))))


def peers(found: Mapping[str, Any]) -> str:
    """Side by side, with the ratio of pgjobs to each."""
    medians = peer_medians(found)
    ours = medians["pgjobs"]
    lines = [
        shape(found["shape"]),
        "",
        "| | on | 1 process, jobs/s | | 2 processes, jobs/s | | beside a held snapshot"
        " | one enqueue/s | bulk/s | pick-up p50 / p99, ms |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, values in medians.items():
        about = found["peers"][name]
        cells = [f"**{name}**" if name == "pgjobs" else name, about["on"]]
        for key in ("drain 1", "drain 2"):
            cells += [count(values.get(key)), times(ours.get(key), values.get(key), ours=name == "pgjobs")]
        held = f"{values['held'] / values['drain 1']:.2f}" if "held" in values and "drain 1" in values else ""
        latency = f"{values['p50']:.1f} / {values['p99']:.1f}" if "p50" in values else "–"
        cells += [held, count(values.get("enqueue")), count(values.get("bulk")), latency]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| | Version and settings | Source |", "|---|---|---|"]
    for name in medians:
        about = found["peers"][name]
        lines.append(f"| {name} | {about['needs']}: {about['settings']} | {about['source']} |")
    for name, parts in found["missing"].items():
        for part, reason in parts.items():
            lines += ["", f"{name}, {part}: {reason}"]
    return "\n".join(lines) + "\n"


def figure(value: float, unit: str) -> str:
    """A figure to three digits, as far as they mean something."""
    return f"{round(value, -2):,.0f}" if unit == "jobs/s" and value >= 1_000 else f"{value:,.1f}"


def small(value: float) -> str:
    """A figure beside another one."""
    return f"{value:,.0f}" if value >= 100 else f"{value:,.1f}" if value >= 1 else f"{value:.3f}"


def count(value: float | None) -> str:
    """Jobs a second, or a dash."""
    return "–" if value is None else f"{round(value, -2 if value >= 10_000 else -1):,.0f}"


def times(mine: float | None, theirs: float | None, *, ours: bool) -> str:
    """How many times faster pgjobs is."""
    return "" if ours or not mine or not theirs else f"× {mine / theirs:.1f}"


# -- plots


def plots(kept: Mapping[str, Any]) -> None:
    """Draws the tables, if matplotlib is installed (``make bench`` does)."""
    try:
        import matplotlib as mpl
    except ImportError:
        print("matplotlib is not installed: the plots stay as they are")
        return
    mpl.use("svg")
    mpl.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "pgjobs", "font.family": "sans-serif", "font.size": 9}
    (DOCS / "img").mkdir(exist_ok=True)
    if "peers" in kept:
        medians = peer_medians(kept["peers"])
        for name, keys, title, unit in (
            ("drain", ("drain 2", "drain 1"), "Recorded completions a second", ("2 processes", "1 process")),
            ("pick-up", ("p50",), "Pick-up by an idle worker, median in ms (less is better)", ("",)),
        ):
            rows = {peer: [values.get(key, 0.0) for key in keys] for peer, values in medians.items()}
            bars(DOCS / "img" / f"{name}.svg", rows, title, unit)
    if "flat" in kept:
        rows = {row["name"]: [row["ratio"]] for row in kept["flat"]["rows"] if 0 < row.get("ratio", 0.0) < 1.5}
        bars(DOCS / "img" / "flat.svg", rows, "Share of the speed on clean tables", ("",), all_ours=True)


def bars(
    path: Path, rows: Mapping[str, Sequence[float]], title: str, legend: Sequence[str], *, all_ours: bool = False
) -> None:
    """Draws horizontal bars, a group for each row."""
    from matplotlib.figure import Figure

    groups = len(legend)
    drawing = Figure(figsize=(7.2, 0.5 + 0.28 * len(rows) * (1 + 0.4 * (groups - 1))), layout="constrained")
    axes = drawing.subplots()
    names = list(rows)
    height = 0.8 / groups
    for group in range(groups):
        values = [rows[name][group] for name in names]
        places = [index + (group - (groups - 1) / 2) * height for index in range(len(names))]
        colours = [ACCENT if all_ours or name == "pgjobs" else MUTED for name in names]
        drawn = axes.barh(places, values, height * 0.9, color=colours, alpha=1.0 if group == groups - 1 else 0.55)
        labels = [f"{value:,.0f}" if value >= 100 else f"{value:.2g}" if value else "" for value in values]
        axes.bar_label(drawn, labels, padding=3, fontsize=8, color="#475569")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_title(title, loc="left", fontweight="bold", color="#0f172a")
    if groups > 1:
        axes.text(
            1, 1.01, f"pale: {legend[0]}, full: {legend[-1]}", transform=axes.transAxes, ha="right", color="#475569"
        )
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.xaxis.set_visible(False)
    drawing.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    write()
