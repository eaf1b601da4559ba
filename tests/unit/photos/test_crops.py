"""A part of a photo is decoded as if it had been cropped and sent by itself."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from shashin.errors import InvalidQuery, PhotoTooLarge
from shashin.model.embedder import PhotoEmbedder
from shashin.model.loading import load_embedder
from shashin.photo_box import MIN_BOX_PIXELS, Box
from shashin.photos import SHORT_SIDE, DecodeBudget, decode_photo, thumbnail_image
from tests.support.odd_photos import picture, saved

ORIENTATIONS = st.integers(1, 8)
FROM_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""How a phone that was held in a certain way stores an upright picture."""
WHOLE = Box(0.0, 0.0, 1.0, 1.0)


@st.composite
def boxes(draw: st.DrawFn, least: float) -> Box:
    """Return boxes of at least this share of the width and height."""
    left, top = draw(st.floats(0, 1 - least)), draw(st.floats(0, 1 - least))
    right = draw(st.floats(min(left + least, 1), 1))
    bottom = draw(st.floats(min(top + least, 1), 1))
    return Box(left, top, right, bottom)


def stored(upright: Image.Image, kind: str, orientation: int) -> bytes:
    """Return a picture as a photo of some format and orientation."""
    turn = FROM_UPRIGHT.get(orientation)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, object] = {"exif": exif.tobytes()}
    if kind in {"JPEG", "HEIF"}:
        options["quality"] = 95
    return saved(upright if turn is None else upright.transpose(turn), kind, **options)


def noise(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(width * 1000 + height)
    return Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8))


@settings(deadline=None)
@given(
    data=st.data(),
    orientation=ORIENTATIONS,
    kind=st.sampled_from(["PNG", "TIFF"]),
    size=st.tuples(st.integers(12, 90), st.integers(12, 90)),
)
def test_a_crop_has_exactly_the_pixels_of_the_upright_photo(
    data: st.DataObject, orientation: int, kind: str, size: tuple[int, int]
) -> None:
    upright = noise(*size)
    # A pixel more than the minimum, as rounding may take one.
    box = data.draw(boxes((MIN_BOX_PIXELS + 1) / min(size)))
    left, top, right, bottom = box.pixels(*upright.size)
    made = decode_photo(stored(upright, kind, orientation), box=box)
    assert made.size == (right - left, bottom - top)
    assert made.tobytes() == upright.crop((left, top, right, bottom)).tobytes()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "HEIF"])
@pytest.mark.parametrize("size", [(300, 200), (2600, 2000)])
def test_a_box_of_the_whole_photo_changes_nothing(kind: str, size: tuple[int, int]) -> None:
    data = saved(picture(500).resize(size), kind)
    assert thumbnail_image(data, box=WHOLE).tobytes() == thumbnail_image(data).tobytes()


@settings(deadline=None, max_examples=25)
@given(box=boxes(0.08), orientation=ORIENTATIONS)
def test_a_crop_of_a_large_jpeg_keeps_the_pixels_that_models_use(
    box: Box, orientation: int
) -> None:
    upright = noise(60, 45).resize((2400, 1800))
    left, top, right, bottom = box.pixels(*upright.size)
    width, height = right - left, bottom - top
    made = decode_photo(stored(upright, "JPEG", orientation), box=box, enough=SHORT_SIDE)
    assert min(made.size) >= min(SHORT_SIDE, width, height) - 1
    assert max(made.size) / min(made.size) == pytest.approx(
        max(width, height) / min(width, height), rel=0.03
    )
    # And no more than that: what is decoded in full takes its time.
    assert min(made.size) < 4 * SHORT_SIDE


@pytest.fixture(scope="module")
def embedder() -> PhotoEmbedder:
    return load_embedder("demo-v1", threads=1)


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    box=boxes(0.15),
    orientation=ORIENTATIONS,
    kind=st.sampled_from(["JPEG", "PNG", "HEIF"]),
    number=st.integers(510, 514),
    size=st.sampled_from([(500, 400), (400, 600), (1500, 1100)]),
)
def test_a_crop_is_embedded_as_the_cropped_photo_is_by_itself(
    embedder: PhotoEmbedder,
    box: Box,
    orientation: int,
    kind: str,
    number: int,
    size: tuple[int, int],
) -> None:
    upright = picture(number).resize(size)
    data = stored(upright, kind, orientation)
    # What the sender sees, cropped by them, without another loss.
    seen = decode_photo(data)
    alone = saved(seen.crop(box.pixels(*seen.size)), "PNG")
    one, other = embedder.embed([thumbnail_image(data, box=box), thumbnail_image(alone)])
    assert float(one @ other) > 0.98


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "HEIF"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_crop_of_too_few_pixels_is_refused_with_its_upright_size(
    kind: str, orientation: int
) -> None:
    data = stored(noise(200, 100), kind, orientation)
    box = Box(0.0, 0.0, 0.5, 0.07)
    says = "the box has 100 x 7 pixels of a photo of 200 x 100; expected at least 8 x 8"
    with pytest.raises(InvalidQuery, match=says):
        thumbnail_image(data, box=box)
    assert thumbnail_image(data, box=Box(0.0, 0.0, 0.5, 0.08)).size == (32, 8)


def test_a_crop_that_is_much_longer_than_wide_is_cropped_to_its_middle() -> None:
    upright = noise(400, 300)
    made = thumbnail_image(saved(upright, "PNG"), box=Box(0.5, 0.0, 0.55, 1.0))
    assert made.tobytes() == upright.crop((200, 110, 220, 190)).tobytes()


def test_transparency_and_palettes_are_cropped_too() -> None:
    image = Image.new("RGBA", (100, 60), (0, 0, 0, 0))
    image.paste((200, 30, 30, 255), (50, 0, 100, 60))
    for kind in ("PNG", "WEBP", "GIF"):
        made = decode_photo(saved(image, kind), box=Box(0.4, 0.0, 0.9, 1.0))
        assert made.size == (50, 60)
        found = np.asarray(made, np.int16)[30, [5, 40]]
        assert np.abs(found - [(255, 255, 255), (200, 30, 30)]).max() < 30, kind


def test_memory_for_a_crop_is_reserved_as_for_a_photo() -> None:
    made = io.BytesIO()
    Image.new("RGB", (3000, 3000)).save(made, "PNG")
    with pytest.raises(PhotoTooLarge, match="at most 20 MB are allowed"):
        thumbnail_image(
            made.getvalue(), box=Box(0.1, 0.1, 0.2, 0.2), budget=DecodeBudget(20_000_000)
        )
