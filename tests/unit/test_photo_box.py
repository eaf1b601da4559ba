"""The part of a photo that a query is about: what is one, and where it is in the photo as stored."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from shashin.photo_box import (
    MIN_BOX_PIXELS,
    Box,
    box_problem,
    size_problem,
    stored_pixels,
    upright_size,
)

SHARES = st.floats(0, 1, width=32)
SIZES = st.integers(1, 60)
TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.T,
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].T,
    8: lambda a: np.rot90(a, 1),
}
"""What turns stored pixels (rows, columns) upright, by EXIF's definition of each orientation."""


@given(st.tuples(SHARES, SHARES, SHARES, SHARES))
def test_edges_in_order_within_the_photo_are_a_box_and_nothing_else_is(
    edges: tuple[float, float, float, float],
) -> None:
    left, top, right, bottom = edges
    problem = box_problem(Box(*edges))
    if left < right and top < bottom:
        assert problem is None
    else:
        side = "left" if left >= right else "top"
        assert problem is not None
        assert problem.startswith(f"{side} is ")
        assert f"expected {side} to be less than" in problem


@given(
    edge=st.sampled_from(Box._fields),
    value=st.floats().filter(lambda value: not (math.isfinite(value) and 0 <= value <= 1)),
)
def test_an_edge_outside_of_the_photo_is_named(edge: str, value: float) -> None:
    problem = box_problem(Box(0.25, 0.25, 0.75, 0.75)._replace(**{edge: value}))
    assert problem == f"{edge} is {value:g}; expected 0 to 1, a share of the photo's size"


@given(
    across=st.tuples(SHARES, SHARES).map(sorted),
    down=st.tuples(SHARES, SHARES).map(sorted),
    orientation=st.sampled_from(sorted(TURNS)),
    width=SIZES,
    height=SIZES,
)
def test_the_stored_pixels_of_a_box_are_those_of_the_upright_photo(
    across: list[float], down: list[float], orientation: int, width: int, height: int
) -> None:
    stored = np.arange(width * height).reshape(height, width)
    upright = TURNS[orientation](stored)
    box = Box(across[0], down[0], across[1], down[1])
    assert upright.shape[::-1] == upright_size(orientation, width, height)
    left, top, right, bottom = pixels = box.pixels(*upright.shape[::-1])
    wanted = upright[top:bottom, left:right]
    left, top, right, bottom = stored_pixels(pixels, orientation, width, height)
    assert np.array_equal(TURNS[orientation](stored[top:bottom, left:right]), wanted)


@given(width=st.integers(1, 400), height=st.integers(1, 400), share=st.floats(0.01, 1))
def test_too_few_pixels_are_a_problem_that_says_how_many_there_are(
    width: int, height: int, share: float
) -> None:
    box = Box(0.0, 0.0, share, share)
    _, _, right, bottom = box.pixels(width, height)
    problem = size_problem(box, width, height)
    if right >= MIN_BOX_PIXELS and bottom >= MIN_BOX_PIXELS:
        assert problem is None
    else:
        assert problem is not None
        assert problem.startswith(f"{right} x {bottom} pixels of a photo of {width} x {height};")
