"""What was measured of growth: kept as JSON, shown as tables and pictures in the report."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from scripts.benchmark import places, report
from scripts.benchmark.scale.parts import Part
from scripts.benchmark.scale.pictures import Curve, chart

FOLDER = places.BENCH / "results" / "scale"

NAMES = ("slots", "tasks", "peers", "shuffle", "memory")

PICTURES = {
    "tasks": ("Microseconds a task", ("items us", "calls us", "items server us")),
    "peers": ("Seconds until all are there", ("joined s", "back s")),
}
"""Of which parts there are pictures: their title, and the columns that become curves."""


@dataclass
class Kept:
    part: Part
    command: str
    machine: dict[str, str]


def save(kept: Kept, folder: Path = FOLDER) -> None:
    """Write it where ``load`` finds it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{kept.part.name}.json").write_text(json.dumps(asdict(kept), indent=1))


def load(folder: Path = FOLDER) -> list[Kept]:
    """All that is kept, in the order of the report."""
    found: list[Kept] = []
    for name in NAMES:
        path = folder / f"{name}.json"
        if path.exists():
            data = json.loads(path.read_text())
            found.append(Kept(Part(**data["part"]), data["command"], data["machine"]))
    return found


def section(kept: Kept, pictures: bool = True) -> str:
    """One part: what it is, its table, its picture."""
    columns = list(dict.fromkeys(column for row in kept.part.rows for column in row))
    rows = [
        [report.number(row[column]) if column in row else "-" for column in columns]
        for row in kept.part.rows
    ]
    parts = [
        f"### By {kept.part.name}",
        report.wrapped(kept.part.about),
        report.table(columns, rows),
    ]
    if pictures and kept.part.name in PICTURES:
        title, _ = PICTURES[kept.part.name]
        parts.append(f"![{title}]({file_name(kept.part)})")
    made = f"{kept.machine['date']}, commit {kept.machine['commit']}: `{kept.command}`"
    parts.append(report.wrapped(made))
    return "\n\n".join(parts)


def document(found: list[Kept]) -> str:
    """The part of the report about growth."""
    return "\n\n".join(["## Growth", *map(section, found)]) if found else ""


def draw(found: list[Kept], folder: Path) -> None:
    """Write the pictures beside the report."""
    for kept in found:
        if kept.part.name not in PICTURES:
            continue
        title, columns = PICTURES[kept.part.name]
        first = next(iter(kept.part.rows[0]))
        curves = [
            Curve(column, [(row[first], row[column]) for row in kept.part.rows if column in row])
            for column in columns
        ]
        shown = [curve for curve in curves if curve.points]
        (folder / file_name(kept.part)).write_text(chart(title, first, shown))


def file_name(part: Part) -> str:
    return f"benchmarks-{part.name}.svg"
