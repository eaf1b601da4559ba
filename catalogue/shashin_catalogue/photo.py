"""A photo of a product, as a seller would take it: another one for each number."""

from __future__ import annotations

import io
import math

import numpy as np
from PIL import Image, ImageFilter

from shashin_catalogue.dice import Dice
from shashin_catalogue.product import Product, product
from shashin_catalogue.sprite import SIZE, sprite
from shashin_catalogue.textures import Colour, Pixels, grid, mix, smooth_noise

SIDE = 256
"""Pixels a side."""

_PHOTO = 5
_SMALL = 72
"""Backgrounds and light are smooth: they are made small and enlarged."""


def render_photo(shown: Product, photo_number: int) -> bytes:
    """Return photo ``photo_number`` of a product as a JPEG of 256 x 256 pixels.

    View, scale, light, background, clutter, crop, blur, noise and quality are the photo's own;
    only what is the product's stays the same.
    """
    dice = Dice(shown.seed, shown.number, _PHOTO, photo_number)
    scene = _background(dice)
    if dice.happens(0.45):
        _place(scene, _other_thing(dice, shown), dice, aside=True)
    _place(scene, sprite(shown), dice, aside=False)
    if dice.happens(0.12):
        _place(scene, _other_thing(dice, shown), dice, aside=True)
    photo = _lit(scene, dice)
    if dice.happens(0.35):
        photo = photo.filter(ImageFilter.GaussianBlur(dice.between(0.3, 1.5)))
    made = io.BytesIO()
    photo.save(made, "JPEG", quality=dice.whole(45, 92))
    return made.getvalue()


def _background(dice: Dice) -> Image.Image:
    first, second = _muted(dice), _muted(dice)
    kind = dice.one_of(("plain", "gradient", "cloth", "boards", "blotches", "white"))
    x, y = grid(_SMALL)
    if kind == "white":
        first = second = (0.93, 0.93, 0.92)
    if kind in {"plain", "white"}:
        share = smooth_noise(dice, _SMALL, 2) * 0.3
    elif kind == "gradient":
        angle = dice.between(0, 2 * math.pi)
        share = np.clip(0.5 + 0.6 * (x * math.cos(angle) + y * math.sin(angle)), 0, 1)
    elif kind == "cloth":
        share = smooth_noise(dice, _SMALL, 5) * 0.7 + smooth_noise(dice, _SMALL, 30) * 0.3
    elif kind == "boards":
        angle = dice.one_of((0.0, 1.571)) + dice.spread(0.08)
        along = x * math.cos(angle) + y * math.sin(angle)
        phase = np.mod(along * dice.between(1.5, 4.0), 1.0)
        share = np.where(phase < 0.06, 1.0, smooth_noise(dice, _SMALL, 12) * 0.35)
    else:
        share = smooth_noise(dice, _SMALL, dice.whole(3, 9))
    return _enlarged(mix(first, second, share.astype(np.float32)))


def _muted(dice: Dice) -> Colour:
    level, tint = dice.between(0.2, 0.95), dice.between(0.0, 0.28)
    r, g, b = (level * (1 - tint * dice.between(0, 1)) for _ in range(3))
    return r, g, b


def _enlarged(small: Pixels) -> Image.Image:
    image = Image.fromarray(np.rint(np.clip(small, 0, 1) * 255).astype(np.uint8))
    return image.resize((SIDE, SIDE), Image.Resampling.BILINEAR)


def _other_thing(dice: Dice, shown: Product) -> Image.Image:
    # Few other things, so that their pictures are kept from one photo to the next.
    return sprite(product(shown.seed + 1, dice.whole(0, 15)))


def _place(scene: Image.Image, thing: Image.Image, dice: Dice, *, aside: bool) -> None:
    """Put a thing into the scene, turned and seen at an angle, with a soft shadow."""
    if aside:
        scale = dice.between(0.3, 0.6)
        angle, distance = dice.between(0, 2 * math.pi), dice.between(0.42, 0.6)
        x, y = 0.5 + distance * math.cos(angle), 0.5 + distance * math.sin(angle)
        turn = dice.between(-180, 180)
    else:
        scale = dice.between(0.62, 1.12)
        reach = 0.5 * max(0.0, 1.05 - scale) + 0.06
        x, y = 0.5 + dice.between(-reach, reach), 0.5 + dice.between(-reach, reach)
        turn = dice.spread(11)
    side = max(8, round(SIDE * scale))
    seen = thing.transform(
        (side, side),
        Image.Transform.PERSPECTIVE,
        _view(dice, side, turn),
        Image.Resampling.BILINEAR,
        fillcolor=(0, 0, 0, 0),
    )
    left, top = round(SIDE * x - side / 2), round(SIDE * y - side / 2)
    if dice.happens(0.6):
        small = seen.getchannel("A").resize((side // 6 + 1, side // 6 + 1))
        soft = small.filter(ImageFilter.BoxBlur(1.5)).resize((side, side))
        strength = dice.between(0.15, 0.45)
        shadow = soft.point(lambda value: int(value * strength))
        offset = round(SIDE * dice.between(0.01, 0.035))
        scene.paste((15, 15, 18), (left + offset, top + offset), shadow)
    scene.paste(seen, (left, top), seen)


def _view(dice: Dice, side: int, turn: float) -> tuple[float, ...]:
    """Return the perspective that takes a thing's picture into a square of ``side`` pixels."""
    angle = math.radians(turn)
    shear, squeeze = dice.spread(0.07), 1.0 + dice.spread(0.07)
    far_x, far_y = dice.spread(0.08), dice.spread(0.08)
    half, middle = side / 2, SIZE / 2
    zoom = SIZE / side * (1.0 if abs(turn) < 45 else 1.2)
    a = math.cos(angle) * zoom * squeeze
    b = (math.sin(angle) + shear) * zoom
    c = middle - a * half - b * half
    d = -math.sin(angle) * zoom
    e = math.cos(angle) * zoom / squeeze
    f = middle - d * half - e * half
    g, h = far_x / side, far_y / side
    # The denominator is 1 in the middle, so the vanishing lines do not move the thing.
    w = 1 - (g + h) * half
    shift_x, shift_y = a * half + b * half + c, d * half + e * half + f
    a, b, d, e = a + g * shift_x, b + h * shift_x, d + g * shift_y, e + h * shift_y
    c, f = shift_x - (a + b) * half, shift_y - (d + e) * half
    return tuple(value / w for value in (a, b, c, d, e, f, g, h))


def _lit(scene: Image.Image, dice: Dice) -> Image.Image:
    """Return the scene under this photo's light: exposure, cast, gamma, fall-off and noise."""
    x, y = grid(_SMALL)
    towards = dice.between(0, 2 * math.pi)
    fall = 1 + dice.between(0.0, 0.25) * (x * math.cos(towards) + y * math.sin(towards))
    fall -= dice.between(0.0, 0.18) * (x * x + y * y)
    light = np.asarray(
        Image.fromarray(fall.astype(np.float32)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    )
    cast = np.asarray([1 + dice.spread(0.06) for _ in range(3)], np.float32)
    gamma, exposure = 1 + dice.spread(0.14), dice.between(0.78, 1.15)
    table = (np.linspace(0, 1, 256, dtype=np.float32) ** gamma * (255 * exposure)).astype(
        np.float32
    )
    pixels = table[np.asarray(scene)]
    pixels *= light[:, :, None]
    pixels *= cast
    noise = dice.between(0, 7)
    grain = dice.generator.standard_normal((SIDE // 2, SIDE // 2), dtype=np.float32) * noise
    pixels += np.repeat(np.repeat(grain, 2, axis=0), 2, axis=1)[:, :, None]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
