"""The report: a table for each workload, medians with their range, and ratios to the grid."""

import re
import statistics
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from scripts.benchmark import engines, workloads
from scripts.benchmark.results import Result
from scripts.benchmark.workloads.base import Figure

BASE = "grid"
"""The engine that all others are compared with."""

MARK = "†"

LINE_MAX = 100

_METHOD = (
    "Written by `scripts/bench`; do not edit. Every engine runs the same functions on the same "
    "input as a whole process on the same cores; engines take turns; every answer is compared with "
    "that of one process with plain dicts. Figures are medians of the counted runs (least-most). "
    f"Ratios are to `{BASE}` in the same run, and are what can be compared; differences below 15 % "
    "are noise. Memory is the most that all processes of a run held at one time, shared pages "
    "counted once, files in memory included; it is of one run."
)

_PATH = re.compile(r"(?<![\w./:])(?:/[\w.@+-]+){2,}")


@dataclass(frozen=True)
class Spread:
    """The values of one figure over the counted runs."""

    median: float
    least: float
    most: float

    @staticmethod
    def of(values: list[float]) -> "Spread":
        return Spread(statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        if self.least == self.most:
            return number(self.median)
        return f"{number(self.median)} ({number(self.least)}-{number(self.most)})"


def number(value: float) -> str:
    """Three digits that count, thousands apart."""
    if value >= 100:
        digits = max(0, len(str(int(value))) - 3)
        return f"{round(value, -digits):,.0f}"
    return f"{value:.3g}" if value >= 0.001 else f"{value:.1g}"


def table(headings: list[str], rows: Iterable[list[str]]) -> str:
    """A table in Markdown, with columns that line up for who reads it as text."""
    lines = [headings, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in lines
    )


def wrapped(text: str) -> str:
    """A paragraph, or an item of a list, as lines that fit; without the paths of a machine."""
    plain = _PATH.sub("...", text)
    indent = "  " if text.startswith("- ") else ""
    return textwrap.fill(
        plain,
        LINE_MAX,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def section(result: Result) -> str:
    """One workload: what it is, the table, and what is to be said of it."""
    workload = workloads.load(result.workload)
    figures = [figure for figure in workload.figures if _is_known(result, figure)]
    headings = ["engine"]
    for figure in figures:
        headings += [f"{figure.label}, {figure.unit}", f"x {BASE}"]
    rows = [_row(engine, figures, _spreads(result, BASE)) for engine in _present(result)]
    parts = [
        f"## {result.workload}, {number(result.size)} {workload.unit}",
        wrapped(workload.about),
        table(headings, rows) if rows else "",
        "\n".join(map(wrapped, _remarks(result))),
        wrapped(
            f"{_runs(result.counted)} each after one to warm up; {result.machine['date']}, commit "
            f"{result.machine['commit']}: `{result.command}`"
        ),
    ]
    return "\n\n".join(part for part in parts if part)


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"


def _is_known(result: Result, figure: Figure) -> bool:
    return any(figure.key in engine["figures"] for engine in result.engines)


def _present(result: Result) -> list[dict[str, Any]]:
    own = {figure.key for figure in workloads.load(result.workload).figures}
    return [
        engine
        for engine in result.engines
        if not engine["absent"] and own & engine["figures"].keys()
    ]


def _spreads(result: Result, name: str) -> dict[str, Spread]:
    found = [engine for engine in _present(result) if engine["name"] == name]
    return {key: Spread.of(values) for one in found for key, values in one["figures"].items()}


def _row(engine: dict[str, Any], figures: list[Figure], base: dict[str, Spread]) -> list[str]:
    cells = [engine["name"] + (MARK if engine["disturbed"] else "")]
    for figure in figures:
        values = engine["figures"].get(figure.key)
        if not values:
            cells += ["-", "-"]
            continue
        spread = Spread.of(values)
        cells += [str(spread), _ratio(spread, base.get(figure.key))]
    return cells


def _ratio(spread: Spread, base: Spread | None) -> str:
    return f"{spread.median / base.median:.2f}" if base is not None and base.median else "-"


def _remarks(result: Result) -> list[str]:
    remarks: list[str] = []
    for engine in result.engines:
        if engine["absent"]:
            remarks.append(f"- {engine['name']}: {engine['absent']}")
        elif engine["wrong"]:
            remarks.append(f"- {engine['name']}: {len(engine['wrong'])} runs failed")
        remarks += [f"- {engine['name']}, {key}: {note}" for key, note in engine["notes"].items()]
    marked = [engine for engine in result.engines if engine["disturbed"]]
    if marked:
        told = ", ".join(f"{one['name']} {one['disturbed']}" for one in marked)
        remarks.append(f"- {MARK} others used the machine during counted runs: {told}")
    return remarks


def document(results: list[Result], more: str = "") -> str:
    """The whole report; ``more`` is put behind the tables."""
    if not results and not more:
        return "# Benchmarks\n\nNothing was measured yet: run `scripts/bench`.\n"
    parts = ["# Benchmarks", _preface(results)]
    parts += [section(result) for result in results]
    parts += [more] if more else []
    return "\n\n".join(part for part in parts if part) + "\n"


def _preface(results: list[Result]) -> str:
    if not results:
        return ""
    machine = results[-1].machine
    versions = {
        e["name"]: e["version"] for result in results for e in result.engines if e["version"]
    }
    names = [name for name in engines.NAMES if any(_has(result, name) for result in results)]
    rows = [[name, versions.get(name, "-"), engines.load(name).idiom] for name in names]
    return "\n\n".join(
        [
            wrapped(_METHOD),
            wrapped(
                f"{machine['processor']}, {machine['cores']} cores, {machine['memory']}, "
                f"{machine['system']}, Python {machine['python']}."
            ),
            table(["engine", "version", "how it is used"], rows),
        ]
    )


def _has(result: Result, name: str) -> bool:
    return any(engine["name"] == name for engine in result.engines)
