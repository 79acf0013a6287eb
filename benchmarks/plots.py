"""Pictures of results as SVG, made by hand: dots on a logarithmic axis, with a line from the median to the tail.

Each picture is a card with its own background, dark where the reader's system is, so that it can be read on any page.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from html import escape

WIDTH = 780
_LEFT = 222  # for the names
_RIGHT = 190  # for the notes
_TOP = 64
_STEP = 27
Place = Callable[[float], float]
"""Where on the axis a value is."""

_COLOURS = ("#0969da", "#bc4c00", "#8250df")
_DARK = ("#58a6ff", "#f0883e", "#bc8cff")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of a picture.

    Attributes:
        label: at the left.
        values: one dot each, a colour a place.
        tail: where the line from the first dot ends, or None.
        note: at the right.
        ours: whether it is memstore's: drawn strong.
    """

    label: str
    values: tuple[float, ...]
    tail: float | None = None
    note: str = ""
    ours: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What a picture shows.

    Attributes:
        title: what is measured, of what.
        unit: of the axis, and which end is better.
        rows: from the top.
        series: what the colours mean; with fewer than two nothing is said.
        notes: the heading of the notes at the right.
    """

    title: str
    unit: str
    rows: tuple[Row, ...]
    series: tuple[str, ...] = ()
    notes: str = ""


def svg(picture: Picture) -> str:
    """The picture as the text of an SVG file."""
    values = [v for row in picture.rows for v in (*row.values, *([row.tail] if row.tail else [])) if v > 0]
    low, high = _ends(values)
    height = _TOP + _STEP * len(picture.rows) + 50

    def at(value: float) -> float:
        share = (math.log10(value) - math.log10(low)) / (math.log10(high) - math.log10(low))
        return round(_LEFT + share * (WIDTH - _LEFT - _RIGHT), 1)

    bottom = _TOP + _STEP * len(picture.rows)
    parts = [_head(picture, height), *_axis(low, high, at, bottom)]
    for place, row in enumerate(picture.rows):
        parts += _drawn(row, _TOP + _STEP * place + _STEP / 2, at)
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    parts.append(
        f'<text class="soft" x="{middle}" y="{height - 12}" text-anchor="middle">{escape(picture.unit)}</text>'
    )
    return "\n".join([*parts, "</svg>", ""])


def _ends(values: list[float]) -> tuple[float, float]:
    """The axis: from a step of 1, 2, 5 below the least value to one above the greatest."""
    steps = [m * 10.0**e for e in range(-6, 10) for m in (1, 2, 5)]
    low = max(step for step in steps if step <= min(values) * 0.98)
    high = min(step for step in steps if step >= max(values) * 1.02)
    return low, high


def _head(picture: Picture, height: int) -> str:
    dots = "".join(f".c{i}{{fill:{c}}}" for i, c in enumerate(_COLOURS))
    dark = "".join(f".c{i}{{fill:{c}}}" for i, c in enumerate(_DARK))
    legend = []
    if len(picture.series) > 1:
        x = WIDTH - _RIGHT
        for place in reversed(range(len(picture.series))):
            x -= 7 * len(picture.series[place]) + 28
            legend.append(f'<circle class="c{place}" cx="{x}" cy="44" r="5"/>')
            legend.append(f'<text class="soft" x="{x + 10}" y="48">{escape(picture.series[place])}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label="{escape(picture.title)}">\n'
        "<style>text{font:13px system-ui,Segoe UI,Helvetica,Arial,sans-serif;fill:#1f2328}"
        ".soft{fill:#59636e;font-size:12px}"
        ".head{font-size:15px;font-weight:600}.ours{font-weight:600}.card{fill:#fff;stroke:#d1d9e0}.grid{stroke:#e4e8ec}"
        f".span{{stroke:#8c959f;stroke-width:2}}.peer{{fill:#6e7781}}{dots}"
        "@media (prefers-color-scheme:dark){text{fill:#e6edf3}.soft{fill:#9198a1}.card{fill:#0d1117;stroke:#3d444d}"
        f".grid{{stroke:#262c33}}.span{{stroke:#656c76}}.peer{{fill:#9198a1}}{dark}}}</style>\n"
        f'<rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>\n'
        f'<text class="head" x="16" y="27">{escape(picture.title)}</text>\n'
        f'<text class="soft" x="{WIDTH - _RIGHT + 16}" y="48">{escape(picture.notes)}</text>' + "".join(legend)
    )


def _axis(low: float, high: float, at: Place, bottom: float) -> list[str]:
    steps = [m * 10.0**e for e in range(-6, 10) for m in (1, 2, 5)]
    shown = [step for step in steps if low * 0.999 <= step <= high * 1.001]
    if len(shown) > 7:
        shown = [step for step in shown if f"{step:e}".startswith("1")]
    parts = []
    for step in shown:
        x = at(step)
        parts.append(f'<line class="grid" x1="{x}" y1="{_TOP - 4}" x2="{x}" y2="{bottom + 4}"/>')
        parts.append(f'<text class="soft" x="{x}" y="{bottom + 20}" text-anchor="middle">{_number(step)}</text>')
    return parts


def _drawn(row: Row, y: float, at: Place) -> list[str]:
    strong = ' class="ours"' if row.ours else ""
    parts = [f'<text{strong} x="{_LEFT - 14}" y="{y + 4.5}" text-anchor="end">{escape(row.label)}</text>']
    if row.tail and row.values and row.tail > row.values[0]:
        x1, x2 = at(row.values[0]), at(row.tail)
        parts.append(f'<line class="span" x1="{x1}" y1="{y}" x2="{x2}" y2="{y}"/>')
        parts.append(f'<line class="span" x1="{x2}" y1="{y - 5}" x2="{x2}" y2="{y + 5}"/>')
    for place, value in enumerate(row.values):
        colour = f"c{place}" if row.ours or len(row.values) > 1 else "peer"
        aside = 0 if len(row.values) == 1 else (place - (len(row.values) - 1) / 2) * 5  # dots of one value stay apart
        radius = (6 if row.ours else 5) - (len(row.values) > 1)
        parts.append(f'<circle class="{colour}" cx="{at(value)}" cy="{y + aside}" r="{radius}"/>')
    parts.append(f'<text class="soft" x="{WIDTH - _RIGHT + 16}" y="{y + 4.5}">{escape(row.note)}</text>')
    return parts


def _number(value: float) -> str:
    if value >= 1_000_000:
        return f"{value / 1_000_000:g}M"
    return f"{value / 1_000:g}k" if value >= 1_000 else f"{value:g}"
