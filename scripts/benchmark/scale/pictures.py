"""Curves as pictures: SVG with a logarithmic axis below, and one or two curves.

Colours and letters are plain, and there is a background, so that a picture reads in light and dark
pages alike.
"""

import math
from dataclasses import dataclass

WIDTH, HEIGHT = 560, 300
LEFT, RIGHT, TOP, BOTTOM = 64, 20, 44, 46
COLOURS = ("#1f6feb", "#d1570a", "#2c974b")
TICKS = 5


@dataclass(frozen=True)
class Curve:
    """Points (x, y), x greater than zero."""

    label: str
    points: list[tuple[float, float]]


def chart(title: str, below: str, curves: list[Curve]) -> str:
    """Draw the curves; ``below`` names the horizontal axis."""
    xs = [x for curve in curves for x, _ in curve.points]
    top = _round_up(max(y for curve in curves for _, y in curve.points))
    least, most = math.log10(min(xs)), math.log10(max(xs))

    def place(x: float, y: float) -> tuple[float, float]:
        share = (math.log10(x) - least) / ((most - least) or 1.0)
        across = LEFT + share * (WIDTH - LEFT - RIGHT)
        return across, HEIGHT - BOTTOM - y / top * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12" fill="#333">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="6" fill="#fff"/>',
        f'<text x="{LEFT}" y="20" font-size="14" font-weight="bold">{_escaped(title)}</text>',
    ]
    for tick in range(TICKS + 1):
        value = top * tick / TICKS
        _, y = place(min(xs), value)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for x in sorted(set(xs)):
        across, _ = place(x, 0)
        y = HEIGHT - BOTTOM + 18
        parts.append(f'<text x="{across:.1f}" y="{y}" text-anchor="middle">{x:,.0f}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(
        f'<text x="{middle}" y="{HEIGHT - 10}" text-anchor="middle">{_escaped(below)}</text>'
    )
    for number, curve in enumerate(curves):
        placed = [place(x, y) for x, y in curve.points]
        parts += _line(curve.label, placed, COLOURS[number % len(COLOURS)], number)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _line(label: str, placed: list[tuple[float, float]], colour: str, number: int) -> list[str]:
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in placed)
    key = LEFT + 150 * number
    return [
        f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>',
        *(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in placed),
        f'<circle cx="{key + 4}" cy="33" r="4" fill="{colour}"/>',
        f'<text x="{key + 14}" y="37">{_escaped(label)}</text>',
    ]


def _round_up(value: float) -> float:
    """The next of 1, 2, 5, 10, ... that is not smaller."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value * 0.999)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
