"""The project's own network: small, fast on one core, and sufficient for the rendered catalogue.

A residual network (He et al. 2016) with five downsamplings, generalised-mean pooling (Radenović et
al. 2018) and a linear projection onto the unit sphere.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

STEM_CHANNELS = 24
CHANNELS = (40, 80, 80, 160, 160, 256)
STRIDES = (2, 2, 1, 2, 1, 2)
_POWER = 3.0


class ConvNorm(nn.Module):
    """A convolution and its batch normalisation, fused when the model is loaded."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv: nn.Module = nn.Conv2d(
            inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False
        )
        self.norm: nn.Module = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, outputs, height / stride, width / stride)."""
        result: Tensor = self.norm(self.conv(x))
        return result

    def fuse(self) -> None:
        """Fold the normalisation into the convolution; for inference only."""
        if isinstance(self.conv, nn.Conv2d) and isinstance(self.norm, nn.BatchNorm2d):
            self.conv = fuse_conv_bn_eval(self.conv, self.norm)
            self.norm = nn.Identity()


class Block(nn.Module):
    """Two convolutions with a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = ConvNorm(inputs, outputs, 3, stride)
        self.second = ConvNorm(outputs, outputs, 3, 1)
        same = inputs == outputs and stride == 1
        self.shortcut: nn.Module = nn.Identity() if same else ConvNorm(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's features."""
        inner: Tensor = self.second(functional.relu(self.first(x), inplace=True))
        return functional.relu(inner + self.shortcut(x), inplace=True)


class PhotoNetwork(nn.Module):
    """Photos (n, 3, side, side) to unit vectors (n, dimensions)."""

    def __init__(
        self,
        dimensions: int = 128,
        stem: int = STEM_CHANNELS,
        channels: Sequence[int] = CHANNELS,
        strides: Sequence[int] = STRIDES,
    ) -> None:
        super().__init__()
        self.stem = ConvNorm(3, stem, 5, 2)
        widths = (stem, *channels)
        self.blocks = nn.Sequential(
            *(
                Block(inputs, outputs, stride)
                for inputs, outputs, stride in zip(widths, channels, strides, strict=False)
            )
        )
        self.project = nn.Linear(channels[-1], dimensions)

    def forward(self, photos: Tensor) -> Tensor:
        """Return unit vectors; ``photos`` have a mean near 0 and a standard deviation near 1."""
        features = self.blocks(functional.relu(self.stem(photos), inplace=True))
        pooled = features.float().clamp(min=1e-4).pow(_POWER).mean(dim=(2, 3)).pow(1 / _POWER)
        return functional.normalize(self.project(pooled), dim=1)

    def fuse(self) -> PhotoNetwork:
        """Fold every normalisation into its convolution, in place; returns the network."""
        for module in self.modules():
            if isinstance(module, ConvNorm):
                module.fuse()
        return self


def normalised(pixels: Tensor) -> Tensor:
    """Normalise uint8 pixels (n, 3, h, w) for the network."""
    return (pixels.to(torch.float32) - 127.5) / 64.0
