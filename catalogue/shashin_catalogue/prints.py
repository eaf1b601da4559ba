"""Motifs that are printed on a product."""

from __future__ import annotations

import math
from collections.abc import Callable

from shashin_catalogue.dice import Dice
from shashin_catalogue.drawing import Part, Point, box, ellipse, polygon, smooth, stroke


def _star(d: Dice) -> list[Part]:
    tips, inner = d.whole(4, 8), d.between(0.3, 0.6)
    points: list[Point] = []
    for i in range(2 * tips):
        radius, angle = (1.0 if i % 2 == 0 else inner), math.pi * i / tips - math.pi / 2
        points.append((radius * math.cos(angle), radius * math.sin(angle)))
    return [polygon(*points)]


def _heart(d: Dice) -> list[Part]:
    dip = d.between(-0.5, -0.2)
    return [
        smooth([(0, dip), (0.5, -0.9), (1, -0.3), (0, 0.95), (-1, -0.3), (-0.5, -0.9)]),
    ]


def _rings(d: Dice) -> list[Part]:
    parts = []
    for i, radius in enumerate((1.0, 0.75, 0.5, 0.25)[: d.whole(2, 4)]):
        parts.append(ellipse(0, 0, radius, radius, "body" if i % 2 == 0 else "cut"))
    return parts


def _moon(d: Dice) -> list[Part]:
    return [ellipse(0, 0, 1, 1), ellipse(d.between(0.3, 0.6), -0.15, 0.85, 0.85, "cut")]


def _flash(d: Dice) -> list[Part]:
    lean = d.between(0.1, 0.4)
    return [
        polygon((lean, -1), (-0.5, 0.15), (-0.05, 0.15), (-lean, 1), (0.55, -0.2), (0.08, -0.2))
    ]


def _triangle(d: Dice) -> list[Part]:
    hole = d.happens(0.5)
    parts = [polygon((0, -1), (0.95, 0.8), (-0.95, 0.8))]
    return [*parts, polygon((0, -0.4), (0.5, 0.55), (-0.5, 0.55), role="cut")] if hole else parts


def _cross(d: Dice) -> list[Part]:
    arm = d.between(0.15, 0.4)
    return [box(-arm, -1, arm, 1), box(-1, -arm, 1, arm)]


def _flower(d: Dice) -> list[Part]:
    petals = d.whole(4, 7)
    parts = []
    for i in range(petals):
        angle = 2 * math.pi * i / petals
        parts.append(ellipse(0.55 * math.cos(angle), 0.55 * math.sin(angle), 0.4, 0.4))
    return [*parts, ellipse(0, 0, 0.25, 0.25, "cut")]


def _waves(d: Dice) -> list[Part]:
    parts = []
    for row in range(d.whole(2, 4)):
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


def _dead_letters(d: Dice) -> list[Part]:
    count = d.whole(1, 3)
    parts = []
    for i in range(count):
        dead_letter = _LETTERS[d.one_of(sorted(_LETTERS))]
        scale, x = 0.9 / count, (i - (count - 1) / 2) * 2.0 / count
        for points in dead_letter:
            moved = [(x + px * scale, py * min(0.9, 2 * scale)) for px, py in points]
            parts.append(stroke(*moved, width=0.26 / count**0.5, role="body"))
    return parts


def _bar(d: Dice) -> list[Part]:
    height = d.between(0.2, 0.5)
    return [box(-1, -height, 1, height, radius=d.between(0, 0.3))]


def _face(d: Dice) -> list[Part]:
    smile = d.between(-0.3, 0.5)
    points = [(-0.5 + i * 0.125, 0.4 + smile * math.sin(math.pi * i / 8)) for i in range(9)]
    return [
        ellipse(0, 0, 1, 1),
        ellipse(-0.35, -0.25, 0.15, 0.2, "cut"),
        ellipse(0.35, -0.25, 0.15, 0.2, "cut"),
        stroke(*points, width=0.14, role="cut"),
    ]


PRINTS: dict[str, Callable[[Dice], list[Part]]] = {
    "star": _star,
    "heart": _heart,
    "rings": _rings,
    "moon": _moon,
    "flash": _flash,
    "triangle": _triangle,
    "cross": _cross,
    "flower": _flower,
    "waves": _waves,
    "letters": _dead_letters,
    "bar": _bar,
    "face": _face,
}
