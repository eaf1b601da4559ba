"""The canary's photos: valid, the same at every start, and unlike each other."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from services.canary.handlers import LISTINGS, known_listings
from services.canary.mosaic import mosaic
from shashin.codecs.listing_rules import listing_id_problem
from shashin.photos import thumbnail_image


def pixels(photo: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(photo)).convert("RGB"))


def test_a_mosaic_is_a_png_that_the_downloader_takes() -> None:
    photo = mosaic(1)
    assert photo == mosaic(1)
    assert pixels(photo).shape == (256, 256, 3)
    assert len(np.unique(pixels(photo).reshape(-1, 3), axis=0)) > 50
    assert thumbnail_image(photo).size == (256, 256)


def test_no_two_listings_of_any_two_canaries_share_an_id_or_a_photo() -> None:
    listings = [*known_listings("0"), *known_listings("1"), *known_listings("router-7")]
    assert len({one.listing_id for one in listings}) == 3 * LISTINGS
    assert len({one.photo for one in listings}) == 3 * LISTINGS
    assert all(listing_id_problem(one.listing_id) is None for one in listings)
    assert known_listings("0") == known_listings("0")
