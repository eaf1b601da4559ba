"""The parts of a product's drawing, in coordinates from -1 (left, top) to 1 (right, bottom)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from PIL import ImageDraw

Point = tuple[float, float]
Role = Literal["body", "second", "dark", "light", "cut"]
"""Fill of a part: the product's texture, its second colour, a dark or light shade, or nothing."""

_CURVE_STEPS = 6


@dataclass(frozen=True)
class Part:
    """A filled outline, or a stroke along it."""

    points: tuple[Point, ...]
    role: Role = "body"
    width: float = 0.0
    """Stroke width; 0 fills the outline."""


def polygon(*points: Point, role: Role = "body") -> Part:
    """Return a filled polygon."""
    return Part(points, role)


def stroke(*points: Point, width: float, role: Role = "dark") -> Part:
    """Return a line along points."""
    return Part(points, role, width)


def ellipse(
    x: float,
    y: float,
    rx: float,
    ry: float,
    role: Role = "body",
    *,
    start: float = 0.0,
    end: float = 360.0,
) -> Part:
    """Return an ellipse, or its sector between two angles in degrees."""
    return Part(tuple(arc_points(x, y, rx, ry, start, end)), role)


def arc_points(x: float, y: float, rx: float, ry: float, start: float, end: float) -> list[Point]:
    """Return points on an ellipse between two angles in degrees, clockwise from the right."""
    steps = max(6, int(abs(end - start) / 12))
    angles = (math.radians(start + (end - start) * i / steps) for i in range(steps + 1))
    return [(x + rx * math.cos(a), y + ry * math.sin(a)) for a in angles]


def arc(
    x: float,
    y: float,
    rx: float,
    ry: float,
    start: float,
    end: float,
    *,
    width: float,
    role: Role = "dark",
) -> Part:
    """Return a stroke along a part of an ellipse."""
    return Part(tuple(arc_points(x, y, rx, ry, start, end)), role, width)


def box(
    left: float,
    top: float,
    right: float,
    bottom: float,
    *,
    radius: float = 0.0,
    role: Role = "body",
) -> Part:
    """Return a rectangle with rounded corners."""
    r = min(radius, (right - left) / 2, (bottom - top) / 2)
    if r <= 0:
        return polygon((left, top), (right, top), (right, bottom), (left, bottom), role=role)
    corners = (
        (right - r, top + r, -90),
        (right - r, bottom - r, 0),
        (left + r, bottom - r, 90),
        (left + r, top + r, 180),
    )
    points = [p for x, y, a in corners for p in arc_points(x, y, r, r, a, a + 90)]
    return Part(tuple(points), role)


def smooth(points: Sequence[Point], role: Role = "body") -> Part:
    """Return a filled smooth outline through the points (Catmull-Rom)."""
    count = len(points)
    curve: list[Point] = []
    for i in range(count):
        before, here, there, after = (points[(i + k) % count] for k in (-1, 0, 1, 2))
        for step in range(_CURVE_STEPS):
            t = step / _CURVE_STEPS
            curve.append(
                (
                    _catmull_rom(before[0], here[0], there[0], after[0], t),
                    _catmull_rom(before[1], here[1], there[1], after[1], t),
                )
            )
    return Part(tuple(curve), role)


def _catmull_rom(a: float, b: float, c: float, d: float, t: float) -> float:
    return 0.5 * (
        2 * b
        + (c - a) * t
        + (2 * a - 5 * b + 4 * c - d) * t * t
        + (3 * b - a - 3 * c + d) * t * t * t
    )


def mirrored(points: Sequence[Point]) -> list[Point]:
    """Return a symmetric outline from the points of its right half, from top to bottom."""
    return [*points, *((-x, y) for x, y in reversed(points))]


def draw(canvas: ImageDraw.ImageDraw, part: Part, size: int, fill: int) -> None:
    """Draw a part on a square canvas of ``size`` x ``size`` pixels."""
    half = size / 2
    points = [(half + x * half * 0.92, half + y * half * 0.92) for x, y in part.points]
    if part.width:
        width = max(1, round(part.width * half))
        canvas.line(points, fill=fill, width=width, joint="curve")
        r = width / 2
        for x, y in (points[0], points[-1]):
            canvas.ellipse((x - r, y - r, x + r, y + r), fill=fill)
    else:
        canvas.polygon(points, fill=fill)
