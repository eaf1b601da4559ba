"""Rendering photos of a product, as a seller would take them."""

from __future__ import annotations

import io
import math

import numpy as np
from PIL import Image, ImageFilter

from shashin_catalogue.product import Product, product
from shashin_catalogue.rng import Rng
from shashin_catalogue.sprite import SIZE, sprite
from shashin_catalogue.textures import Colour, Pixels, grid, mix, smooth_noise

SIDE = 256
"""Side of a photo, in pixels."""

_PHOTO = 5
_SMALL = 72
"""Backgrounds and light are smooth, so they are computed small and enlarged."""


def render_photo(shown: Product, photo_number: int) -> bytes:
    """Return photo ``photo_number`` of a product as a JPEG of 256 x 256 pixels.

    View, scale, light, background, clutter, crop, blur, noise and quality vary from photo to photo;
    only the product itself stays the same.
    """
    rng = Rng(shown.seed, shown.number, _PHOTO, photo_number)
    scene = _background(rng)
    if rng.chance(0.45):
        _place(scene, _other_object(rng, shown), rng, aside=True)
    _place(scene, sprite(shown), rng, aside=False)
    if rng.chance(0.12):
        _place(scene, _other_object(rng, shown), rng, aside=True)
    photo = _lit(scene, rng)
    if rng.chance(0.35):
        photo = photo.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.5)))
    made = io.BytesIO()
    photo.save(made, "JPEG", quality=rng.integer(45, 92))
    return made.getvalue()


def _background(rng: Rng) -> Image.Image:
    first, second = _muted(rng), _muted(rng)
    kind = rng.choice(("plain", "gradient", "cloth", "boards", "blotches", "white"))
    x, y = grid(_SMALL)
    if kind == "white":
        first = second = (0.93, 0.93, 0.92)
    if kind in {"plain", "white"}:
        share = smooth_noise(rng, _SMALL, 2) * 0.3
    elif kind == "gradient":
        angle = rng.uniform(0, 2 * math.pi)
        share = np.clip(0.5 + 0.6 * (x * math.cos(angle) + y * math.sin(angle)), 0, 1)
    elif kind == "cloth":
        share = smooth_noise(rng, _SMALL, 5) * 0.7 + smooth_noise(rng, _SMALL, 30) * 0.3
    elif kind == "boards":
        angle = rng.choice((0.0, 1.571)) + rng.normal(0.08)
        along = x * math.cos(angle) + y * math.sin(angle)
        phase = np.mod(along * rng.uniform(1.5, 4.0), 1.0)
        share = np.where(phase < 0.06, 1.0, smooth_noise(rng, _SMALL, 12) * 0.35)
    else:
        share = smooth_noise(rng, _SMALL, rng.integer(3, 9))
    return _enlarged(mix(first, second, share.astype(np.float32)))


def _muted(rng: Rng) -> Colour:
    level, tint = rng.uniform(0.2, 0.95), rng.uniform(0.0, 0.28)
    r, g, b = (level * (1 - tint * rng.uniform(0, 1)) for _ in range(3))
    return r, g, b


def _enlarged(small: Pixels) -> Image.Image:
    image = Image.fromarray(np.rint(np.clip(small, 0, 1) * 255).astype(np.uint8))
    return image.resize((SIDE, SIDE), Image.Resampling.BILINEAR)


def _other_object(rng: Rng, shown: Product) -> Image.Image:
    # Few distinct other objects, so that their sprites stay cached.
    return sprite(product(shown.seed + 1, rng.integer(0, 15)))


def _place(scene: Image.Image, sprite_image: Image.Image, rng: Rng, *, aside: bool) -> None:
    """Place an object in the scene, rotated and in perspective, with a soft shadow."""
    if aside:
        scale = rng.uniform(0.3, 0.6)
        angle, distance = rng.uniform(0, 2 * math.pi), rng.uniform(0.42, 0.6)
        x, y = 0.5 + distance * math.cos(angle), 0.5 + distance * math.sin(angle)
        turn = rng.uniform(-180, 180)
    else:
        scale = rng.uniform(0.62, 1.12)
        reach = 0.5 * max(0.0, 1.05 - scale) + 0.06
        x, y = 0.5 + rng.uniform(-reach, reach), 0.5 + rng.uniform(-reach, reach)
        turn = rng.normal(11)
    side = max(8, round(SIDE * scale))
    seen = sprite_image.transform(
        (side, side),
        Image.Transform.PERSPECTIVE,
        _view(rng, side, turn),
        Image.Resampling.BILINEAR,
        fillcolor=(0, 0, 0, 0),
    )
    left, top = round(SIDE * x - side / 2), round(SIDE * y - side / 2)
    if rng.chance(0.6):
        small = seen.getchannel("A").resize((side // 6 + 1, side // 6 + 1))
        soft = small.filter(ImageFilter.BoxBlur(1.5)).resize((side, side))
        strength = rng.uniform(0.15, 0.45)
        shadow = soft.point(lambda value: int(value * strength))
        offset = round(SIDE * rng.uniform(0.01, 0.035))
        scene.paste((15, 15, 18), (left + offset, top + offset), shadow)
    scene.paste(seen, (left, top), seen)


def _view(rng: Rng, side: int, turn: float) -> tuple[float, ...]:
    """Return the perspective transform of a sprite into a square of ``side`` pixels."""
    angle = math.radians(turn)
    shear, squeeze = rng.normal(0.07), 1.0 + rng.normal(0.07)
    far_x, far_y = rng.normal(0.08), rng.normal(0.08)
    half, middle = side / 2, SIZE / 2
    zoom = SIZE / side * (1.0 if abs(turn) < 45 else 1.2)
    a = math.cos(angle) * zoom * squeeze
    b = (math.sin(angle) + shear) * zoom
    c = middle - a * half - b * half
    d = -math.sin(angle) * zoom
    e = math.cos(angle) * zoom / squeeze
    f = middle - d * half - e * half
    g, h = far_x / side, far_y / side
    # The denominator is 1 in the centre, so the perspective does not move the object.
    w = 1 - (g + h) * half
    shift_x, shift_y = a * half + b * half + c, d * half + e * half + f
    a, b, d, e = a + g * shift_x, b + h * shift_x, d + g * shift_y, e + h * shift_y
    c, f = shift_x - (a + b) * half, shift_y - (d + e) * half
    return tuple(value / w for value in (a, b, c, d, e, f, g, h))


def _lit(scene: Image.Image, rng: Rng) -> Image.Image:
    """Return the scene with this photo's lighting: exposure, cast, gamma, fall-off and noise."""
    x, y = grid(_SMALL)
    towards = rng.uniform(0, 2 * math.pi)
    fall = 1 + rng.uniform(0.0, 0.25) * (x * math.cos(towards) + y * math.sin(towards))
    fall -= rng.uniform(0.0, 0.18) * (x * x + y * y)
    light = np.asarray(
        Image.fromarray(fall.astype(np.float32)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    )
    cast = np.asarray([1 + rng.normal(0.06) for _ in range(3)], np.float32)
    gamma, exposure = 1 + rng.normal(0.14), rng.uniform(0.78, 1.15)
    table = (np.linspace(0, 1, 256, dtype=np.float32) ** gamma * (255 * exposure)).astype(
        np.float32
    )
    pixels = table[np.asarray(scene)]
    pixels *= light[:, :, None]
    pixels *= cast
    noise = rng.uniform(0, 7)
    grain = rng.generator.standard_normal((SIDE // 2, SIDE // 2), dtype=np.float32) * noise
    pixels += np.repeat(np.repeat(grain, 2, axis=0), 2, axis=1)[:, :, None]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
