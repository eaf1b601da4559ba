"""Motifs that are printed on a product."""

from __future__ import annotations

import math
from collections.abc import Callable

from shashin_catalogue.drawing import Part, Point, box, ellipse, polygon, smooth, stroke
from shashin_catalogue.rng import Rng


def _star(rng: Rng) -> list[Part]:
    tips, inner = rng.integer(4, 8), rng.uniform(0.3, 0.6)
    points: list[Point] = []
    for i in range(2 * tips):
        radius, angle = (1.0 if i % 2 == 0 else inner), math.pi * i / tips - math.pi / 2
        points.append((radius * math.cos(angle), radius * math.sin(angle)))
    return [polygon(*points)]


def _heart(rng: Rng) -> list[Part]:
    dip = rng.uniform(-0.5, -0.2)
    return [
        smooth([(0, dip), (0.5, -0.9), (1, -0.3), (0, 0.95), (-1, -0.3), (-0.5, -0.9)]),
    ]


def _rings(rng: Rng) -> list[Part]:
    parts = []
    for i, radius in enumerate((1.0, 0.75, 0.5, 0.25)[: rng.integer(2, 4)]):
        parts.append(ellipse(0, 0, radius, radius, "body" if i % 2 == 0 else "cut"))
    return parts


def _moon(rng: Rng) -> list[Part]:
    return [ellipse(0, 0, 1, 1), ellipse(rng.uniform(0.3, 0.6), -0.15, 0.85, 0.85, "cut")]


def _flash(rng: Rng) -> list[Part]:
    lean = rng.uniform(0.1, 0.4)
    return [
        polygon((lean, -1), (-0.5, 0.15), (-0.05, 0.15), (-lean, 1), (0.55, -0.2), (0.08, -0.2))
    ]


def _triangle(rng: Rng) -> list[Part]:
    hole = rng.chance(0.5)
    parts = [polygon((0, -1), (0.95, 0.8), (-0.95, 0.8))]
    return [*parts, polygon((0, -0.4), (0.5, 0.55), (-0.5, 0.55), role="cut")] if hole else parts


def _cross(rng: Rng) -> list[Part]:
    arm = rng.uniform(0.15, 0.4)
    return [box(-arm, -1, arm, 1), box(-1, -arm, 1, arm)]


def _flower(rng: Rng) -> list[Part]:
    petals = rng.integer(4, 7)
    parts = []
    for i in range(petals):
        angle = 2 * math.pi * i / petals
        parts.append(ellipse(0.55 * math.cos(angle), 0.55 * math.sin(angle), 0.4, 0.4))
    return [*parts, ellipse(0, 0, 0.25, 0.25, "cut")]


def _waves(rng: Rng) -> list[Part]:
    parts = []
    for row in range(rng.integer(2, 4)):
        y = -0.6 + row * 0.45
        points = [(-1 + i / 8, y + 0.15 * math.sin(i * 1.2)) for i in range(17)]
        parts.append(stroke(*points, width=0.16, role="body"))
    return parts


_LETTERS: dict[str, tuple[tuple[Point, ...], ...]] = {
    "A": (((-0.7, 1), (0, -1), (0.7, 1)), ((-0.4, 0.3), (0.4, 0.3))),
    "E": (((0.6, -1), (-0.6, -1), (-0.6, 1), (0.6, 1)), ((-0.6, 0), (0.4, 0))),
    "H": (((-0.6, -1), (-0.6, 1)), ((0.6, -1), (0.6, 1)), ((-0.6, 0), (0.6, 0))),
    "K": (((-0.6, -1), (-0.6, 1)), ((0.6, -1), (-0.5, 0), (0.6, 1))),
    "M": (((-0.8, 1), (-0.8, -1), (0, 0.3), (0.8, -1), (0.8, 1)),),
    "N": (((-0.6, 1), (-0.6, -1), (0.6, 1), (0.6, -1)),),
    "S": (((0.6, -0.9), (-0.5, -0.9), (-0.5, -0.1), (0.5, 0.1), (0.5, 0.9), (-0.6, 0.9)),),
    "T": (((-0.8, -1), (0.8, -1)), ((0, -1), (0, 1))),
    "X": (((-0.7, -1), (0.7, 1)), ((0.7, -1), (-0.7, 1))),
    "Z": (((-0.6, -1), (0.6, -1), (-0.6, 1), (0.6, 1)),),
    "V": (((-0.7, -1), (0, 1), (0.7, -1)),),
    "7": (((-0.6, -1), (0.6, -1), (-0.2, 1)),),
}


def _letters(rng: Rng) -> list[Part]:
    count = rng.integer(1, 3)
    parts = []
    for i in range(count):
        strokes = _LETTERS[rng.choice(sorted(_LETTERS))]
        scale, x = 0.9 / count, (i - (count - 1) / 2) * 2.0 / count
        for points in strokes:
            moved = [(x + px * scale, py * min(0.9, 2 * scale)) for px, py in points]
            parts.append(stroke(*moved, width=0.26 / count**0.5, role="body"))
    return parts


def _bar(rng: Rng) -> list[Part]:
    height = rng.uniform(0.2, 0.5)
    return [box(-1, -height, 1, height, radius=rng.uniform(0, 0.3))]


def _face(rng: Rng) -> list[Part]:
    smile = rng.uniform(-0.3, 0.5)
    points = [(-0.5 + i * 0.125, 0.4 + smile * math.sin(math.pi * i / 8)) for i in range(9)]
    return [
        ellipse(0, 0, 1, 1),
        ellipse(-0.35, -0.25, 0.15, 0.2, "cut"),
        ellipse(0.35, -0.25, 0.15, 0.2, "cut"),
        stroke(*points, width=0.14, role="cut"),
    ]


PRINTS: dict[str, Callable[[Rng], list[Part]]] = {
    "star": _star,
    "heart": _heart,
    "rings": _rings,
    "moon": _moon,
    "flash": _flash,
    "triangle": _triangle,
    "cross": _cross,
    "flower": _flower,
    "waves": _waves,
    "letters": _letters,
    "bar": _bar,
    "face": _face,
}
