"""Surfaces: how a product's colours lie on it. Each returns (size, size, 3) float32, 0 to 1."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from shashin_catalogue.dice import Dice

Colour = tuple[float, float, float]
Pixels = npt.NDArray[np.float32]
Field = npt.NDArray[np.float32]


def grid(size: int) -> tuple[Field, Field]:
    """Return x and y of each pixel, from -1 to 1."""
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    x, y = np.meshgrid(axis, axis)
    return x, y


def smooth_noise(dice: Dice, size: int, cells: int) -> Field:
    """Return noise from 0 to 1 whose features are ``size / cells`` pixels wide."""
    small = dice.generator.random((cells + 2, cells + 2), dtype=np.float32)
    scaled = Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(scaled, dtype=np.float32), 0, 1)


def mix(a: Colour, b: Colour, share: Field) -> Pixels:
    """Return the colours between two, as much of the second as ``share`` says."""
    first, second = np.asarray(a, np.float32), np.asarray(b, np.float32)
    return (first + (second - first) * share[:, :, None]).astype(np.float32)


def _over(pixels: Pixels, colour: Colour, share: Field) -> Pixels:
    """Lay a colour over pixels, as much of it as ``share`` (size, size, 1) says."""
    laid: Pixels = pixels + (np.asarray(colour, np.float32) - pixels) * share
    return laid


def _turned(dice: Dice, size: int) -> tuple[Field, Field]:
    x, y = grid(size)
    angle = dice.one_of((0.0, 0.785, 1.571, 2.356)) + dice.spread(0.1)
    return x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)


def _waves(values: Field, count: float, duty: float) -> Field:
    phase = np.mod(values * count, 1.0)
    inside: Field = (phase < duty).astype(np.float32)
    return inside


def _plain(dice: Dice, size: int, colours: Sequence[Colour]) -> Pixels:
    shade = smooth_noise(dice, size, 3) * 0.12
    return mix(colours[0], (0.0, 0.0, 0.0), shade)


def _stripes(dice: Dice, size: int, colours: Sequence[Colour]) -> Pixels:
    along, _ = _turned(dice, size)
    return mix(
        colours[0], colours[1], _waves(along, dice.between(1.5, 6.0), dice.between(0.2, 0.6))
    )


def _three_stripes(dice: Dice, size: int, colours: Sequence[Colour]) -> Pixels:
    along, _ = _turned(dice, size)
    count = dice.between(1.5, 3.5)
    pixels = mix(colours[0], colours[1], _waves(along, count, 0.4))
    thin = _waves(along + 0.13, count, 0.12)[:, :, None]
    return _over(pixels, colours[2], thin)


def _checks(dice: Dice, size: int, colours: Sequence[Colour]) -> Pixels:
    x, y = _turned(dice, size)
    count = dice.between(1.5, 5.0)
    share = np.abs(_waves(x, count, 0.5) - _waves(y, count, 0.5))
    return mix(colours[0], colours[1], share)


def _plaid(dice: Dice, size: int, colours: Sequence[Colour]) -> Pixels:
    x, y = _turned(dice, size)
    count, duty = dice.between(1.2, 3.0), dice.between(0.25, 0.5)
    share = (_waves(x, count, duty) + _waves(y, count, duty)) * np.float32(0.5)
    pixels = mix(colours[0], colours[1], share)
    thin = np.maximum(_waves(x + 0.2, count, 0.08), _waves(y + 0.2, count, 0.08))[:, :, None]
    return _over(pixels, colours[2], thin)


def _dots(dice: Dice, size: int, colours: Sequence[Colour]) -> Pixels:
    x, y = _turned(dice, size)
    count, radius = dice.between(2.0, 6.0), dice.between(0.15, 0.38)
    row = np.floor(y * count)
    dx = np.mod(x * count + 0.5 * np.mod(row, 2), 1.0) - 0.5
    dy = np.mod(y * count, 1.0) - 0.5
    return mix(colours[0], colours[1], (dx * dx + dy * dy < radius * radius).astype(np.float32))


def _gradient(dice: Dice, size: int, colours: Sequence[Colour]) -> Pixels:
    along, _ = _turned(dice, size)
    share = np.clip(along * dice.between(0.5, 1.2) + 0.5, 0, 1).astype(np.float32)
    return mix(colours[0], colours[1], share)


def _marble(dice: Dice, size: int, colours: Sequence[Colour]) -> Pixels:
    along, _ = _turned(dice, size)
    veins = along * dice.between(1.0, 3.0) + smooth_noise(dice, size, dice.whole(3, 6)) * 1.5
    share = (np.sin(veins * 6.283) * 0.5 + 0.5) ** dice.between(1.0, 4.0)
    return mix(colours[0], colours[1], share.astype(np.float32))


def _camouflage(dice: Dice, size: int, colours: Sequence[Colour]) -> Pixels:
    cells = dice.whole(4, 8)
    pixels = mix(
        colours[0], colours[1], (smooth_noise(dice, size, cells) > 0.55).astype(np.float32)
    )
    third = (smooth_noise(dice, size, cells) > 0.62).astype(np.float32)[:, :, None]
    return _over(pixels, colours[2], third)


def _zigzag(dice: Dice, size: int, colours: Sequence[Colour]) -> Pixels:
    x, y = _turned(dice, size)
    count = dice.between(1.5, 4.0)
    bend = np.abs(np.mod(x * count, 1.0) - 0.5) * dice.between(0.3, 0.8)
    return mix(colours[0], colours[1], _waves(y + bend, count, dice.between(0.3, 0.6)))


def _halves(dice: Dice, size: int, colours: Sequence[Colour]) -> Pixels:
    along, _ = _turned(dice, size)
    share = (along > dice.between(-0.3, 0.3)).astype(np.float32)
    return mix(colours[0], colours[1], share)


TEXTURES: dict[str, Callable[[Dice, int, Sequence[Colour]], Pixels]] = {
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
