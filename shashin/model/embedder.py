"""Embedding photos with any kind of model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from shashin.model.checkpoint import Checkpoint
from shashin.model.lite_network import LiteNetwork, lite_normalised
from shashin.model.network import normalised

Normalise = Callable[[Tensor], Tensor]
"""Converts uint8 pixels (n, 3, h, w) to the network's input."""

Prepare = Callable[[Image.Image], Tensor]
"""Converts an RGB image of any size to the network's input, without the batch dimension."""


class PhotoEmbedder:
    """One loaded model; not thread-safe."""

    def __init__(
        self,
        model_id: str,
        dimensions: int,
        network: nn.Module,
        prepare: Prepare,
        *,
        normalise: Normalise = normalised,
        zooms: bool = False,
    ) -> None:
        """``zooms`` says whether queries by zoomed views of a photo find more with this model."""
        self.model_id = model_id
        self.dimensions = dimensions
        self.zooms = zooms
        self._normalise = normalise
        self._network = network.eval().to(memory_format=torch.channels_last)
        self._prepare = prepare

    def embed(self, photos: Sequence[Image.Image]) -> npt.NDArray[np.float32]:
        """Return unit vectors, (len(photos), dimensions); photos are RGB of any size."""
        if not photos:
            return np.zeros((0, self.dimensions), np.float32)
        with torch.inference_mode():
            batch = torch.stack([self._prepare(photo) for photo in photos])
            if batch.dtype == torch.uint8:
                batch = self._normalise(batch)
            batch = batch.contiguous(memory_format=torch.channels_last)
            vectors = functional.normalize(self._network(batch).flatten(1), dim=1)
            return np.asarray(vectors.numpy(), dtype=np.float32)


def embedder_of(checkpoint: Checkpoint) -> PhotoEmbedder:
    """Return the embedder of a checkpoint."""

    def prepare(photo: Image.Image) -> Tensor:
        return torch.from_numpy(square(photo, checkpoint.side)).permute(2, 0, 1)

    network = checkpoint.network.eval()
    return PhotoEmbedder(
        checkpoint.model_id,
        checkpoint.dimensions,
        network if isinstance(network, LiteNetwork) else network.fuse(),
        prepare,
        normalise=lite_normalised if isinstance(network, LiteNetwork) else normalised,
        zooms=checkpoint.zooms,
    )


def square(photo: Image.Image, side: int) -> npt.NDArray[np.uint8]:
    """Return a photo as (side, side, 3): scaled to fit and padded with its edge colour."""
    width, height = photo.size
    scale = side / max(width, height)
    fitted = photo.resize(
        (max(1, round(width * scale)), max(1, round(height * scale))),
        Image.Resampling.BILINEAR,
        reducing_gap=2.0,
    )
    pixels = np.asarray(fitted)
    if pixels.shape[:2] == (side, side):
        return pixels.copy()
    top, left = (side - fitted.height) // 2, (side - fitted.width) // 2
    bottom, right = side - fitted.height - top, side - fitted.width - left
    padded: npt.NDArray[np.uint8] = np.pad(
        pixels, ((top, bottom), (left, right), (0, 0)), mode="edge"
    )
    return padded
