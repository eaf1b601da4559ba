"""The shapes of each category, with parameters that vary per product."""

from __future__ import annotations

from collections.abc import Callable

from shashin_catalogue.drawing import Part, arc, box, ellipse, mirrored, polygon, smooth, stroke
from shashin_catalogue.rng import Rng

Silhouette = Callable[[Rng], list[Part]]


def _t_shirt(rng: Rng) -> list[Part]:
    waist, sleeve, length = rng.uniform(0.38, 0.55), rng.uniform(0.15, 0.6), rng.uniform(0.65, 0.95)
    neck, cuff = rng.uniform(0.15, 0.3), rng.uniform(0.16, 0.26)
    outline = mirrored(
        [
            (neck, -0.75),
            (0.5, -0.68),
            (0.6 + sleeve * 0.55, -0.5 + sleeve),
            (0.6 + sleeve * 0.55 - cuff * 1.3, -0.42 + sleeve + cuff * 0.5),
            (0.5, -0.25),
            (waist, length),
        ]
    )
    v_neck = rng.chance(0.5)
    collar = (
        polygon((-neck, -0.76), (neck, -0.76), (0, -0.75 + neck * 1.5), role="cut")
        if v_neck
        else ellipse(0, -0.76, neck, neck * 0.6, "cut")
    )
    parts = [polygon(*outline), collar]
    if rng.chance(0.4):
        parts.append(box(-waist, length - 0.1, waist, length, role="second"))
    return parts


def _jacket(rng: Rng) -> list[Part]:
    waist, length, sleeve = rng.uniform(0.4, 0.6), rng.uniform(0.5, 0.9), rng.uniform(0.5, 0.75)
    outline = mirrored(
        [
            (0.2, -0.8),
            (0.52, -0.7),
            (0.86, sleeve - 0.1),
            (0.66, sleeve),
            (0.52, -0.2),
            (waist, length),
        ]
    )
    lapel = rng.uniform(0.15, 0.5)
    parts = [
        polygon(*outline),
        polygon(
            (-0.2, -0.8), (0, -0.8 + lapel), (-0.05, -0.3 + lapel), (-0.3, -0.5), role="second"
        ),
        polygon((0.2, -0.8), (0, -0.8 + lapel), (0.05, -0.3 + lapel), (0.3, -0.5), role="second"),
        stroke((0, -0.8 + lapel), (0, length), width=0.03),
    ]
    buttons = rng.integer(0, 4)
    return [*parts, *(ellipse(0.09, -0.1 + i * 0.2, 0.035, 0.035, "light") for i in range(buttons))]


def _dress(rng: Rng) -> list[Part]:
    hem, waist, flare = rng.uniform(0.4, 0.85), rng.uniform(0.2, 0.32), rng.uniform(-0.3, 0.1)
    top = rng.uniform(0.25, 0.4)
    outline = mirrored([(top * 0.7, -0.9), (top, -0.6), (waist, flare), (hem, 0.9)])
    parts = [polygon(*outline), ellipse(0, -0.92, top * 0.55, rng.uniform(0.12, 0.3), "cut")]
    if rng.chance(0.5):
        parts.append(box(-waist * 1.05, flare - 0.06, waist * 1.05, flare + 0.06, role="second"))
    if rng.chance(0.4):
        y = rng.uniform(0.5, 0.75)
        parts.append(stroke((-hem * 0.75, y), (hem * 0.75, y), width=0.04, role="light"))
    return parts


def _trousers(rng: Rng) -> list[Part]:
    waist, hem, length = rng.uniform(0.3, 0.42), rng.uniform(0.14, 0.34), rng.uniform(0.1, 0.95)
    outer = rng.uniform(0.38, 0.5)
    outline = mirrored(
        [
            (waist, -0.9),
            (outer, -0.3),
            (outer - 0.05, length),
            (outer - 0.05 - hem, length),
            (0.02, -0.25),
        ]
    )
    parts = [polygon(*outline), box(-waist, -0.92, waist, -0.78, role="second")]
    if rng.chance(0.6):
        parts.append(stroke((0, -0.78), (0, -0.3), width=0.02))
        parts.append(arc(waist, -0.75, 0.2, 0.25, 90, 180, width=0.02))
        parts.append(arc(-waist, -0.75, 0.2, 0.25, 0, 90, width=0.02))
    return parts


def _skirt(rng: Rng) -> list[Part]:
    waist, hem, length = rng.uniform(0.28, 0.4), rng.uniform(0.4, 0.9), rng.uniform(0.1, 0.8)
    parts = [
        polygon((-waist, -0.6), (waist, -0.6), (hem, length), (-hem, length)),
        box(-waist, -0.68, waist, -0.52, role="second"),
    ]
    for i in range(rng.integer(0, 5)):
        x = -0.8 + 1.6 * (i + 0.5) / 5
        parts.append(stroke((x * waist, -0.5), (x * hem, length), width=0.018))
    return parts


def _sneaker(rng: Rng) -> list[Part]:
    ankle, toe, sole = rng.uniform(-0.55, -0.1), rng.uniform(0.0, 0.2), rng.uniform(0.08, 0.2)
    parts = [
        smooth(
            [
                (-0.85, ankle),
                (-0.35, ankle - 0.02),
                (-0.1, ankle + 0.25),
                (0.45, toe),
                (0.85, 0.2),
                (0.88, 0.42),
                (0, 0.45),
                (-0.86, 0.42),
            ]
        ),
        box(-0.92, 0.4, 0.95, 0.4 + sole, radius=0.08, role="light"),
        smooth([(0.5, toe + 0.06), (0.85, 0.22), (0.88, 0.4), (0.45, 0.4)], "second"),
    ]
    for i in range(rng.integer(2, 5)):
        x = -0.3 + i * 0.14
        y = ankle + 0.2 + i * 0.06
        parts.append(stroke((x, y), (x + 0.18, y - 0.1), width=0.035, role="light"))
    if rng.chance(0.6):
        parts.append(stroke((-0.5, 0.3), (0.0, 0.1), (0.1, 0.3), width=0.07, role="second"))
    return parts


def _boot(rng: Rng) -> list[Part]:
    shaft, width, heel = rng.uniform(-0.95, -0.3), rng.uniform(0.3, 0.5), rng.uniform(0.05, 0.35)
    base = 0.85 - heel
    parts = [
        smooth(
            [
                (-0.5, shaft),
                (-0.5 + width * 1.4, shaft),
                (-0.1 + width * 0.4, 0.1),
                (0.6, base - 0.3),
                (0.75, base),
                (-0.5, base),
                (-0.55, 0.0),
            ]
        ),
        polygon((-0.55, base), (-0.2, base), (-0.28, 0.88), (-0.52, 0.88), role="dark"),
        box(-0.2, base - 0.02, 0.78, base + 0.07, role="dark"),
    ]
    if rng.chance(0.5):
        parts.append(
            stroke(
                (-0.5, shaft + 0.15), (-0.5 + width * 1.4, shaft + 0.15), width=0.08, role="second"
            )
        )
    return parts


def _handbag(rng: Rng) -> list[Part]:
    width, top, height = rng.uniform(0.5, 0.85), rng.uniform(0.35, 0.8), rng.uniform(0.5, 0.8)
    handle = rng.uniform(0.2, 0.6)
    parts = [
        arc(0, -0.1, top * 0.6, handle, 180, 360, width=rng.uniform(0.05, 0.12), role="second"),
        polygon((-top, -0.15), (top, -0.15), (width, height), (-width, height)),
    ]
    if rng.chance(0.6):
        flap = rng.uniform(0.15, 0.5)
        parts.append(
            polygon(
                (-top, -0.17), (top, -0.17), (top * 0.9, flap), (-top * 0.9, flap), role="second"
            )
        )
        parts.append(box(-0.07, flap - 0.1, 0.07, flap + 0.06, role="light"))
    return parts


def _backpack(rng: Rng) -> list[Part]:
    width, top = rng.uniform(0.45, 0.65), rng.uniform(0.25, 0.6)
    pocket = rng.uniform(0.1, 0.45)
    return [
        arc(0, -0.75, 0.2, 0.18, 180, 360, width=0.07, role="dark"),
        box(-width, -0.8, width, 0.85, radius=top),
        box(
            -width * 0.75, pocket, width * 0.75, 0.78, radius=rng.uniform(0.05, 0.25), role="second"
        ),
        stroke((-width * 0.7, pocket - 0.15), (width * 0.7, pocket - 0.15), width=0.03),
        box(-0.06, pocket + 0.05, 0.06, pocket + 0.2, role="light"),
    ]


def _cap(rng: Rng) -> list[Part]:
    height, brim, droop = rng.uniform(0.5, 0.8), rng.uniform(0.3, 0.6), rng.uniform(0.0, 0.2)
    parts = [
        ellipse(-0.15, 0.2, 0.6, height, start=180, end=360),
        smooth([(-0.2, 0.15), (0.42, 0.15), (0.42 + brim, 0.25 + droop), (0.3, 0.35)], "second"),
    ]
    if rng.chance(0.7):
        parts.append(ellipse(-0.15, 0.2 - height, 0.05, 0.04, "dark"))
    seams = rng.integer(0, 3)
    return [
        *parts,
        *(arc(-0.15, 0.2, 0.2 * (i + 0.6), height, 180, 360, width=0.018) for i in range(seams)),
    ]


def _hat(rng: Rng) -> list[Part]:
    crown, height, brim = rng.uniform(0.35, 0.5), rng.uniform(0.4, 0.85), rng.uniform(0.75, 0.98)
    return [
        ellipse(0, 0.4, brim, rng.uniform(0.12, 0.25)),
        smooth(mirrored([(crown * 0.7, 0.35 - height), (crown, 0.3), (crown, 0.42)])),
        polygon((-crown, 0.2), (crown, 0.2), (crown, 0.38), (-crown, 0.38), role="second"),
    ]


def _watch(rng: Rng) -> list[Part]:
    radius, strap = rng.uniform(0.35, 0.55), rng.uniform(0.2, 0.38)
    square = rng.chance(0.4)
    face = (
        [
            box(-radius, -radius, radius, radius, radius=0.12, role="dark"),
            box(
                -radius * 0.82,
                -radius * 0.82,
                radius * 0.82,
                radius * 0.82,
                radius=0.08,
                role="light",
            ),
        ]
        if square
        else [
            ellipse(0, 0, radius, radius, "dark"),
            ellipse(0, 0, radius * 0.82, radius * 0.82, "light"),
        ]
    )
    angle = rng.uniform(0, 1)
    return [
        box(-strap, -0.95, strap, 0.95, radius=0.1),
        *face,
        stroke((0, 0), (radius * 0.5 * (angle - 0.3), -radius * 0.55), width=0.05, role="second"),
        stroke((0, 0), (radius * 0.4, radius * 0.3 * (angle - 0.5)), width=0.05, role="second"),
    ]


def _glasses(rng: Rng) -> list[Part]:
    radius, gap, width = rng.uniform(0.28, 0.42), rng.uniform(0.06, 0.14), rng.uniform(0.04, 0.12)
    x, tall = radius + gap, rng.uniform(0.6, 1.1)
    lenses = [
        part
        for side in (-1, 1)
        for part in (
            ellipse(side * x, 0, radius + width, (radius + width) * tall),
            ellipse(side * x, 0, radius, radius * tall, "second"),
        )
    ]
    return [
        stroke((-gap, -0.05), (gap, -0.05), width=width),
        *lenses,
        stroke((-x - radius, -0.05), (-0.97, 0.1), width=width, role="dark"),
        stroke((x + radius, -0.05), (0.97, 0.1), width=width, role="dark"),
    ]


def _lamp(rng: Rng) -> list[Part]:
    top, bottom, height = rng.uniform(0.15, 0.45), rng.uniform(0.45, 0.8), rng.uniform(0.5, 0.9)
    base = rng.uniform(0.25, 0.5)
    return [
        box(-0.05, -0.3, 0.05, 0.8, role="dark"),
        polygon((-top, -0.95), (top, -0.95), (bottom, -0.95 + height), (-bottom, -0.95 + height)),
        ellipse(0, 0.82, base, rng.uniform(0.08, 0.2), "second"),
        ellipse(0, rng.uniform(0.1, 0.5), rng.uniform(0.08, 0.25), rng.uniform(0.1, 0.3), "second"),
    ]


def _mug(rng: Rng) -> list[Part]:
    width, height, taper = rng.uniform(0.4, 0.6), rng.uniform(0.5, 0.85), rng.uniform(0.7, 1.05)
    handle = rng.uniform(0.2, 0.4)
    return [
        arc(
            width * 0.8,
            0,
            handle,
            handle * rng.uniform(0.9, 1.4),
            -90,
            90,
            width=0.12,
            role="second",
        ),
        polygon(
            (-width, -height), (width, -height), (width * taper, height), (-width * taper, height)
        ),
        ellipse(0, height, width * taper, 0.1),
        ellipse(0, -height, width, 0.12, "light"),
        ellipse(0, -height, width * 0.85, 0.08, "dark"),
    ]


def _bottle(rng: Rng) -> list[Part]:
    width, neck, shoulder = rng.uniform(0.22, 0.45), rng.uniform(0.08, 0.16), rng.uniform(-0.5, 0.0)
    outline = mirrored(
        [
            (neck, -0.85),
            (neck, shoulder - 0.15),
            (width, shoulder + 0.15),
            (width, 0.85),
            (width * 0.8, 0.92),
        ]
    )
    label = rng.uniform(0.1, 0.35)
    return [
        polygon(*outline),
        box(-neck * 1.25, -0.95, neck * 1.25, -0.78, role="dark"),
        box(-width, label, width, label + rng.uniform(0.2, 0.45), role="second"),
    ]


def _vase(rng: Rng) -> list[Part]:
    belly, neck, lip = rng.uniform(0.3, 0.7), rng.uniform(0.1, 0.3), rng.uniform(0.15, 0.45)
    y = rng.uniform(-0.1, 0.5)
    outline = mirrored([(lip, -0.85), (neck, -0.55), (belly, y), (rng.uniform(0.15, 0.4), 0.88)])
    parts = [smooth(outline), ellipse(0, -0.87, lip * 0.9, 0.06, "dark")]
    for i in range(rng.integer(0, 3)):
        level = y - 0.2 + i * 0.2
        parts.append(
            stroke((-belly * 0.85, level), (belly * 0.85, level), width=0.04, role="second")
        )
    return parts


def _chair(rng: Rng) -> list[Part]:
    width, back, seat = rng.uniform(0.35, 0.55), rng.uniform(-0.95, -0.4), rng.uniform(0.05, 0.2)
    splay = rng.uniform(0.0, 0.2)
    parts = [
        stroke((-width, seat), (-width - splay, 0.92), width=0.07, role="second"),
        stroke((width, seat), (width + splay, 0.92), width=0.07, role="second"),
        stroke((-width * 0.5, seat), (-width * 0.5, 0.75), width=0.06, role="dark"),
        stroke((width * 0.5, seat), (width * 0.5, 0.75), width=0.06, role="dark"),
        box(-width, back, width, seat, radius=rng.uniform(0.02, 0.35)),
        box(-width * 1.15, seat - 0.08, width * 1.15, seat + 0.08, radius=0.05, role="second"),
    ]
    for i in range(rng.integer(0, 3)):
        y = back + 0.15 + i * 0.2
        parts.append(box(-width * 0.8, y, width * 0.8, y + 0.07, role="cut"))
    return parts


def _sofa(rng: Rng) -> list[Part]:
    back, arm, seats = rng.uniform(-0.6, -0.2), rng.uniform(0.12, 0.26), rng.integer(1, 3)
    parts = [
        box(-0.9, back, 0.9, 0.5, radius=rng.uniform(0.03, 0.25)),
        box(-0.97, -0.1, -0.97 + arm * 1.3, 0.55, radius=0.1, role="second"),
        box(0.97 - arm * 1.3, -0.1, 0.97, 0.55, radius=0.1, role="second"),
        box(-0.85, 0.55, -0.75, 0.7, role="dark"),
        box(0.75, 0.55, 0.85, 0.7, role="dark"),
        stroke((-0.9 + arm, 0.2), (0.9 - arm, 0.2), width=0.03),
    ]
    for i in range(1, seats):
        x = -0.9 + arm + (1.8 - 2 * arm) * i / seats
        parts.append(stroke((x, back + 0.1), (x, 0.5), width=0.025))
    return parts


def _guitar(rng: Rng) -> list[Part]:
    lower, upper, waist = rng.uniform(0.35, 0.5), rng.uniform(0.25, 0.4), rng.uniform(0.16, 0.28)
    outline = mirrored([(0.1, -0.2), (upper, 0.0), (waist, 0.3), (lower, 0.62), (0.2, 0.93)])
    hole = rng.chance(0.6)
    parts = [
        box(-0.06, -0.9, 0.06, 0.2, role="second"),
        box(-0.12, -0.97, 0.12, -0.75, radius=0.04, role="dark"),
        smooth(outline),
        box(-0.2, 0.66, 0.2, 0.74, role="dark"),
        stroke((0, -0.8), (0, 0.7), width=0.02, role="light"),
    ]
    if hole:
        parts.append(ellipse(0, 0.3, 0.12, 0.12, "dark"))
    else:
        parts.append(smooth([(0.05, 0.2), (0.3, 0.4), (0.25, 0.7), (0.05, 0.6)], "second"))
    return parts


def _camera(rng: Rng) -> list[Part]:
    height, lens, offset = rng.uniform(0.35, 0.55), rng.uniform(0.25, 0.42), rng.uniform(-0.25, 0.3)
    return [
        box(
            offset - 0.25,
            -height - rng.uniform(0.1, 0.3),
            offset + 0.25,
            0,
            radius=0.06,
            role="second",
        ),
        box(-0.85, -height, 0.85, height, radius=rng.uniform(0.03, 0.2)),
        box(-0.85, -height, 0.85, -height + 0.18, radius=0.05, role="second"),
        ellipse(offset, 0.05, lens, lens, "dark"),
        ellipse(offset, 0.05, lens * 0.7, lens * 0.7, "light"),
        ellipse(offset, 0.05, lens * 0.45, lens * 0.45, "dark"),
        box(-0.75, -height - 0.08, -0.5, -height, role="dark"),
    ]


def _book(rng: Rng) -> list[Part]:
    width, height, spine = rng.uniform(0.45, 0.7), rng.uniform(0.65, 0.92), rng.uniform(0.08, 0.2)
    title = rng.uniform(-0.6, 0.3)
    return [
        box(-width + 0.06, -height + 0.06, width + 0.06, height + 0.06, role="light"),
        box(-width, -height, width, height),
        box(-width, -height, -width + spine, height, role="second"),
        box(-width + spine + 0.1, title, width - 0.1, title + rng.uniform(0.12, 0.3), role="light"),
        box(-width + spine + 0.15, title + 0.4, width - 0.25, title + 0.46, role="dark"),
    ]


def _phone(rng: Rng) -> list[Part]:
    width, lens = rng.uniform(0.38, 0.5), rng.uniform(0.07, 0.12)
    count = rng.integer(1, 4)
    parts = [
        box(-width, -0.92, width, 0.92, radius=rng.uniform(0.06, 0.2)),
        box(-width + 0.07, -0.85, -width + 0.42, -0.3, radius=0.1, role="second"),
    ]
    r = lens * 0.7
    return [*parts, *(ellipse(-width + 0.25, -0.75 + i * 0.15, r, r, "dark") for i in range(count))]


def _toy_car(rng: Rng) -> list[Part]:
    roof, front, wheel = rng.uniform(-0.6, -0.25), rng.uniform(0.2, 0.6), rng.uniform(0.16, 0.28)
    parts = [
        polygon((-0.6, 0.0), (-0.45, roof), (front - 0.15, roof), (front + 0.1, 0.0), role="body"),
        polygon(
            (-0.5, -0.02), (-0.38, roof + 0.08), (-0.05, roof + 0.08), (-0.05, -0.02), role="light"
        ),
        polygon(
            (0.03, -0.02),
            (0.03, roof + 0.08),
            (front - 0.2, roof + 0.08),
            (front, -0.02),
            role="light",
        ),
        box(-0.92, -0.05, 0.92, 0.4, radius=rng.uniform(0.05, 0.2)),
        box(0.78, 0.05, 0.93, 0.17, role="second"),
    ]
    for x in (-0.52, 0.52):
        parts.append(ellipse(x, 0.42, wheel, wheel, "dark"))
        parts.append(ellipse(x, 0.42, wheel * 0.5, wheel * 0.5, "second"))
    return parts


def _umbrella(rng: Rng) -> list[Part]:
    height, scallops = rng.uniform(0.6, 0.9), rng.integer(3, 7)
    parts = [
        stroke((0, -0.9), (0, 0.75), width=0.05),
        arc(0.13, 0.72, 0.13, 0.18, 0, 180, width=0.06, role="second"),
        ellipse(0, 0.0, 0.95, height, start=180, end=360),
    ]
    for i in range(scallops):
        x = -0.95 + 1.9 * (i + 0.5) / scallops
        parts.append(ellipse(x, 0.02, 0.95 / scallops, 0.12, "cut"))
    for i in range(1, scallops):
        x = -0.95 + 1.9 * i / scallops
        parts.append(stroke((0, -height), (x, 0.0), width=0.015))
    return parts


def _clock(rng: Rng) -> list[Part]:
    radius, rim = rng.uniform(0.6, 0.85), rng.uniform(0.08, 0.2)
    hour, minute = rng.uniform(0, 6.28), rng.uniform(0, 6.28)
    square = rng.chance(0.35)
    outer = (
        box(-radius, -radius, radius, radius, radius=0.15)
        if square
        else ellipse(0, 0, radius, radius)
    )
    return [
        outer,
        ellipse(0, 0, radius - rim, radius - rim, "light"),
        arc(0, 0, radius * 0.4, radius * 0.4, hour * 57, hour * 57 + 3, width=0.06),
        stroke((0, 0), (0.25 * (hour - 3) / 3, -0.3), width=0.06, role="second"),
        stroke((0, 0), (0.4 * (minute - 3) / 3, 0.25), width=0.05, role="dark"),
        *(
            ellipse(x * (radius - rim - 0.1), y * (radius - rim - 0.1), 0.04, 0.04, "dark")
            for x, y in ((0, 1), (1, 0), (0, -1), (-1, 0))
        ),
    ]


def _teapot(rng: Rng) -> list[Part]:
    width, height, spout = rng.uniform(0.45, 0.6), rng.uniform(0.35, 0.6), rng.uniform(-0.4, 0.0)
    return [
        arc(-width * 0.9, 0.1, 0.28, 0.35, 90, 270, width=0.1, role="second"),
        polygon(
            (width * 0.7, 0.3),
            (0.75, spout),
            (0.95, spout - 0.05),
            (width * 0.9, -0.05),
            role="second",
        ),
        ellipse(0, 0.15, width, height),
        ellipse(0, 0.15 - height, width * 0.5, 0.1, "second"),
        ellipse(0, 0.02 - height, 0.09, 0.09, "dark"),
        box(-width * 0.6, 0.1 + height, width * 0.6, 0.2 + height, role="dark"),
    ]


def _ring(rng: Rng) -> list[Part]:
    radius, band, stone = rng.uniform(0.4, 0.55), rng.uniform(0.06, 0.16), rng.uniform(0.12, 0.3)
    gem = (
        ellipse(0, -radius + 0.1, stone, stone * rng.uniform(0.7, 1.1), "second")
        if rng.chance(0.5)
        else polygon(
            (-stone, -radius),
            (-stone * 0.6, -radius - stone * 0.7),
            (stone * 0.6, -radius - stone * 0.7),
            (stone, -radius),
            (0, -radius + stone),
            role="second",
        )
    )
    return [
        ellipse(0, 0.2, radius + band, radius + band),
        ellipse(0, 0.2, radius - band * 0.3, radius - band * 0.3, "cut"),
        gem,
    ]


SILHOUETTES: dict[str, Silhouette] = {
    "t-shirt": _t_shirt,
    "jacket": _jacket,
    "dress": _dress,
    "trousers": _trousers,
    "skirt": _skirt,
    "sneaker": _sneaker,
    "boot": _boot,
    "handbag": _handbag,
    "backpack": _backpack,
    "cap": _cap,
    "hat": _hat,
    "watch": _watch,
    "glasses": _glasses,
    "lamp": _lamp,
    "mug": _mug,
    "bottle": _bottle,
    "vase": _vase,
    "chair": _chair,
    "sofa": _sofa,
    "guitar": _guitar,
    "camera": _camera,
    "book": _book,
    "phone": _phone,
    "toy car": _toy_car,
    "umbrella": _umbrella,
    "clock": _clock,
    "teapot": _teapot,
    "ring": _ring,
}
CATEGORIES = tuple(SILHOUETTES)
