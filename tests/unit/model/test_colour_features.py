"""The colours of a photo: what counts as alike, and where it is looked for."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from shashin.model.colour_features import COLOURS, colour_features

Colour = tuple[float, float, float]
RED, ORANGE, BLUE, GREY = (0.8, 0.1, 0.1), (0.9, 0.4, 0.1), (0.1, 0.2, 0.8), (0.5, 0.5, 0.5)
SIDE = 64


def plain(colour: Colour) -> Tensor:
    return torch.tensor(colour)[:, None, None].expand(3, SIDE, SIDE).clone()


def likeness(first: Tensor, second: Tensor) -> float:
    one, other = colour_features(torch.stack([first, second]))
    return float(one @ other)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31), st.integers(1, 3))
def test_they_are_unit_vectors_for_any_photos(seed: int, count: int) -> None:
    photos = torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    found = colour_features(photos)
    assert found.shape == (count, COLOURS)
    assert torch.allclose(found.norm(dim=1), torch.ones(count), atol=1e-4)


@pytest.mark.parametrize("extreme", [0.0, 1.0])
def test_black_and_white_have_colours_too(extreme: float) -> None:
    photo = plain((extreme, extreme, extreme))
    assert likeness(photo, photo) == pytest.approx(1, abs=1e-4)


def test_colours_that_look_alike_are_nearer_than_others() -> None:
    red = plain(RED)
    assert likeness(red, plain((0.78, 0.12, 0.1))) > 0.9
    assert likeness(red, plain(ORANGE)) > likeness(red, plain(BLUE))
    assert likeness(red, plain(GREY)) < 0.5


def test_a_mirrored_photo_has_the_same_colours() -> None:
    photo = torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    assert likeness(photo, photo.flip(2)) == pytest.approx(1, abs=1e-4)


def test_the_middle_counts_more_than_the_corners() -> None:
    whole = plain(GREY)
    middle, corners = plain(GREY), plain(GREY)
    middle[:, 24:40, 24:40] = torch.tensor(RED)[:, None, None]
    for rows in (slice(0, 8), slice(56, 64)):
        for columns in (slice(0, 8), slice(56, 64)):
            corners[:, rows, columns] = torch.tensor(RED)[:, None, None]
    assert likeness(whole, middle) < likeness(whole, corners) - 0.05


def test_above_and_below_are_told_apart() -> None:
    shirt = plain(BLUE)
    shirt[:, : SIDE // 2] = torch.tensor(RED)[:, None, None]
    assert likeness(shirt, shirt.flip(1)) < 0.75


def test_the_grain_of_a_photo_is_no_colour() -> None:
    grain = 0.1 * torch.randn(1, SIDE, SIDE, generator=torch.Generator().manual_seed(2))
    assert likeness(plain(GREY), plain(GREY) + grain) > 0.9
