"""A model with predictable vectors: a photo's mean colour."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image


class ColourModel:
    """Embeds a photo as its mean colour; can be blocked, and fails on black photos."""

    model_id = "colours"
    dimensions = 3

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.sizes: list[tuple[int, int]] = []
        self.unblocked = threading.Event()
        self.unblocked.set()

    def embed(self, photos: Sequence[Image.Image]) -> npt.NDArray[np.float32]:
        """Return (n, 3) unit vectors."""
        self.calls.append(len(photos))
        self.sizes.extend(photo.size for photo in photos)
        assert self.unblocked.wait(30)
        means = np.stack([np.asarray(p, np.float32).mean(axis=(0, 1)) for p in photos])
        lengths = np.linalg.norm(means, axis=1, keepdims=True)
        if (lengths == 0).any():
            raise ZeroDivisionError("a black photo")
        vectors: npt.NDArray[np.float32] = (means / lengths).astype(np.float32)
        return vectors
