"""The rendered catalogue: deterministic and varied."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from shashin_catalogue import (
    CATEGORIES,
    DEMO_NUMBERS,
    EVALUATION_NUMBERS,
    TRAINING_NUMBERS,
    product,
    render_photo,
)
from shashin_catalogue.prints import PRINTS
from shashin_catalogue.textures import TEXTURES


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), number=st.integers(0, 2**31), photo=st.integers(0, 100))
def test_a_photo_is_the_same_bytes_every_time(seed: int, number: int, photo: int) -> None:
    first = render_photo(product(seed, number), photo)
    assert first == render_photo(product(seed, number), photo)
    with Image.open(io.BytesIO(first)) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (256, 256))


def test_photos_of_a_product_differ_from_each_other() -> None:
    shown = product(1, 5)
    assert len({render_photo(shown, photo) for photo in range(8)}) == 8


def test_products_have_many_categories_textures_and_prints() -> None:
    products = [product(3, number) for number in range(2000)]
    assert {p.category for p in products} == set(CATEGORIES)
    assert len(CATEGORIES) >= 20
    assert {p.texture for p in products} == set(TEXTURES)
    assert {p.print_name for p in products} == {"", *PRINTS}
    assert len({p.body for p in products}) == len(products)


def test_seeds_are_catalogues_of_their_own() -> None:
    assert product(1, 7) != product(2, 7)


def test_no_product_is_for_two_purposes() -> None:
    ranges = (DEMO_NUMBERS, TRAINING_NUMBERS, EVALUATION_NUMBERS)
    for one in ranges:
        for other in ranges:
            assert one is other or not range(max(one[0], other[0]), min(one[-1], other[-1]) + 1)


def test_a_product_looks_more_like_itself_than_like_its_background() -> None:
    # The background is the photo's own, so it must not tell products apart: the border of photos
    # of one product is as far apart as that of photos of different products.
    def border(number: int, photo: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        with Image.open(io.BytesIO(render_photo(product(9, number), photo))) as image:
            pixels = np.asarray(image, float)
        return np.asarray(pixels[:8].mean(axis=(0, 1)))

    same = [np.linalg.norm(border(n, 0) - border(n, 1)) for n in range(40)]
    different = [np.linalg.norm(border(n, 0) - border(n + 1, 1)) for n in range(40)]
    assert np.mean(same) == pytest.approx(np.mean(different), rel=0.35)


def test_a_negative_number_is_refused() -> None:
    with pytest.raises(ValueError, match="product number -1"):
        product(1, -1)
