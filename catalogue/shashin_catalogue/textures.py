"""Surface textures. Each returns (size, size, 3) float32, from 0 to 1."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from shashin_catalogue.rng import Rng

Colour = tuple[float, float, float]
Pixels = npt.NDArray[np.float32]
Field = npt.NDArray[np.float32]


def grid(size: int) -> tuple[Field, Field]:
    """Return x and y of each pixel, from -1 to 1."""
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    x, y = np.meshgrid(axis, axis)
    return x, y


def smooth_noise(rng: Rng, size: int, cells: int) -> Field:
    """Return noise from 0 to 1 whose features are ``size / cells`` pixels wide."""
    small = rng.generator.random((cells + 2, cells + 2), dtype=np.float32)
    scaled = Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(scaled, dtype=np.float32), 0, 1)


def mix(a: Colour, b: Colour, share: Field) -> Pixels:
    """Blend two colours; ``share`` is that of the second."""
    first, second = np.asarray(a, np.float32), np.asarray(b, np.float32)
    return (first + (second - first) * share[:, :, None]).astype(np.float32)


def _over(pixels: Pixels, colour: Colour, share: Field) -> Pixels:
    """Blend a colour over pixels; ``share`` (size, size, 1) is that of the colour."""
    blended: Pixels = pixels + (np.asarray(colour, np.float32) - pixels) * share
    return blended


def _turned(rng: Rng, size: int) -> tuple[Field, Field]:
    x, y = grid(size)
    angle = rng.choice((0.0, 0.785, 1.571, 2.356)) + rng.normal(0.1)
    return x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)


def _waves(values: Field, count: float, duty: float) -> Field:
    phase = np.mod(values * count, 1.0)
    inside: Field = (phase < duty).astype(np.float32)
    return inside


def _plain(rng: Rng, size: int, colours: Sequence[Colour]) -> Pixels:
    shade = smooth_noise(rng, size, 3) * 0.12
    return mix(colours[0], (0.0, 0.0, 0.0), shade)


def _stripes(rng: Rng, size: int, colours: Sequence[Colour]) -> Pixels:
    along, _ = _turned(rng, size)
    return mix(colours[0], colours[1], _waves(along, rng.uniform(1.5, 6.0), rng.uniform(0.2, 0.6)))


def _three_stripes(rng: Rng, size: int, colours: Sequence[Colour]) -> Pixels:
    along, _ = _turned(rng, size)
    count = rng.uniform(1.5, 3.5)
    pixels = mix(colours[0], colours[1], _waves(along, count, 0.4))
    thin = _waves(along + 0.13, count, 0.12)[:, :, None]
    return _over(pixels, colours[2], thin)


def _checks(rng: Rng, size: int, colours: Sequence[Colour]) -> Pixels:
    x, y = _turned(rng, size)
    count = rng.uniform(1.5, 5.0)
    share = np.abs(_waves(x, count, 0.5) - _waves(y, count, 0.5))
    return mix(colours[0], colours[1], share)


def _plaid(rng: Rng, size: int, colours: Sequence[Colour]) -> Pixels:
    x, y = _turned(rng, size)
    count, duty = rng.uniform(1.2, 3.0), rng.uniform(0.25, 0.5)
    share = (_waves(x, count, duty) + _waves(y, count, duty)) * np.float32(0.5)
    pixels = mix(colours[0], colours[1], share)
    thin = np.maximum(_waves(x + 0.2, count, 0.08), _waves(y + 0.2, count, 0.08))[:, :, None]
    return _over(pixels, colours[2], thin)


def _dots(rng: Rng, size: int, colours: Sequence[Colour]) -> Pixels:
    x, y = _turned(rng, size)
    count, radius = rng.uniform(2.0, 6.0), rng.uniform(0.15, 0.38)
    row = np.floor(y * count)
    dx = np.mod(x * count + 0.5 * np.mod(row, 2), 1.0) - 0.5
    dy = np.mod(y * count, 1.0) - 0.5
    return mix(colours[0], colours[1], (dx * dx + dy * dy < radius * radius).astype(np.float32))


def _gradient(rng: Rng, size: int, colours: Sequence[Colour]) -> Pixels:
    along, _ = _turned(rng, size)
    share = np.clip(along * rng.uniform(0.5, 1.2) + 0.5, 0, 1).astype(np.float32)
    return mix(colours[0], colours[1], share)


def _marble(rng: Rng, size: int, colours: Sequence[Colour]) -> Pixels:
    along, _ = _turned(rng, size)
    veins = along * rng.uniform(1.0, 3.0) + smooth_noise(rng, size, rng.integer(3, 6)) * 1.5
    share = (np.sin(veins * 6.283) * 0.5 + 0.5) ** rng.uniform(1.0, 4.0)
    return mix(colours[0], colours[1], share.astype(np.float32))


def _camouflage(rng: Rng, size: int, colours: Sequence[Colour]) -> Pixels:
    cells = rng.integer(4, 8)
    pixels = mix(colours[0], colours[1], (smooth_noise(rng, size, cells) > 0.55).astype(np.float32))
    third = (smooth_noise(rng, size, cells) > 0.62).astype(np.float32)[:, :, None]
    return _over(pixels, colours[2], third)


def _zigzag(rng: Rng, size: int, colours: Sequence[Colour]) -> Pixels:
    x, y = _turned(rng, size)
    count = rng.uniform(1.5, 4.0)
    bend = np.abs(np.mod(x * count, 1.0) - 0.5) * rng.uniform(0.3, 0.8)
    return mix(colours[0], colours[1], _waves(y + bend, count, rng.uniform(0.3, 0.6)))


def _halves(rng: Rng, size: int, colours: Sequence[Colour]) -> Pixels:
    along, _ = _turned(rng, size)
    share = (along > rng.uniform(-0.3, 0.3)).astype(np.float32)
    return mix(colours[0], colours[1], share)


TEXTURES: dict[str, Callable[[Rng, int, Sequence[Colour]], Pixels]] = {
    "plain": _plain,
    "stripes": _stripes,
    "three stripes": _three_stripes,
    "checks": _checks,
    "plaid": _plaid,
    "dots": _dots,
    "gradient": _gradient,
    "marble": _marble,
    "camouflage": _camouflage,
    "zigzag": _zigzag,
    "halves": _halves,
}
