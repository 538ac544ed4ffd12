"""The geometry of the report's charts, in SVG user units; `templates/charts.html` draws them.

Charts are inline SVG without scripts: a report has to open on a hospital's computer that has no network, print,
and still be readable in ten years. Nothing here knows what is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

WIDTH = 720
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 130, 12, 34
_LABEL_GAP = 15
# Above this, colours cannot be told apart: every line is then grey and only the emphasised one stands out.
COLOURS = 6


@dataclass(frozen=True)
class Tick:
    """A place on an axis and what stands there."""

    at: float
    text: str


@dataclass(frozen=True)
class Point:
    """A value, and where it is drawn."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Line:
    """One named series.

    Attributes:
        style: 1 to `COLOURS`, 0 for grey, or -1 for the emphasised line.
        paths: SVG path data, one for each stretch without a gap.
        points: every value, in order.
        label_y: where the name stands, moved so that names do not overlap.
    """

    name: str
    style: int
    paths: tuple[str, ...]
    points: tuple[Point, ...]
    label_y: float


@dataclass(frozen=True)
class Lines:
    """A line chart of values over whole numbers (rounds)."""

    width: int
    height: int
    left: float
    right: float
    top: float
    bottom: float
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Row:
    """One row of a dot chart: its name, its dots, and its emphasised value, if any."""

    name: str
    y: float
    dots: tuple[tuple[int, Point], ...]
    mean: Point | None


@dataclass(frozen=True)
class Dots:
    """A dot chart: one row a group, one dot a member, the mean as a bar; `members` are names and styles."""

    width: int
    height: int
    left: float
    right: float
    top: float
    bottom: float
    x_ticks: tuple[Tick, ...]
    rows: tuple[Row, ...]
    members: tuple[tuple[str, int], ...]


def nice_ticks(low: float, high: float, *, count: int = 5) -> list[float]:
    """About `count` round numbers that enclose `low` to `high`.

    >>> nice_ticks(0.13, 0.86)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = low - 0.05, high + 0.05
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 10) for index in range(first, last + 1)]


def lines(
    series: Mapping[str, Mapping[int, float]], *, emphasised: str | None = None, height: int = 300
) -> Lines | None:
    """Draw each series over the whole numbers at which any of them has a value; None where there is no value at all.

    A series that lacks a value where another has one is broken there, not bridged.
    """
    xs = sorted({x for values in series.values() for x in values})
    if not xs:
        return None
    ys = [y for values in series.values() for y in values.values()]
    y_values = nice_ticks(min(ys), max(ys))
    right, bottom = WIDTH - _RIGHT, height - _BOTTOM

    def place(x: int, y: float) -> Point:
        along = (x - xs[0]) / (xs[-1] - xs[0]) if len(xs) > 1 else 0.5
        return Point(_along(_LEFT + 8, right - 8, along), _vertical(y, y_values, bottom), f"{y:.3f}")

    styles = _styles(series, emphasised)
    drawn = {
        name: [[place(x, values[x]) for x in stretch] for stretch in _stretches(xs, values)]
        for name, values in series.items()
    }
    ends = {name: stretches[-1][-1].y for name, stretches in drawn.items() if stretches}
    labels = _spread(ends, low=_TOP, high=bottom)
    return Lines(
        width=WIDTH,
        height=height,
        left=_LEFT,
        right=right,
        top=_TOP,
        bottom=bottom,
        x_ticks=tuple(Tick(place(x, y_values[0]).x, str(x)) for x in _thinned(xs)),
        y_ticks=tuple(Tick(_vertical(value, y_values, bottom), _tick_text(value, y_values)) for value in y_values),
        lines=tuple(
            Line(
                name=name,
                style=styles[name],
                paths=tuple(_path(stretch) for stretch in drawn[name] if len(stretch) > 1),
                points=tuple(point for stretch in drawn[name] for point in stretch),
                label_y=labels[name],
            )
            for name in ends
        ),
    )


def dots(
    groups: Mapping[str, Mapping[str, float]], *, means: Mapping[str, float], members: Sequence[str]
) -> Dots | None:
    """One row a group with a dot for each member, coloured by the member's place in `members`; None without values."""
    values = [value for group in groups.values() for value in group.values()] + list(means.values())
    if not values:
        return None
    left, right, row = 170, WIDTH - 20, 30
    ticks = nice_ticks(min(values), max(values))
    colours = _styles({name: {} for name in members}, None)

    def place(value: float, y: float) -> Point:
        return Point(_along(left + 8, right - 8, (value - ticks[0]) / (ticks[-1] - ticks[0])), y, f"{value:.3f}")

    rows = []
    for index, (name, group) in enumerate(groups.items()):
        y = _TOP + row * (index + 0.5)
        placed = tuple((colours[member], place(group[member], y)) for member in members if member in group)
        rows.append(Row(name, y, placed, place(means[name], y) if name in means else None))
    bottom = _TOP + row * len(rows)
    x_ticks = tuple(Tick(place(value, 0).x, _tick_text(value, ticks)) for value in ticks)
    return Dots(WIDTH, bottom + _BOTTOM, left, right, _TOP, bottom, x_ticks, tuple(rows), tuple(colours.items()))


def _styles(names: Mapping[str, object], emphasised: str | None) -> dict[str, int]:
    others = [name for name in names if name != emphasised]
    many = len(others) > COLOURS
    styles = {name: 0 if many else index + 1 for index, name in enumerate(others)}
    return styles | ({emphasised: -1} if emphasised is not None else {})


def _stretches(xs: Sequence[int], values: Mapping[int, float]) -> Iterator[list[int]]:
    stretch: list[int] = []
    for x in xs:
        if x in values:
            stretch.append(x)
        elif stretch:
            yield stretch
            stretch = []
    if stretch:
        yield stretch


def _along(low: float, high: float, part: float) -> float:
    return round(low + (high - low) * part, 1)


def _vertical(y: float, ticks: Sequence[float], bottom: float) -> float:
    return _along(bottom, _TOP, (y - ticks[0]) / (ticks[-1] - ticks[0]))


def _path(points: Sequence[Point]) -> str:
    return "M" + "L".join(f"{point.x} {point.y}" for point in points)


def _thinned(xs: Sequence[int], *, most: int = 12) -> list[int]:
    """At most about `most` of the whole numbers, evenly, the last always."""
    step = math.ceil(len(xs) / most)
    return list(xs[::-1][::step][::-1])


def _tick_text(value: float, ticks: Sequence[float]) -> str:
    step = ticks[1] - ticks[0]
    return f"{value:.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"


def _spread(places: Mapping[str, float], *, low: float, high: float) -> dict[str, float]:
    """Move labels apart to `_LABEL_GAP`, in their order, kept between `low` and `high` as long as there is room."""
    order = sorted(places, key=lambda name: places[name])
    moved: list[float] = []
    for name in order:
        moved.append(max(places[name], moved[-1] + _LABEL_GAP if moved else low))
    for index in reversed(range(len(moved))):
        ceiling = high if index == len(moved) - 1 else moved[index + 1] - _LABEL_GAP
        moved[index] = min(moved[index], ceiling)
    return dict(zip(order, moved, strict=True))
