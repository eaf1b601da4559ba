"""Changed copies, clutter, zooms and what models are compared with."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from shashin.model.baselines import colour_histogram, difference_hash, intersections
from shashin.model.photo_changes import (
    GENTLE,
    HARD,
    IN_CLUTTER,
    TRAINING,
    Change,
    changed,
    with_clutter,
)
from shashin.model.zooms import ZOOMS, middle, zoomed

CHANGES = (GENTLE, HARD, TRAINING, IN_CLUTTER)
SIZES = st.tuples(st.integers(1, 90), st.integers(1, 90))


def photo_of(size: tuple[int, int], seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(noise)


@settings(max_examples=40, deadline=None)
@given(SIZES, st.sampled_from(CHANGES), st.integers(0, 2**32))
def test_a_seed_decides_a_change_and_its_crop_stays_in_range(
    size: tuple[int, int], change: Change, seed: int
) -> None:
    photo = photo_of(size)
    made = [changed(photo, change, np.random.default_rng(seed)) for _ in "ab"]
    assert made[0].tobytes() == made[1].tobytes()
    assert made[0].mode == "RGB"
    for side, whole in zip(made[0].size, size, strict=True):
        low, high = change.crop
        assert max(1, int(whole * low)) <= side <= max(1, round(whole * high))


def test_another_seed_changes_a_photo_in_another_way() -> None:
    photo = photo_of((80, 60))
    made = {changed(photo, HARD, np.random.default_rng(seed)).tobytes() for seed in range(8)}
    assert len(made) == 8


def test_what_is_in_clutter_is_there_and_so_is_the_background() -> None:
    red, blue = Image.new("RGB", (90, 60), "red"), Image.new("RGB", (30, 30), "blue")
    for seed in range(20):
        pixels = np.asarray(with_clutter(red, blue, np.random.default_rng(seed)))
        share = (pixels[..., 0] > 128).mean()
        assert pixels.shape == (60, 90, 3)
        assert 0.19 <= share <= 0.58


@given(SIZES, st.floats(0.05, 1))
def test_the_middle_is_in_the_middle(size: tuple[int, int], share: float) -> None:
    cut = middle(photo_of(size), share)
    for side, whole in zip(cut.size, size, strict=True):
        assert side == max(1, round(whole * share))


def test_zooms_begin_with_the_whole_and_show_the_middle() -> None:
    photo = Image.new("RGB", (100, 100), "white")
    photo.paste("black", (40, 40, 60, 60))
    views = zoomed(photo)
    assert [view.size for view in views] == [(round(100 * zoom),) * 2 for zoom in ZOOMS]
    dark = [float((np.asarray(view) == 0).mean()) for view in views]
    assert dark == pytest.approx([0.04, 0.04 / 0.49, 0.16], abs=0.005)


@settings(max_examples=30, deadline=None)
@given(SIZES, st.integers(0, 99))
def test_a_photo_is_most_like_itself(size: tuple[int, int], seed: int) -> None:
    photos = [photo_of(size, seed), photo_of(size, seed + 1)]
    histograms = np.stack([colour_histogram(np.asarray(photo)) for photo in photos])
    assert histograms.sum(axis=1) == pytest.approx([1, 1], abs=1e-5)
    similar = intersections(histograms, histograms)
    assert np.diagonal(similar) == pytest.approx([1, 1], abs=1e-5)
    assert (similar <= 1 + 1e-5).all()
    hashes = np.stack([difference_hash(photo) for photo in photos])
    assert (hashes @ hashes.T).max() == (hashes[0] @ hashes[0]) == 64


def test_a_perceptual_hash_hardly_changes_with_size_and_light() -> None:
    rng = np.random.default_rng(2)
    smooth = Image.fromarray(rng.integers(40, 200, (6, 6, 3), np.uint8)).resize((90, 90))
    darker = smooth.point(lambda value: value * 0.8).resize((60, 60))
    assert difference_hash(smooth) @ difference_hash(darker) >= 48
    assert abs(difference_hash(smooth) @ difference_hash(photo_of((90, 90)))) < 48
