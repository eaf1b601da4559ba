"""Views of a query photo: zoomed ones, each of which is searched for, and mirror images. Pure.

What is sold is often small in a photo, so a photo may be searched for whole and *zoomed*, with the best score of
these counting. It may also be photographed from either side: the vectors of a view and of its mirror image are
averaged then. Both depend on the model (docs/performance.md has figures), and are for queries alone: what is
stored need not change.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from shashin.codecs.unit_vectors import unit_length
from shashin.model.zooms import zoomed

Vectors = npt.NDArray[np.float32]


def views_of(images: Sequence[Image.Image], zooms: Sequence[bool]) -> list[list[Image.Image]]:
    """Return the views of each image: the whole and zoomed ones, or the image alone."""
    return [zoomed(image) if zoom else [image] for image, zoom in zip(images, zooms, strict=True)]


def with_mirrored(images: Sequence[Image.Image]) -> list[Image.Image]:
    """Return the images, and then the mirror image of each."""
    return [*images, *map(ImageOps.mirror, images)]


def mean_of_views(vectors: Vectors) -> Vectors:
    """Return the mean of both views of each image, (n, dimensions) of unit length.

    ``vectors`` (2 n, dimensions) are those of ``with_mirrored``. Where both cancel each other out, it is the
    first.
    """
    first, second = np.split(vectors, 2)
    total = first + second
    opposite = ~total.any(axis=1)
    total[opposite] = first[opposite]
    return unit_length(total)
