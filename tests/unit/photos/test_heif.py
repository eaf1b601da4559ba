"""HEIC and AVIF: what phones write is read, and what a file claims is bounded before it is decoded."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from shashin.errors import PhotoError, PhotoTooLarge, PhotoUndecodable
from shashin.photos import DecodeBudget, decode, decode_photo, thumbnail_image
from shashin.photos.heif import HeifProblem, heif_structure, is_heif

RED, BLUE = (220, 30, 30), (30, 30, 220)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    made = io.BytesIO()
    image.save(made, kind, **options)
    return made.getvalue()


def detailed(size: tuple[int, int]) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size)


def two_halves(size: tuple[int, int] = (640, 480)) -> Image.Image:
    image = Image.new("RGB", size, RED)
    image.paste(BLUE, (size[0] // 2, 0, size[0], size[1]))
    return image


def with_sizes(data: bytes, width: int, height: int) -> bytes:
    """Return the file with other sizes in its header; its coded images stay as they are."""
    changed, at = bytearray(data), -1
    while (at := data.find(b"ispe", at + 1)) >= 0:
        struct.pack_into(">II", changed, at + 8, width, height)
    return bytes(changed)


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_upright_whatever_way_the_phone_was_held(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = decode_photo(saved(two_halves(), "PNG", exif=exif))
    turned = decode_photo(saved(two_halves(), kind, quality=90, exif=exif.tobytes()))
    assert turned.size == upright.size
    difference = np.abs(np.asarray(turned, np.int16) - np.asarray(upright, np.int16))
    assert np.median(difference) <= 6


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_transparent_pixels_become_white(kind: str) -> None:
    clear = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    assert decode_photo(saved(clear, kind)).getpixel((30, 30)) == (255, 255, 255)


def test_a_photo_of_tiles_is_read_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    tiled = saved(two_halves(), "HEIF", tile_size=256)
    structure = heif_structure(tiled)
    assert structure.tile_pixels == 6 * 256 * 256
    image = decode_photo(tiled)
    assert image.size == (640, 480)
    assert image.getpixel((600, 470)) == decode_photo(tiled).getpixel((610, 470))


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        ("HEIF", {}, (False, True)),
        ("HEIF", {"chroma": "444"}, (False, False)),
        ("AVIF", {}, (False, True)),
        ("AVIF", {"subsampling": "4:4:4"}, (False, False)),
        ("AVIF", {"subsampling": "4:2:2"}, (False, False)),
    ],
)
def test_the_header_tells_size_depth_and_sampling(
    kind: str, options: dict[str, object], expected: tuple[bool, bool]
) -> None:
    structure = heif_structure(saved(detailed((640, 480)), kind, **options))
    assert structure.format == kind
    assert structure.pixels == 640 * 480
    assert (structure.deep, structure.subsampled) == expected


def test_ten_bits_are_known_and_scaled_to_eight() -> None:
    import pillow_heif

    values = np.full((64, 64, 3), 32768, np.uint16)
    deep = pillow_heif.from_bytes("RGB;16", (64, 64), values.tobytes())
    made = io.BytesIO()
    deep.save(made, quality=90)
    assert heif_structure(made.getvalue()).deep
    pixel = decode_photo(made.getvalue()).getpixel((30, 30))
    assert isinstance(pixel, tuple)
    assert all(abs(value - 128) <= 3 for value in pixel)


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_an_image_that_is_larger_than_its_file_says_is_refused_by_what_it_takes(kind: str) -> None:
    small = with_sizes(saved(detailed((2400, 2400)), kind), 100, 100)
    assert heif_structure(small).pixels == 2400 * 2400
    with pytest.raises(PhotoTooLarge, match=r"takes \d\d MB of memory; at most 40 MB"):
        thumbnail_image(small, budget=DecodeBudget(40_000_000))


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_a_size_beyond_the_limit_is_refused_by_the_header(kind: str) -> None:
    huge = with_sizes(saved(detailed((64, 64)), kind), 60_000, 60_000)
    with pytest.raises(PhotoTooLarge, match="3600 megapixels; at most 50"):
        decode_photo(huge)


def test_a_grid_of_very_many_tiles_is_refused() -> None:
    data = bytearray(saved(detailed((600, 600)), "HEIF", tile_size=512))
    at = data.index(b"\0\0\1\1" + struct.pack(">HH", 600, 600))  # two rows and columns
    data[at + 2 : at + 4] = b"\xff\xff"
    with pytest.raises(PhotoTooLarge, match="17180 megapixels"):
        decode_photo(bytes(data))


def test_a_grid_larger_than_its_file_says_is_refused() -> None:
    data = bytearray(saved(detailed((600, 600)), "HEIF", tile_size=512))
    at = data.index(b"\0\0\1\1" + struct.pack(">HH", 600, 600))
    struct.pack_into(">HH", data, at + 4, 60_000, 60_000)
    with pytest.raises(PhotoTooLarge, match="3600 megapixels"):
        decode_photo(bytes(data))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.replace(b"hvc1", b"iovl"), "parts of the kind 'iovl'"),
        (lambda data: data.replace(b"hvcC", b"free"), "does not tell its size"),
        (lambda data: data + struct.pack(">I4s", 8, b"moov"), "sequence of images"),
        (lambda data: data[:200], "truncated or corrupt"),
        (lambda data: data.replace(b"iinf", b"free"), "expected HEVC or AV1 images"),
    ],
)
def test_what_is_no_still_photo_is_refused_by_name(
    change: Callable[[bytes], bytes], message: str
) -> None:
    with pytest.raises(PhotoUndecodable, match=message):
        decode_photo(change(saved(detailed((64, 64)), "HEIF")))


def test_an_animation_is_refused_by_name() -> None:
    frames = [Image.new("RGB", (64, 64), colour) for colour in (RED, BLUE)]
    with pytest.raises(PhotoUndecodable, match="expected a still photo"):
        decode_photo(saved(frames[0], "AVIF", save_all=True, append_images=frames[1:]))


def test_without_the_library_a_heic_photo_is_refused_by_name_and_avif_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decode, "_READS_HEIF", False)
    with pytest.raises(PhotoUndecodable, match="the package pillow-heif is not installed here"):
        decode_photo(saved(two_halves(), "HEIF"))
    assert decode_photo(saved(two_halves(), "AVIF")).size == (640, 480)


@given(data=st.binary(max_size=300))
def test_any_bytes_behind_the_brand_have_a_structure_or_a_problem(data: bytes) -> None:
    file = struct.pack(">I4s4sI", 16, b"ftyp", b"heic", 0) + data
    assert is_heif(file)
    with pytest.raises(HeifProblem):
        heif_structure(file)


@settings(max_examples=200, deadline=None)
@given(
    kind=st.sampled_from(["AVIF", "HEIF"]),
    changes=st.lists(st.tuples(st.integers(0, 700), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_a_damaged_header_is_a_photo_or_a_photo_error(
    kind: str, changes: list[tuple[int, int]]
) -> None:
    data = bytearray(saved(two_halves((64, 48)), kind))
    for at, value in changes:
        data[at % len(data)] = value
    with suppress(PhotoError):
        assert thumbnail_image(bytes(data), budget=DecodeBudget(64_000_000))
