"""What a model is compared with: a colour histogram and a perceptual hash. Pure."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

_BINS = 8
_HASH_SIDE = 8

Pixels = npt.NDArray[np.uint8]
Vectors = npt.NDArray[np.float32]


def colour_histogram(pixels: Pixels) -> Vectors:
    """Return the share of pixels (h, w, 3) by colour, in 8 x 8 x 8 bins: (512,)."""
    bins = (pixels >> 5).astype(np.int64)
    index = (bins[..., 0] * _BINS + bins[..., 1]) * _BINS + bins[..., 2]
    return (np.bincount(index.ravel(), minlength=_BINS**3) / index.size).astype(np.float32)


def intersections(queries: Vectors, gallery: Vectors) -> Vectors:
    """Return how much of each query's histogram is in each of the gallery's, (queries, gallery)."""
    return np.stack([np.minimum(query, gallery).sum(axis=1) for query in queries])


def difference_hash(photo: Image.Image) -> Vectors:
    """Return the signs of a perceptual hash, (64,) of -1 and 1: whether each cell is darker than the next.

    The inner product of two tells how many agree.
    """
    cells = photo.convert("L").resize((_HASH_SIDE + 1, _HASH_SIDE), Image.Resampling.BOX)
    grey = np.asarray(cells, np.int16)
    return np.where(grey[:, 1:] > grey[:, :-1], 1.0, -1.0).astype(np.float32).ravel()
