"""EfficientNet-Lite (Tan and Le 2019), pooled by regional maxima, and colours, projected by a learned head.

The backbone is for inference alone: every batch normalisation is folded into its convolution before the
weights get here (``lite_weights.py``).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from shashin.model.colour_features import COLOURS, colour_features

MAPS = 1280
"""Channels of the last map."""
_COLOUR_WEIGHT = 0.7
"""Length of a photo's colours beside its pooled maps, whose length is 1."""
_MIDDLE, _SCALE = 127.0, 128.0
"""Of pixels, as the backbone was trained."""
_TOGETHER = 4
"""Photos that go through the backbone at once: the widest map of one takes 5 MB, and what does not fit the
processor's caches makes more photos at once slower than few."""


class Stage(NamedTuple):
    """Blocks of one width: the first has the stride, the others a shortcut."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    outputs: int


class LiteVariant(NamedTuple):
    """A size of the network."""

    name: str
    side: int
    """Of the input, in pixels."""
    stages: tuple[Stage, ...]
    region: int
    """Side of a region of the last map, which has a 32nd of the input's side, rounded up; there are four,
    one in each corner."""


STEM_CHANNELS = 32
LITE0 = LiteVariant(
    "efficientnet-lite0",
    224,
    (
        Stage(1, 3, 1, 1, 16),
        Stage(2, 3, 2, 6, 24),
        Stage(2, 5, 2, 6, 40),
        Stage(3, 3, 2, 6, 80),
        Stage(3, 5, 1, 6, 112),
        Stage(4, 5, 2, 6, 192),
        Stage(1, 3, 1, 6, 320),
    ),
    region=5,
)
LITE2 = LiteVariant(
    "efficientnet-lite2",
    260,
    (
        Stage(1, 3, 1, 1, 16),
        Stage(3, 3, 2, 6, 24),
        Stage(3, 5, 2, 6, 48),
        Stage(4, 3, 2, 6, 88),
        Stage(4, 5, 1, 6, 120),
        Stage(5, 5, 2, 6, 208),
        Stage(1, 3, 1, 6, 352),
    ),
    region=6,
)
VARIANTS = (LITE0, LITE2)


class PaddedConvolution(nn.Module):
    """A convolution padded as TensorFlow pads: with stride 2, an even side gets one row more below than above."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self._stride = stride
        # With stride 1 both sides get the same, which the convolution adds itself.
        own = (kernel - 1) // 2 if stride == 1 else 0
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, own, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, outputs, height / stride, width / stride), each rounded up."""
        if self._stride > 1:
            x = functional.pad(x, (*self._padding(x.shape[3]), *self._padding(x.shape[2])))
        result: Tensor = self.conv(x)
        return result

    def _padding(self, side: int) -> tuple[int, int]:
        """Return the pixels before and after."""
        steps = -(-side // self._stride) - 1
        total = max(steps * self._stride + self.conv.kernel_size[0] - side, 0)
        return total // 2, total - total // 2


class InvertedBlock(nn.Module):
    """Expansion, depthwise convolution and projection, with a shortcut where the shape stays."""

    def __init__(self, inputs: int, stage: Stage, stride: int) -> None:
        super().__init__()
        inner = inputs * stage.expansion
        self.expand: nn.Module | None = None
        if stage.expansion > 1:
            self.expand = PaddedConvolution(inputs, inner, 1)
        self.depthwise = PaddedConvolution(inner, inner, stage.kernel, stride, groups=inner)
        self.project = PaddedConvolution(inner, stage.outputs, 1)
        self._shortcut = stride == 1 and inputs == stage.outputs

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's features."""
        inner = x if self.expand is None else _relu6(self.expand(x))
        result: Tensor = self.project(_relu6(self.depthwise(inner)))
        return result.add_(x) if self._shortcut else result


class LiteBackbone(nn.Module):
    """The convolutions: (n, 3, side, side) to a map of (n, ``MAPS``, side / 32, side / 32), rounded up."""

    def __init__(self, variant: LiteVariant = LITE0) -> None:
        super().__init__()
        self.variant = variant
        self.stem = PaddedConvolution(3, STEM_CHANNELS, 3, 2)
        blocks, inputs = [], STEM_CHANNELS
        for stage in variant.stages:
            for block in range(stage.blocks):
                blocks.append(InvertedBlock(inputs, stage, stage.stride if block == 0 else 1))
                inputs = stage.outputs
        self.blocks = nn.Sequential(*blocks)
        self.top = PaddedConvolution(inputs, MAPS, 1)

    def forward(self, photos: Tensor) -> Tensor:
        """Return the last map; ``photos`` are what ``lite_normalised`` returns."""
        return _relu6(self.top(self.blocks(_relu6(self.stem(photos)))))


class LiteNetwork(nn.Module):
    """The backbone, its pooling, the photo's colours if it looks at them, and a linear head."""

    def __init__(
        self, dimensions: int, *, variant: LiteVariant = LITE0, colours: bool = True
    ) -> None:
        super().__init__()
        self.colours = colours
        self.backbone = LiteBackbone(variant)
        self.head = nn.Linear(MAPS + COLOURS if colours else MAPS, dimensions)

    def features(self, photos: Tensor) -> Tensor:
        """Return what the head is fitted on, unit vectors (n, ``head.in_features``)."""
        parts = [self._features(some) for some in torch.split(photos, _TOGETHER)]
        return torch.cat(parts)

    def _features(self, photos: Tensor) -> Tensor:
        pooled = regional_maximum(self.backbone(photos), self.backbone.variant.region)
        if not self.colours:
            return pooled
        found = colour_features((photos * _SCALE + _MIDDLE) / 255)
        return functional.normalize(torch.cat([pooled, _COLOUR_WEIGHT * found], dim=1), dim=1)

    def forward(self, photos: Tensor) -> Tensor:
        """Return unit vectors; ``photos`` are what ``lite_normalised`` returns."""
        return functional.normalize(self.head(self.features(photos)), dim=1)


def _relu6(x: Tensor) -> Tensor:
    """Clamp in place, since memory is what the backbone waits for."""
    return functional.relu6(x, inplace=True)


def regional_maximum(maps: Tensor, region: int) -> Tensor:
    """Return the mean of the unit-length maxima of the four corners of square maps, of unit length.

    ``region`` is the side of a corner, more than half of a map's. A maximum keeps a detail that an average
    dilutes, and a region keeps one loud spot from being all.
    """
    corners = functional.max_pool2d(maps, region, maps.shape[3] - region).flatten(2)
    return functional.normalize(functional.normalize(corners, dim=1).mean(dim=2), dim=1)


def lite_normalised(pixels: Tensor) -> Tensor:
    """Normalise uint8 pixels (n, 3, h, w) as the backbone was trained."""
    return (pixels.to(torch.float32) - _MIDDLE) / _SCALE
