"""The colours of a photo, in its middle and above and below it: what a backbone of ImageNet disregards. Pure.

Colours are those of Oklab (Ottosson 2020), in which equal distances look about equally large.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

_CELL = 4
"""Pixels to a side of what is averaged first, so that noise and compression do not count as colours."""
_LIGHTNESS = (0.15, 0.95, 4)
"""Centres of the first and the last bin, and the number of bins; what is beyond is in that bin."""
_CHROMA = (-0.15, 0.15, 7)
"""The same for each of green to red and blue to yellow; grey is in the middle."""

_REGIONS = ((0.0, 0.4, 0.4), (-0.45, 0.35, 0.25), (0.45, 0.35, 0.25))
"""Height, and standard deviations of width and height, as shares of half a side; 0 is the middle."""

COLOURS = len(_REGIONS) * _LIGHTNESS[2] * _CHROMA[2] ** 2
"""Numbers per photo."""

_TO_CONES = (
    (0.4122214708, 0.5363325363, 0.0514459929),
    (0.2119034982, 0.6806995451, 0.1073969566),
    (0.0883024619, 0.2817188376, 0.6299787005),
)
_TO_OKLAB = (
    (0.2104542553, 0.7936177850, -0.0040720468),
    (1.9779984951, -2.4285922050, 0.4505937099),
    (0.0259040371, 0.7827717662, -0.8086757660),
)
_SMALLEST = 1e-12
"""Of a bin, before its root is taken."""


def colour_features(photos: Tensor) -> Tensor:
    """Return the colours of sRGB photos (n, 3, h, w) from 0 to 1, as unit vectors (n, ``COLOURS``).

    Each region has a histogram, whose bins overlap so that a small change of colour is a small change of the
    vector. The inner product of two histograms' roots (Bhattacharyya) says how much of them is alike.
    """
    cells = functional.avg_pool2d(photos, _CELL)
    weights = _region_weights(*cells.shape[2:])
    lightness, green_red, blue_yellow = _oklab(cells.flatten(2).transpose(1, 2)).unbind(-1)
    light = _bins(lightness, *_LIGHTNESS)
    chroma = _bins(green_red, *_CHROMA)[..., :, None] * _bins(blue_yellow, *_CHROMA)[..., None, :]
    regional = (light[:, None] * weights[..., None]).transpose(2, 3)
    histograms = (regional @ chroma.flatten(2)[:, None]).flatten(2)
    roots = functional.normalize(histograms.clamp(min=_SMALLEST).sqrt(), dim=2)
    return roots.flatten(1) / math.sqrt(len(_REGIONS))


def _region_weights(height: int, width: int) -> Tensor:
    """Return how much each cell counts in each region, (regions, height * width)."""
    down = torch.linspace(-1, 1, height)[:, None]
    across = torch.linspace(-1, 1, width)
    parts = [
        torch.exp(-((across / wide) ** 2 + ((down - middle) / high) ** 2) / 2).flatten()
        for middle, wide, high in _REGIONS
    ]
    return functional.normalize(torch.stack(parts), p=1, dim=1)


def _oklab(colours: Tensor) -> Tensor:
    """Return sRGB colours (..., 3) from 0 to 1 in Oklab: lightness from 0 to 1, green to red, blue to yellow."""
    low = colours / 12.92
    linear = torch.where(colours <= 0.04045, low, ((colours + 0.055) / 1.055) ** 2.4)
    cones = linear @ torch.tensor(_TO_CONES).T
    return cones.clamp(min=0) ** (1 / 3) @ torch.tensor(_TO_OKLAB).T


def _bins(values: Tensor, first: float, last: float, count: int) -> Tensor:
    """Return how much of each value is in each bin, (..., count): linear between the centres of two."""
    centres = torch.linspace(first, last, count)
    step = (last - first) / (count - 1)
    return (1 - (values.clamp(first, last)[..., None] - centres).abs() / step).clamp(min=0)
